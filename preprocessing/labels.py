"""What the cells of a label table say: months, sex, side, and whether a column can be in the unit it is said to be."""

import math
import re
from collections.abc import Sequence

from preprocessing.source import SourceError

MAX_BONE_AGE_MONTHS = 239
"""Labels lie in 0..239 months; the challenge's own reach 228."""
MAX_CHRONOLOGICAL_AGE_MONTHS = 1200
LONGEST_IN_YEARS = 20
"""Months that never pass 20 look like years; years whose middle passes 20 look like months."""
_FEWEST = 3
"""Values it takes to tell."""

_NUMBER = re.compile(r"[+-]?(\d{1,400}([.,]\d{0,400})?|[.,]\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)
_MISSING = {"", "na", "n/a", "nan", "none", "null", "-", "--", "?", ".", "unknown", "missing", "<na>", "nat"}
_SEXES = {
    **dict.fromkeys(("m", "male", "boy", "man"), "male"),
    **dict.fromkeys(("f", "female", "girl", "woman"), "female"),
}
_IS_MALE = {**_SEXES, **dict.fromkeys(("true", "1", "1.0"), "male"), **dict.fromkeys(("false", "0", "0.0"), "female")}
_SIDES = {**dict.fromkeys(("l", "left"), "left"), **dict.fromkeys(("r", "right"), "right")}


def is_missing(text: str) -> bool:
    """Whether a cell says that it has no value."""
    return text.strip().lower() in _MISSING


def number(text: str) -> float | None:
    """The finite number in a cell, with a decimal point or comma; None where there is none."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def sex(text: str, *, of_is_male: bool) -> str | None:
    """``male`` or ``female``. Digits and truth values count only in a column that asks whether it is a boy."""
    return (_IS_MALE if of_is_male else _SEXES).get(text.strip().lower())


def is_code(text: str) -> bool:
    """Whether a cell holds a number or a truth value, which says a sex only to who knows the code."""
    return number(text) is not None or text.strip().lower() in ("true", "false")


def side(text: str) -> str | None:
    """``left`` or ``right``."""
    return _SIDES.get(text.strip().lower())


def to_months(value: float, unit: str) -> float:
    """A value in its unit as months; what a fraction of a year leaves beyond the seventh digit is dropped."""
    return round(value * 12, 6) if unit == "years" else value


def check_unit(
    values: Sequence[float], unit: str, column: str, *, trusted: bool = False, option: str = "--unit"
) -> None:
    """Refuse a column that cannot be meant in its unit.

    Args:
        values: The numbers of the column.
        unit: ``months`` or ``years``.
        column: Its name, for the message.
        trusted: The caller has looked: nothing is refused.
        option: Of the command line, that says the unit of this column.

    Raises:
        SourceError: It looks like the other unit.
    """
    if trusted or len(values) < _FEWEST:
        return
    largest, middle = max(values), sorted(values)[len(values) // 2]
    if unit == "months" and largest <= LONGEST_IN_YEARS:
        raise SourceError(
            f"Bone ages and ages in months pass {LONGEST_IN_YEARS} somewhere; the largest of {len(values)} values in "
            f"{column} is {largest:g}, so they look like years. Say {option} years, or --trust-unit if all are infants."
        )
    if unit == "years" and middle > LONGEST_IN_YEARS:
        raise SourceError(
            f"Bone ages and ages in years stay below {LONGEST_IN_YEARS}; the middle of {len(values)} values in "
            f"{column} is {middle:g}, so they look like months. Say {option} months, or --trust-unit if they are not."
        )
