"""What a bundle says about one radiograph."""

from dataclasses import dataclass, field, replace

import numpy as np

from ensemble.chronology import PUBLISHED, Comparison, Norms, compare
from preprocessing.quality import Finding


def in_words(months: float) -> str:
    """Bone age as people say it, rounded once to whole months: ``10 years 6 months``, ``9 months``, ``1 year``."""
    years, rest = divmod(max(0, round(float(months))), 12)
    parts = [
        f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in ((years, "year"), (rest, "month")) if count
    ]
    return " ".join(parts) or "0 months"


@dataclass(frozen=True)
class SexAnswer:
    """The answer if the child is of one sex."""

    bone_age_months: float
    intervals: dict[int, tuple[float, float]]
    """As in `Prediction`."""
    probability: float
    """Of that sex."""


@dataclass(frozen=True)
class Prediction:
    """What a bundle says about one radiograph."""

    bone_age_months: float
    """Mean of the distribution."""
    spread_months: float
    """Weighted standard deviation between the members' estimates; 0 with one member."""
    distribution: np.ndarray
    """``(240,)`` float32 probabilities of 0, 1, ..., 239 months, summing to 1; the 90 % interval, where there is one,
    holds 90 % of it. Of an unknown sex it is a mixture, whose interval holds more."""
    version: str
    """Of the bundle."""
    recipe: str
    """Hash of the recipe that standardised the picture."""
    bundle: str
    """Hash of the bundle's manifest, which names trials, folds, seeds and weights by theirs."""
    cohort: str
    """Hash of the cohort that all of them were trained on."""
    warnings: tuple[Finding, ...] = ()
    """What the reader of the number should know: of the picture, of its header, and of the members."""
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Low and high end in months by percent of cases held: 80, 90 and 95; none of a bundle without calibration."""
    sd_months: float = 0.0
    """Standard deviation of the answer, which scales its intervals; what the models of one member differ by is left
    out. Of an unknown sex it is the larger one."""
    by_sex: dict[str, SexAnswer] = field(default_factory=dict)
    """``female`` and ``male``, where the sex is unknown: the distribution is their mixture, and the intervals hold both
    sexes' intervals. Empty where the sex is known."""
    male_probability: float | None = None
    """From the picture alone; None where the members cannot tell."""
    profile: str = "full"
    """Which members answered."""
    chronology: Comparison | None = None
    """The bone age beside the chronological age, where that was given."""
    norms: Norms = PUBLISHED
    """By which `beside` judges."""

    @property
    def bone_age(self) -> str:
        """Such as ``10 years 6 months``."""
        return in_words(self.bone_age_months)

    def beside(self, chronological_age_months: float, sex: str | None) -> "Prediction":
        """The same answer, judged by the chronological age; arguments as in `ensemble.chronology.compare`.

        Raises:
            ValueError: The chronological age is no age of a child.
        """
        found = compare(self.bone_age_months, chronological_age_months, sex, self.intervals.get(90), self.norms)
        return replace(self, chronology=found)
