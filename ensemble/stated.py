"""What a table of predictions says beside each number: ends of intervals, a distribution, findings of the picture.

Each counts where it is there, so that another system's answers are measured as far as a bundle's own.

Shape letters: M monthly bins.
"""

import re
from dataclasses import dataclass

import numpy as np

from ensemble.measures import OF_ANSWER
from preprocessing import labels
from preprocessing.source import SourceError
from preprocessing.table import Row
from search.months import NUM_BINS

_END = re.compile(r"(low|high)_([1-9]\d?)(_months?|_years?)?")
"""Column with one end of the intervals of a level in percent, and its unit."""
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_TOLERANCE = 0.001
"""By so much probabilities may miss a sum of 1: those of a table are rounded."""
_SHOWN = 40


def cell(row: Row, places: dict[str, int], name: str) -> str:
    """What a row says in a column; empty where it says nothing, or there is none."""
    text = row.cells[places[name]] if name in places else ""
    return "" if labels.is_missing(text) else text


@dataclass(frozen=True)
class Interval:
    """Two columns: the ends of the intervals of one level."""

    level: int
    """In percent."""
    suffix: str
    """What follows the level in both names; empty, or a unit after ``_``."""

    @property
    def low(self) -> str:
        """Column of the low ends."""
        return f"low_{self.level}{self.suffix}"

    @property
    def high(self) -> str:
        """Column of the high ends."""
        return f"high_{self.level}{self.suffix}"

    def unit(self, otherwise: str) -> str:
        """``months`` or ``years``: as the names say, or the unit of the predictions."""
        return {"": otherwise, "_month": "months", "_year": "years"}[self.suffix.removesuffix("s")]


def intervals(table: str, places: dict[str, int]) -> list[Interval]:
    """Intervals in a table, by ascending level.

    Raises:
        SourceError: One end of an interval has no column for the other, or a level stands there twice.
    """
    found: dict[int, Interval] = {}
    for end, level, suffix in (match.groups(default="") for name in places if (match := _END.fullmatch(name))):
        interval = Interval(int(level), suffix)
        other, this = (interval.high, interval.low) if end == "low" else (interval.low, interval.high)
        if other not in places:
            raise SourceError(f"{table} must have a column {other} beside {this}. Add it, or rename that one.")
        if found.setdefault(interval.level, interval) != interval:
            raise SourceError(
                f"{table} must say the {level} % interval once, got {found[interval.level].low} and {interval.low}. "
                "Leave one of them out."
            )
    return [found[level] for level in sorted(found)]


def ends(row: Row, places: dict[str, int], interval: Interval, unit: str) -> dict[str, float]:
    """``low_90`` and ``high_90`` of a row, or another level's, in months; NaN where the row lacks one.

    Args:
        row: Of the table.
        places: Of its columns, by name.
        interval: From `intervals`.
        unit: Of the predictions: ``months`` or ``years``.

    Raises:
        SourceError: An end is no number, or the low one lies above the high one.
    """
    found = []
    for name in (interval.low, interval.high):
        text = cell(row, places, name)
        value = labels.number(text)
        if text and value is None:
            raise SourceError(f"{row.where}: {name} must be a number or empty, got {text!r}. Mend the row.")
        found.append(np.nan if value is None else labels.to_months(value, interval.unit(unit)))
    low, high = found
    if low > high:
        raise SourceError(
            f"{row.where}: {interval.low} must lie at or below {interval.high}, got {low:g} and {high:g} months. "
            "Mend the row, or swap the columns' names."
        )
    return {f"low_{interval.level}": low, f"high_{interval.level}": high}


def distribution(row: Row, places: dict[str, int]) -> np.ndarray | None:
    """``(M,)`` float32, the probability of each month from 0 to 239; None where the row says none.

    Raises:
        SourceError: It is no list of as many probabilities that sum to 1.
    """
    text = cell(row, places, "distribution")
    if not text:
        return None
    try:  # a list as JSON writes it, or an array as NumPy prints it into a CSV
        probability_M = np.array(text.strip("[]").replace(",", " ").split(), np.float32)
    except ValueError:
        probability_M = np.empty(0, np.float32)
    is_whole = probability_M.shape == (NUM_BINS,) and bool((probability_M >= 0).all())  # not where one is NaN
    total = float(probability_M.sum(dtype=np.float64)) if is_whole else 0.0
    if abs(total - 1) > _TOLERANCE:
        got = f"{NUM_BINS} that sum to {total:g}" if is_whole else repr(text[:_SHOWN])
        raise SourceError(
            f"{row.where}: distribution must be a list of {NUM_BINS} probabilities that sum to 1, of a bone age of 0, "
            f"1, ... months, as in [0.1, 0.9, ...]; got {got}. Mend the row, or leave the column out."
        )
    return probability_M


def findings(row: Row, places: dict[str, int]) -> str:
    """Codes of what was noticed of the picture, with commas between, as `ensemble.measures` has them.

    Raises:
        SourceError: Something between two commas is no code.
    """
    codes = {code.strip() for code in cell(row, places, "findings").split(",")} - {""}
    for code in sorted(codes):
        if not _CODE.fullmatch(code):
            raise SourceError(
                f"{row.where}: findings must be codes with commas between, as in framed,inverted, got "
                f"{code[:_SHOWN]!r}. Mend the row, or rename the column."
            )
    return ",".join(sorted(codes - OF_ANSWER))
