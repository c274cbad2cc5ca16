"""What an experiment between two bundle versions is, and which of them a subject meets.

Three modes. *Shadow*: the champion answers, the challenger scores the same image beside it; each image is its own
control, which needs 10 to 20 times fewer readings than two groups do. *Split*: a share of the subjects is answered by
the challenger. *Canary*: a split whose share grows step by step.
"""

import contextlib
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MODES = ("shadow", "split", "canary")
BOUNDS: dict[str, tuple[float, float]] = {
    "alpha": (1e-6, 0.49),
    "gain_months": (-240, 240),
    "min_references": (1, 1_000_000),
    "max_error_rate": (0, 1),
    "max_latency_ratio": (1, 1000),
    "max_disagreement": (0, 1),
    "disagreement_months": (0, 240),
    "window": (1, 10_000),
    "min_window": (1, 10_000),
    "step_predictions": (1, 1_000_000),
}
"""Of each number of a policy. Below them it would act on nothing: a canary grew to its last share in as many rounds as
it has steps. Beyond them it would mean nothing, or ask for more than a database reads in every round."""
PROMOTE = ("ask", "auto")
_KINDS = {int: "a whole number", float: "a number", str: "a word"}
NAME_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class ExperimentError(ValueError):
    """An experiment that cannot be, or that cannot do now what is asked of it."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When an experiment ends by itself."""

    alpha: float = 0.05
    """Probability, at most, that the confidence sequence is ever wrong."""
    gain_months: float = 0.0
    """Promotion asks that the challenger's mean absolute error is surely lower by more than this; below 0 it accepts a
    challenger that is not worse by more."""
    min_references: int = 50
    """Subjects with a reading before the statistics may promote or roll back."""
    promote: str = "ask"
    """``ask``: a person promotes, and is told when it is due; ``auto``: the policy does."""
    max_error_rate: float = 0.05
    """Of the challenger's last `window` attempts."""
    max_latency_ratio: float = 3.0
    """The 95th percentile of the challenger over that of the champion, if they are 100 ms apart at least."""
    max_disagreement: float = 0.05
    """Share of the last `window` pairs whose arms are more than `disagreement_months` apart."""
    disagreement_months: float = 24.0
    window: int = 200
    """Predictions that the bounds look back on; they act from `min_window` on."""
    min_window: int = 50
    step_predictions: int = 200
    """Answers that a canary's challenger gives before its share grows."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ExperimentError(f"alpha lies between 0 and 0.5, got {self.alpha}.")
        if not all(math.isfinite(value) for value in vars(self).values() if isinstance(value, float)):
            raise ExperimentError(f"Every bound of a policy is a finite number, got {self}.")
        if self.promote not in PROMOTE:
            raise ExperimentError(f"promote is ask or auto, got {self.promote!r}.")
        if not 0 < self.min_window <= self.window:
            got = f"{str(self.min_window)[:40]} and {str(self.window)[:40]}"
            raise ExperimentError(f"min_window lies within 1..window, got {got}.")
        for name in ("max_error_rate", "max_disagreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ExperimentError(f"{name} is a share within 0..1, got {getattr(self, name)}.")

    def check(self) -> None:
        """Return where it may be begun with; what releases of before accepted and stored may still be read.

        Raises:
            ExperimentError: A number lies outside of its `BOUNDS`.
        """
        for name, (least, most) in BOUNDS.items():
            if not least <= (value := getattr(self, name)) <= most:
                usual = f"Leave it out for the usual {getattr(type(self), name):g}."
                raise ExperimentError(f"{name} lies within {least:,} to {most:,}, got {str(value)[:40]}. {usual}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Policy":
        """A policy from plain JSON values; what is left out keeps its default.

        Raises:
            ExperimentError: A name is unknown, or a value of another type.
        """
        if unknown := sorted(set(values) - set(cls.__dataclass_fields__)):
            raise ExperimentError(f"A policy has no {unknown[0][:40]!r}; it has {', '.join(cls.__dataclass_fields__)}.")
        typed = {}
        for name, value in values.items():
            kind: type = type(getattr(cls, name))  # of the default
            try:
                is_kind = kind(value) == value and isinstance(value, bool | str) == (kind is str)  # 5.0 is JSON's 5
            except (TypeError, ValueError, OverflowError):
                is_kind = False
            if not is_kind:
                raise ExperimentError(f"{name} is {_KINDS[kind]}, got {str(value)[:40]!r}. Send such a one.")
            typed[name] = kind(value)
        return cls(**typed)

    @classmethod
    def from_words(cls, words: Mapping[str, str]) -> "Policy":
        """A policy from what a person typed.

        Raises:
            ExperimentError: As of `from_dict`.
        """
        values: dict[str, Any] = dict(words)
        for name in BOUNDS.keys() & words.keys():
            for kind in (float, int):  # a word that is none stays one, and is refused
                with contextlib.suppress(ValueError):
                    values[name] = kind(words[name])
        return cls.from_dict(values)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A champion and a challenger under test."""

    name: str
    mode: str
    champion: str
    challenger: str
    shares: tuple[float, ...]
    """Of the subjects whom the challenger scores: one, or a canary's steps."""
    step: int = 0
    """Which of the shares holds."""
    salt: str
    """Makes the arms of this experiment independent of those of any other."""
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise ExperimentError(f"An experiment's name is a word of a-z, 0-9, _ and -, got {self.name[:80]!r}.")
        if self.mode not in MODES:
            raise ExperimentError(f"The mode is one of {', '.join(MODES)}, got {self.mode!r}.")
        if self.champion == self.challenger:
            raise ExperimentError(f"An experiment needs two versions, got {self.champion} twice.")
        most = 1.0 if self.mode == "shadow" else 0.99  # with no champion left there is nothing to compare
        if not self.shares or not all(0 < share <= most for share in self.shares):
            raise ExperimentError(f"The share of a {self.mode} lies above 0 and within {most:g}, got {self.shares}.")
        if list(self.shares) != sorted(set(self.shares)) or (len(self.shares) > 1) != (self.mode == "canary"):
            raise ExperimentError(
                f"A canary has two or more growing shares, any other mode one; got {self.mode} with {self.shares}."
            )
        if not 0 <= self.step < len(self.shares):
            raise ExperimentError(f"The step lies within 0..{len(self.shares) - 1}, got {self.step}.")

    @property
    def share(self) -> float:
        """That holds now."""
        return self.shares[self.step]

    def arm_of(self, unit: str) -> str:
        """The arm that scores a subject: always the same one, and once challenger, challenger as the share grows."""
        digest = hashlib.blake2b(f"{self.salt}:{unit}".encode(), digest_size=8).digest()
        return "challenger" if int.from_bytes(digest, "big") < self.share * 2**64 else "champion"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "shares": list(self.shares)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Experiment":
        """The experiment that `to_dict` wrote."""
        return cls(**{**values, "shares": tuple(values["shares"]), "policy": Policy.from_dict(values["policy"])})
