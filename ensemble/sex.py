"""What a picture says about the sex: a warning where the stated one is improbable, weights where none was stated.

Members trained with `weight_sex` guess the sex from the same features as the bone age. A guess is trusted as far as it
held out of fold: the warning's threshold is where it would have doubted 1 % of correctly labelled cases, and a guess
hardly better than a coin warns of nothing.

Shape letters: C cases.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from preprocessing.quality import Finding
from search.metrics import rounded

FALSE_ALARMS = 0.01
"""Share of correctly stated sexes that may be doubted."""
MIN_AUC = 0.75
"""Area under the curve below which a guess is not used."""
MIN_CASES = 100


@dataclass(frozen=True)
class SexReading:
    """How far the guess of a bundle can be trusted."""

    share_male: float
    """Of the training cases: what is assumed where the picture tells nothing."""
    doubt_below: float | None = None
    """A stated sex is improbable where its guessed probability lies below; None where the guess is not used."""
    auc: float | None = None
    """Out-of-fold area under the curve; None where no member guesses."""
    found: float | None = None
    """Share of cases that would be doubted if their sex were stated wrongly, out of fold."""

    def __post_init__(self) -> None:
        numbers = [value for value in (self.share_male, self.doubt_below, self.auc, self.found) if value is not None]
        if not all(0 <= number <= 1 for number in numbers):
            raise ValueError(f"Shares and probabilities of a sex reading lie within 0..1, got {self}.")

    @classmethod
    def fit(cls, is_male_C: np.ndarray, male_probability_C: np.ndarray | None) -> Self:
        """Judge the guesses.

        Args:
            is_male_C: ``(C,)`` bool.
            male_probability_C: ``(C,)`` guessed out of fold, NaN where no member could; None where none can at all.
        """
        share = rounded(is_male_C.mean())
        guess_C = np.full(len(is_male_C), np.nan) if male_probability_C is None else male_probability_C
        known_C = np.isfinite(guess_C)
        is_male_C, guess_C = is_male_C[known_C], np.asarray(guess_C, float)[known_C]
        if len(guess_C) < MIN_CASES or len(np.unique(is_male_C)) < 2:
            return cls(share)
        area = _area(is_male_C, guess_C)
        if area < MIN_AUC:
            return cls(share, auc=rounded(area))
        of_stated_C = np.where(is_male_C, guess_C, 1 - guess_C)
        threshold = float(np.sort(of_stated_C)[int(FALSE_ALARMS * len(of_stated_C))])
        threshold = rounded(min(threshold, 0.5))
        return cls(share, threshold, rounded(area), rounded((1 - of_stated_C < threshold).mean()))

    def doubts(self, is_male: bool, male_probability: float | None) -> tuple[Finding, ...]:
        """The warning, where the stated sex is improbable."""
        if self.doubt_below is None or male_probability is None:
            return ()
        of_stated = male_probability if is_male else 1 - male_probability
        if of_stated >= self.doubt_below:
            return ()
        stated, other = ("male", "female") if is_male else ("female", "male")
        sentence = (
            f"The sex was stated as {stated}, and the picture looks {other}: the members give {stated} a probability "
            f"of {100 * of_stated:.1f} %. Check the sex; the reading depends on it."
        )
        return (Finding("sex_improbable", "warned", of_stated, self.doubt_below, sentence),)

    def prior(self, male_probability: float | None) -> float:
        """Probability of male that weighs the two answers where the sex is unknown."""
        if self.doubt_below is None or male_probability is None:
            return self.share_male
        return male_probability

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {
            "share_male": self.share_male,
            "doubt_below": self.doubt_below,
            "auc": self.auc,
            "wrong_sex_found": self.found,
        }

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Rebuild and check.

        Raises:
            ValueError: A key is unknown or missing, or a value is out of range.
        """
        keys = {"share_male", "doubt_below", "auc", "wrong_sex_found"}
        if not isinstance(value, dict) or set(value) != keys:
            raise ValueError(f"The sex of a calibration has exactly the keys {sorted(keys)}, got {value!r:.200}.")
        try:
            share = float(value["share_male"])
            others = [value[key] for key in ("doubt_below", "auc", "wrong_sex_found")]
            threshold, auc, found = (None if other is None else float(other) for other in others)
        except (TypeError, ValueError) as error:
            raise ValueError(f"The sex of a calibration needs numbers: {error}.") from None
        return cls(share, threshold, auc, found)


def _area(is_male_C: np.ndarray, guess_C: np.ndarray) -> float:
    """Area under the receiver operating characteristic: the chance that a boy gets the higher guess than a girl."""
    girls, boys = np.sort(guess_C[~is_male_C]), guess_C[is_male_C]
    below = np.searchsorted(girls, boys, "left") + np.searchsorted(girls, boys, "right")
    return float(below.sum() / (2 * len(girls) * len(boys)))
