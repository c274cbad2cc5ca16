"""Whether a table of predictions can be meant as it was read: of a human, inside their own intervals, in one unit.

A wrong unit or column gives figures that look like a bad system's, so what cannot be is refused, not measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from preprocessing.labels import LONGEST_IN_YEARS, to_months
from preprocessing.rows import BAD_AGE
from preprocessing.source import SourceError

RANGE_MONTHS = (-12, 300)
"""Predictions of a human lie in it, with a margin for systems that do not stop at the ends of the scale."""
NO_INFANT_MONTHS = 36
"""References above it leave no room for a prediction of an infant."""
_NAMED = 5


def check_number(where: str, value: float, unit: str) -> None:
    """Refuse a prediction that is of no human.

    Args:
        where: Table and row, for the message.
        value: In `unit`.
        unit: ``months`` or ``years``.

    Raises:
        SourceError: It lies outside of `RANGE_MONTHS`.
    """
    low, high = RANGE_MONTHS
    if low <= to_months(value, unit) <= high:
        return
    ends = f"{low}..{high} months" if unit == "months" else f"{low // 12}..{high // 12} years"
    remedy = "name a column of months or years" if unit == "months" else "say --predicted-unit months if they are"
    raise SourceError(
        f"{where}: a predicted bone age must lie within {ends}, got {value:g} {unit}. Mend the row; or, where all are "
        f"such numbers, {remedy}."
    )


def check_nested(where: str, ends: Mapping[str, float], levels: Sequence[int]) -> None:
    """Refuse an interval of a higher level that is part of one of a lower level.

    Args:
        where: Table and row, for the message.
        ends: ``low_90``, ``high_90``, ... in months; NaN where there is none.
        levels: In percent, ascending.

    Raises:
        SourceError: One lies inside another.
    """
    for place, wide in enumerate(levels):
        for narrow in levels[:place]:
            outer, inner = ((ends[f"low_{level}"], ends[f"high_{level}"]) for level in (narrow, wide))
            if inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1]:
                raise SourceError(
                    f"{where}: the {wide} % interval must not lie inside of the {narrow} % one, got "
                    f"{inner[0]:g} to {inner[1]:g} inside of {outer[0]:g} to {outer[1]:g} months. Mend the row, or "
                    "swap the columns' names."
                )


def check_inside(table: str, rows: Sequence[Mapping[str, Any]], level: int) -> None:
    """Refuse intervals that most predictions lie outside of: their columns are of another unit, or another thing.

    Args:
        table: Its name, for the message.
        rows: With predicted_months and both ends, in months.
        level: In percent.

    Raises:
        SourceError: More than half of the predictions that have an interval lie outside of it.
    """
    ends = [(row["predicted_months"], row[f"low_{level}"], row[f"high_{level}"], row["case_id"]) for row in rows]
    judged = [row for row in ends if row[1] <= row[2]]  # not where an end is NaN
    outside = [row for row in judged if not row[1] <= row[0] <= row[2]]
    if 2 * len(outside) > len(judged):
        months, low, high, case_id = outside[0]
        raise SourceError(
            f"{table}: predictions must lie inside of their own {level} % intervals, and {len(outside)} of "
            f"{len(judged)} do not: {case_id} is {months:g} months, of {low:g} to {high:g}. Ends are read in the unit "
            f"of the predictions unless their names say another, as low_{level}_months and high_{level}_years do: "
            "rename the columns, or mend them."
        )


def in_doubt(cases: pd.DataFrame) -> dict[str, Any]:
    """Predictions that may be years among months: at most 20 where the reference is no infant's, and nearer as years.

    Args:
        cases: case_id, predicted_months, bone_age_months.

    Returns:
        ``unit`` with ``doubtful`` (their number) and ``says``, a sentence; empty where there is none.
    """
    said, actual = cases["predicted_months"], cases["bone_age_months"]
    is_nearer = (12 * said - actual).abs() < (said - actual).abs()
    is_doubtful = said.between(0, LONGEST_IN_YEARS) & (actual > NO_INFANT_MONTHS) & is_nearer
    if not is_doubtful.any():
        return {}
    named = cases.loc[is_doubtful, "case_id"]
    says = (
        f"{len(named)} of {len(cases)} predictions are at most {LONGEST_IN_YEARS} months where the reference is above "
        f"{NO_INFANT_MONTHS}, and nearer to it as years ({_some(named)}): if these rows are in years, convert them and "
        "measure again."
    )
    return {"unit": {"doubtful": len(named), "says": says}}


def impossible_ages(cases: pd.DataFrame, notes: pd.DataFrame) -> dict[str, Any]:
    """Chronological ages that cannot be, and so count as unknown: such a row may be wrong in more than that.

    Args:
        cases: case_id and chronological_age_months of what is measured; a DICOM header may tell what the row does not.
        notes: As `preprocessing.source.Source.notes` has them.

    Returns:
        ``ages`` with ``doubtful`` (their number) and ``says``, a sentence; empty where there is none.
    """
    found = notes[notes["reason"] == BAD_AGE]
    if not found.empty:
        unknown = cases.loc[cases["chronological_age_months"].isna(), "case_id"]
        found = found[found["case_id"].isin(unknown)]
    if found.empty:
        return {}
    says = (
        f"{len(found)} of {len(cases)} cases have a chronological age that cannot be ({_some(found['case_id'])}), so "
        "that their errors are judged as those of a child whose age is unknown: mend these rows, and measure again."
    )
    return {"ages": {"doubtful": len(found), "says": says}}


def _some(case_ids: pd.Series) -> str:
    return ", ".join(map(str, case_ids[:_NAMED])) + (", ..." if len(case_ids) > _NAMED else "")
