"""What the rows of a label table say: each cell checked, and each fault of a row with its stable word."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from preprocessing import labels
from preprocessing.columns import Columns
from preprocessing.header import hash_patient
from preprocessing.source import IMAGE_SUFFIXES, SourceError, SourceOptions
from preprocessing.table import Row, Table

_IMAGE_SUFFIX = re.compile(f"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})$", re.IGNORECASE)


_SHOWN = 5
"""Cells that a refusal quotes."""
BAD_AGE = "bad_chronological_age"
"""Of a case whose chronological age cannot be: the case is used, as if it had none."""


class RowError(ValueError):
    """A row that cannot be used; `reason` is its stable word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Units:
    """Units of a table's two kinds of age."""

    bone_age: str
    chronological_age: str


def require(table: Table, columns: Columns, *families: tuple[str, ...]) -> None:
    """Refuse a table that lacks a column of each family of roles."""
    missing = [" or ".join(roles) for roles in families if not any(role in columns for role in roles)]
    if missing:
        raise SourceError(
            f"{table.name} must have columns for {'; '.join(missing)}; it has {', '.join(map(repr, table.header))}. "
            f"Say --columns {missing[0].split(' or ')[0]}=NAME."
        )


def find_units(table: Table, columns: Columns, options: SourceOptions, *, default: str) -> Units:
    """The units of a table's ages, checked against its values.

    Raises:
        SourceError: The column's name and the option contradict each other, or the values look like the other unit.
    """
    units = {}
    for kind in ("bone_age", "chronological_age"):
        unit = next((unit for unit in ("months", "years") if f"{kind}_{unit}" in columns), options.unit or default)
        if kind == "bone_age" and options.unit not in (None, unit):
            raise SourceError(
                f"The bone age of {table.name} is in {unit} by the name of its column "
                f"{_name(columns, kind)!r}, and in {options.unit} by --unit. Say one of them."
            )
        role = _role(columns, kind)
        cells = [labels.number(columns.get(row, role)) for row in table.rows if not row.fault]
        labels.check_unit(
            [v for v in cells if v is not None], unit, repr(_name(columns, kind)), trusted=options.trust_unit
        )
        units[kind] = unit
    return Units(units["bone_age"], units["chronological_age"])


def check_sexes(table: Table, columns: Columns, *, digits: bool) -> None:
    """Refuse a column of sexes that are numbers or truth values: 1 is a boy here and a girl there.

    A few among words are slips of the pen, and faults of their rows.

    Args:
        table: With its header.
        columns: One that asks whether it is a boy is not looked at.
        digits: Numbers and truth values count as in such a one; others are refused all the same.

    Raises:
        SourceError: Half of what the column says or more is such; it says how to tell what is meant.
    """
    if "is_male" in columns:
        return
    cells = [columns.get(row, "sex").strip() for row in table.rows if not row.fault]
    said = [text for text in cells if not labels.is_missing(text)]
    coded = [text for text in said if labels.is_code(text) and not (digits and labels.sex(text, of_is_male=True))]
    if coded and 2 * len(coded) >= len(said):
        name, found = columns.names["sex"], ", ".join(sorted(set(coded))[:_SHOWN])
        raise SourceError(
            f"{table.name} must say the sex as male or female; {name!r} holds {found}. "
            f"Where 1 or True is a boy and 0 or False a girl, say --columns is_male={name}; else write M and F."
        )


def case_id_of(row: Row, columns: Columns) -> str:
    """The id without what spreadsheets and file names add to it; of the picture's path where there is no id."""
    text = columns.get(row, "id")
    if labels.is_missing(text):
        path = columns.get(row, "image")
        return "" if labels.is_missing(path) else _IMAGE_SUFFIX.sub("", path.replace("\\", "/").removeprefix("./"))
    return _IMAGE_SUFFIX.sub("", re.sub(r"^(\d+)\.0$", r"\1", text))


def bone_age(row: Row, columns: Columns, units: Units) -> float:
    """Bone age in months out of a row.

    Raises:
        RowError: No number, or out of range.
    """
    text, unit = columns.get(row, _role(columns, "bone_age")), units.bone_age
    value = labels.number(text)
    months = None if value is None else labels.to_months(value, unit)
    if months is None or not 0 <= months <= labels.MAX_BONE_AGE_MONTHS:
        top = labels.MAX_BONE_AGE_MONTHS if unit == "months" else f"{labels.MAX_BONE_AGE_MONTHS / 12:.1f}"
        raise RowError("bad_bone_age", f"{_name(columns, 'bone_age')} must be 0..{top} {unit}, got {text!r}.")
    return months


def sex_of(row: Row, columns: Columns, *, digits: bool = False) -> str:
    """The sex out of a row.

    Raises:
        RowError: It says neither.
    """
    asks = "is_male" in columns
    text = columns.get(row, "is_male" if asks else "sex")
    found = labels.sex(text, of_is_male=asks or digits)
    if found is None:
        meant = "True or False" if asks else "male or female"
        raise RowError("bad_sex", f"{_name(columns, 'is_male' if asks else 'sex')} must be {meant}, got {text!r}.")
    return found


def extras(row: Row, columns: Columns, units: Units) -> tuple[float, str, list[tuple[str, str]]]:
    """Chronological age in months (NaN where unknown), side (empty where unknown), and what was wrong with them."""
    doubts, age, side = [], float("nan"), ""
    text = columns.get(row, _role(columns, "chronological_age"))
    if not labels.is_missing(text):
        value = labels.number(text)
        months = -1.0 if value is None else labels.to_months(value, units.chronological_age)
        if 0 <= months <= labels.MAX_CHRONOLOGICAL_AGE_MONTHS:
            age = months
        else:
            doubts.append((BAD_AGE, f"The chronological age {text!r} cannot be; it counts as unknown."))
    text = columns.get(row, "side")
    if not labels.is_missing(text):
        side = labels.side(text) or ""
        if side != "left":
            what = "A right hand; bone age is read from the left." if side else f"The side {text!r} counts as unknown."
            doubts.append(("right_hand" if side else "bad_side", what))
    return age, side, doubts


def patient_of(row: Row, columns: Columns, salt: bytes) -> str:
    """The patient as the table calls it, hashed where the site has a salt; empty where unknown."""
    text = columns.get(row, "patient")
    if labels.is_missing(text):
        return ""
    text = re.sub(r"^(\d+)\.0$", r"\1", text)
    return hash_patient(salt, text) if salt else text


def composed(text: str) -> str:
    """Accents as part of their letters: a Mac writes them into file names as characters of their own."""
    return unicodedata.normalize("NFC", text)


def stem(file: str) -> str:
    """A file's name without its suffix."""
    return PurePosixPath(file).stem


def _role(columns: Columns, kind: str) -> str:
    return next((role for role in (f"{kind}_months", f"{kind}_years", kind) if role in columns), kind)


def _name(columns: Columns, kind: str) -> str:
    return columns.names.get(_role(columns, kind), kind)
