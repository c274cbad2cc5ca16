"""Bone age beside chronological age: difference, standard deviation score, and delayed, normal or advanced.

No model ever sees the chronological age: a network that did would answer with it, and hide the very delay that the
radiograph was taken for. It joins an answer that is already given.

Standard deviations of the bone age of healthy children: Gilsanz and Ratib, "Hand bone age: a digital atlas of skeletal
maturity", Springer 2005, whose table paediatric textbooks reproduce. Girls' figures are used up to 15 years, boys'
up to 17. The expected bone age is the chronological age itself, as with Greulich and Pyle's atlas.

Other children grow at another pace, so a site may bring norms of its own (`read_norms`); a bundle carries them.
"""

import io
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

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


NORMS_FILE = "evidence/norms.csv"
"""Of a bundle that carries norms of its own."""
NORMS_COLUMNS = ("sex", "age_months", "sd_months", "source")
"""Of a table of norms; ``mean_months`` may stand beside them."""


class NormsError(ValueError):
    """The table of norms cannot be used."""


@dataclass(frozen=True)
class Norms:
    """The bone age of healthy children by sex and chronological age."""

    rows: dict[str, tuple[tuple[float, float, float], ...]]
    """By sex: age, mean bone age and its standard deviation, in months, by ascending age."""
    source: str = SOURCE
    """What is cited with every judgement."""

    def at(self, chronological_age_months: float, sex: str | None) -> tuple[float, float] | None:
        """Mean and standard deviation of the bone age, in months, interpolated between the table's ages.

        Args:
            chronological_age_months: Of the child.
            sex: ``male`` or ``female``, or None where it is unknown.

        Returns:
            None where the sex is unknown or the age lies outside the table.
        """
        if sex is None or sex not in self.rows:
            return None
        ages, means, sds = zip(*self.rows[sex], strict=True)
        if not ages[0] <= chronological_age_months <= ages[-1]:
            return None
        mean, sd = (float(np.interp(chronological_age_months, ages, values)) for values in (means, sds))
        return mean, sd


PUBLISHED = Norms(
    {
        sex: tuple((float(age), float(age), sd) for age, sd in zip(_AGES, sds, strict=False))
        for sex, sds in _SD_MONTHS.items()
    }
)
"""The default."""


def read_norms(content: bytes, *, is_published: bool = False) -> Norms:
    """Read a CSV of norms.

    Args:
        content: A row an age and sex: ``sex`` (male or female), ``age_months``, ``sd_months``, and ``source``, the same
            words in every row, to be cited; where the expected bone age is not the age itself, ``mean_months``.
        is_published: Whether a published bundle holds them. Releases before left out rows without a sex, and took one
            source for all; a bundle answers by its norms as it was published.

    Raises:
        NormsError: A column is missing, a value cannot be, a sex has fewer than two ages, or nothing is to be cited.
    """
    try:
        table = pd.read_csv(io.BytesIO(content))
    except (ValueError, UnicodeDecodeError) as error:
        raise NormsError(f"Norms must be a CSV of {', '.join(NORMS_COLUMNS)}: {error}") from None
    if missing := [name for name in NORMS_COLUMNS if name not in table]:
        raise NormsError(f"Norms must have the columns {', '.join(NORMS_COLUMNS)}; {missing[0]} is missing.")
    table = table.dropna(how="all")  # spreadsheets end with rows of commas
    table = table if "mean_months" in table else table.assign(mean_months=table["age_months"])
    rows: dict[str, tuple[tuple[float, float, float], ...]] = {}
    for sex, of_sex in table.groupby("sex", dropna=is_published):
        try:
            values = of_sex[["age_months", "mean_months", "sd_months"]].to_numpy(float)
        except ValueError as error:
            raise NormsError(f"Norms must be numbers, in months: {error}.") from None
        is_usable = np.isfinite(values).all() and (values[:, 0] >= 0).all() and (values <= OLDEST_MONTHS).all()
        rises = len(values) > 1 and (np.diff(values[:, 0]) > 0).all() and (np.diff(values[:, 1]) >= 0).all()
        if sex not in _SD_MONTHS or not is_usable or not (values[:, 2] > 0).all() or not rises:
            raise NormsError(
                f"Norms must name male or female, two ages or more in ascending order within 0..{OLDEST_MONTHS:.0f} "
                f"months, and standard deviations above 0; those of {sex!r} do not."
            )
        rows[str(sex)] = tuple((float(age), float(mean), float(sd)) for age, mean, sd in values)
    sources, num_without = table["source"].dropna().unique(), int(table["source"].isna().sum())
    if not rows or len(sources) != 1 or (num_without and not is_published):
        raise NormsError(
            f"Norms must cite one source, the same in every row, got {len(sources)}; {num_without} rows have none."
        )
    if num_left_out := int(table["sex"].isna().sum()):
        logging.getLogger(__name__).warning(
            "Rows of a bundle's norms that name no sex judge no answer: %d. Build it again with norms that all do.",
            num_left_out,
        )
    return Norms(rows, str(sources[0]))


@dataclass(frozen=True)
class Comparison:
    """A bone age judged by the chronological age."""

    chronological_age_months: float
    difference_months: float
    """Bone age minus chronological age."""
    sd_months: float | None
    """Of the bone age at that age; None where the sex is unknown or the table has no such age."""
    sds: float | None
    """Bone age minus the norms' mean at that age, by default the age itself, in standard deviations."""
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
    """Standard deviation of healthy children's bone age by the published norms, in months; see `Norms.at`."""
    found = PUBLISHED.at(chronological_age_months, sex)
    return None if found is None else found[1]


def compare(
    bone_age_months: float,
    chronological_age_months: float,
    sex: str | None,
    interval90: tuple[float, float] | None = None,
    norms: Norms = PUBLISHED,
) -> Comparison:
    """Judge a bone age.

    Args:
        bone_age_months: As a bundle answered it.
        chronological_age_months: Of the child when the radiograph was taken.
        sex: ``male``, ``female`` or None.
        interval90: The answer's 90 % interval, in months, where it has one.
        norms: What children of that age are like.

    Raises:
        ValueError: The chronological age is no age of a child.
    """
    if not 0 <= chronological_age_months <= OLDEST_MONTHS:
        raise ValueError(
            f"The chronological age must lie within 0..{OLDEST_MONTHS:.0f} months, got {chronological_age_months}. "
            "Give it in months, or leave it out."
        )
    age, difference = chronological_age_months, bone_age_months - chronological_age_months
    found = norms.at(age, sex)
    if found is None:
        return Comparison(age, difference, None, None, None, None, norms.source)
    mean, sd = found
    status = _status((bone_age_months - mean) / sd)
    borderline = None
    if interval90 is not None:
        borderline = any(_status((end - mean) / sd) != status for end in interval90)
    return Comparison(age, difference, sd, (bone_age_months - mean) / sd, status, borderline, norms.source)


def _status(sds: float) -> str:
    if sds < -LIMIT_SDS:
        return "delayed"
    return "advanced" if sds > LIMIT_SDS else "normal"
