"""Bone age beside chronological age: difference, standard deviation score, and delayed, normal or advanced.

No model ever sees the chronological age: a network that did would answer with it, and hide the very delay that the
radiograph was taken for. It joins an answer that is already given.

Standard deviations of the bone age of healthy children: Gilsanz and Ratib, "Hand bone age: a digital atlas of skeletal
maturity", Springer 2005, whose table paediatric textbooks reproduce. Girls' figures are used up to 15 years, boys'
up to 17. The expected bone age is the chronological age itself, as with Greulich and Pyle's atlas.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

SOURCE = "Gilsanz and Ratib, Hand bone age, Springer 2005"
LIMIT_SDS = 2.0
"""Beyond this, either way, a bone age counts as delayed or advanced."""
OLDEST_MONTHS = 240.0
_AGES = (12, 18, 24, 30, 36, 42, 48, 54, 60, 66, 72, 84, 96, 108, 120, 132, 144, 156, 168, 180, 192, 204)
_SD_MONTHS = {
    "male": (
        2.1, 2.7, 4.0, 5.4, 6.0, 6.6, 7.0, 7.8, 8.4, 9.1, 9.3, 10.1, 10.8, 11.0, 11.4, 10.5, 10.4, 11.1, 12.0, 14.0,
        15.0, 15.4,
    ),
    "female": (
        2.7, 3.4, 4.0, 4.8, 5.6, 5.5, 7.2, 8.0, 8.6, 8.9, 9.0, 8.3, 8.8, 9.3, 10.8, 12.3, 14.0, 14.6, 12.6, 11.2,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A bone age judged by the chronological age."""

    chronological_age_months: float
    difference_months: float
    """Bone age minus chronological age."""
    sd_months: float | None
    """Of the bone age at that age; None where the sex is unknown or the table has no such age."""
    sds: float | None
    """Difference in standard deviations."""
    status: str | None
    """``delayed``, ``normal`` or ``advanced``; None without a standard deviation."""
    borderline: bool | None
    """Whether the 90 % interval reaches into another status; None without one or the other."""
    source: str = SOURCE

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, rounded."""
        return {
            "chronological_age_months": round(self.chronological_age_months, 4),
            "difference_months": round(self.difference_months, 4),
            "sd_months": None if self.sd_months is None else round(self.sd_months, 4),
            "sds": None if self.sds is None else round(self.sds, 4),
            "status": self.status,
            "borderline": self.borderline,
            "source": self.source,
        }


def sd_months(chronological_age_months: float, sex: str | None) -> float | None:
    """Standard deviation of healthy children's bone age, in months.

    Args:
        chronological_age_months: Interpolated between the table's ages.
        sex: ``male`` or ``female``, or None where it is unknown.

    Returns:
        None where the sex is unknown or the age lies outside the table.
    """
    if sex is None:
        return None
    sd = _SD_MONTHS[sex]
    ages = _AGES[: len(sd)]
    if not ages[0] <= chronological_age_months <= ages[-1]:
        return None
    return float(np.interp(chronological_age_months, ages, sd))


def compare(
    bone_age_months: float,
    chronological_age_months: float,
    sex: str | None,
    interval90: tuple[float, float] | None = None,
) -> Comparison:
    """Judge a bone age.

    Args:
        bone_age_months: As a bundle answered it.
        chronological_age_months: Of the child when the radiograph was taken.
        sex: ``male``, ``female`` or None.
        interval90: The answer's 90 % interval, in months, where it has one.

    Raises:
        ValueError: The chronological age is no age of a child.
    """
    if not 0 <= chronological_age_months <= OLDEST_MONTHS:
        raise ValueError(
            f"The chronological age must lie within 0..{OLDEST_MONTHS:.0f} months, got {chronological_age_months}. "
            "Give it in months, or leave it out."
        )
    difference = bone_age_months - chronological_age_months
    sd = sd_months(chronological_age_months, sex)
    if sd is None:
        return Comparison(chronological_age_months, difference, None, None, None, None)
    status = _status(difference / sd)
    borderline = None
    if interval90 is not None:
        borderline = any(_status((end - chronological_age_months) / sd) != status for end in interval90)
    return Comparison(chronological_age_months, difference, sd, difference / sd, status, borderline)


def _status(sds: float) -> str:
    if sds < -LIMIT_SDS:
        return "delayed"
    return "advanced" if sds > LIMIT_SDS else "normal"
