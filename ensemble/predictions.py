"""Predictions of any system out of a table, joined with references: one row a case, and a reason for each that is not.

So a service, a clinical product or a reader is measured by the same figures as a bundle.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble.conformal import LEVELS
from preprocessing import labels
from preprocessing.columns import find_columns
from preprocessing.rows import RowError, bone_age, case_id_of, extras, find_units, require, sex_of
from preprocessing.source import SourceError, SourceOptions, problem, problem_table
from preprocessing.sources import read_source
from preprocessing.storage import AnyPath, as_path
from preprocessing.table import TABLE_SUFFIXES, Row, Table, read_table

_BASES = (
    "predicted",
    "prediction",
    "pred",
    "predicted_bone_age",
    "bone_age_predicted",
    "predicted_boneage",
    "estimate",
)
_NAMES = {
    "months": {name for base in _BASES for name in (base, f"{base}_months", f"{base}_month")},
    "years": {f"{base}_{unit}" for base in _BASES for unit in ("years", "year", "yrs")},
}


def is_table(path: str | Path | AnyPath) -> bool:
    """Whether a word on the command line names a table of predictions rather than a bundle or a registry."""
    return str(path).lower().endswith(TABLE_SUFFIXES)


def read_predictions(path: str | Path | AnyPath, *, column: str = "", unit: str = "") -> pd.DataFrame:
    """Read a table of predictions: an id and a bone age a row.

    Args:
        path: CSV or Parquet.
        column: Of the predicted bone age; empty to look for one called ``predicted_months`` or the like.
        unit: ``months`` or ``years``; empty to go by the column's name, else months.

    Returns:
        case_id, predicted_months, and the ends of the intervals where there are any (``low_90``, ``high_90``, ...).

    Raises:
        SourceError: No such column, values that look like another unit, a row without id or number, or an id twice.
    """
    table = read_table(as_path(path))
    place, named = _predicted(table, column)
    unit = unit or named
    columns = find_columns(table, {})
    require(table, columns, ("id", "image"))
    ends = {name: table.header.index(name) for name in _ends() if name in table.header}
    rows: dict[str, dict[str, Any]] = {}
    for row in table.rows:
        case_id, value = case_id_of(row, columns), labels.number(row.cells[place])
        if row.fault or not case_id or value is None:
            said = row.fault or f"got the id {case_id!r} and the prediction {row.cells[place]!r}."
            raise SourceError(f"{row.where}: a row must hold an id and a number, {said} Leave out what has no answer.")
        if case_id in rows:
            raise SourceError(f"{row.where}: {case_id} stands there twice. Leave one prediction a case.")
        rows[case_id] = {"case_id": case_id, "predicted_months": labels.to_months(value, unit)} | {
            name: _end(row, at, unit) for name, at in ends.items()
        }
    labels.check_unit([labels.number(row.cells[place]) or 0.0 for row in table.rows], unit, repr(table.header[place]))
    if not rows:
        raise SourceError(f"{table.name} holds no prediction.")
    return pd.DataFrame(list(rows.values()))


def read_references(
    path: str | Path | AnyPath, options: SourceOptions | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read references: of a labelled folder, or of a table alone, without pictures.

    Returns:
        The cases as `preprocessing.source.Source.cases` has them, and the problems.

    Raises:
        SourceError: There are none.
    """
    place, options = as_path(path), options or SourceOptions()
    if not (place.is_file() and is_table(place)):
        found = read_source(place, options)
        return found.cases, found.problems
    table = read_table(place)
    columns = find_columns(table, options.columns)
    require(table, columns, ("id", "image"), ("bone_age_months", "bone_age_years", "bone_age"), ("sex", "is_male"))
    units = find_units(table, columns, options, default="months")
    cases: dict[str, dict[str, Any]] = {}
    problems = []
    for row in table.rows:
        case_id = case_id_of(row, columns)
        try:
            if row.fault or not case_id or case_id in cases:
                raise RowError("bad_row", row.fault or f"The id {case_id!r} is empty or stands there twice.")
            sex, months = sex_of(row, columns, digits=True), bone_age(row, columns, units)
            age, _, _ = extras(row, columns, units)
        except RowError as error:
            problems.append(problem(case_id, "", error.reason, str(error), row=row.where))
            continue
        cases[case_id] = {
            "case_id": case_id,
            "sex": sex,
            "is_male": sex == "male",
            "bone_age_months": months,
            "file": "",
            "chronological_age_months": age,
        }
    if not cases:
        raise SourceError(f"{table.name} holds no labelled case.")
    return pd.DataFrame(list(cases.values())), problem_table(problems)


def join(predictions: pd.DataFrame, references: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions beside their references, by case, and a problem for each that has no other half.

    Raises:
        SourceError: Not one case is in both.
    """
    wanted = references[[name for name in references if name not in set(predictions) - {"case_id"}]]
    joined = wanted.merge(predictions, on="case_id", how="inner", validate="one_to_one")
    if joined.empty:
        raise SourceError(
            f"Predictions and references share no case: {_some(predictions['case_id'])} against "
            f"{_some(references['case_id'])}. Their ids must be the same."
        )
    alone = sorted(set(references["case_id"]) - set(joined["case_id"]))
    extra = sorted(set(predictions["case_id"]) - set(joined["case_id"]))
    problems = [
        problem(case_id, "", "no_prediction", "The case has a reference and no prediction.") for case_id in alone
    ]
    problems += [
        problem(case_id, "", "no_reference", "The case has a prediction and no reference.") for case_id in extra
    ]
    return joined, problem_table(problems)


def _predicted(table: Table, column: str) -> tuple[int, str]:
    """Place of the predicted bone age, and the unit that its name says."""
    if column:
        if column not in table.header:
            raise SourceError(f"{table.name} has no column {column!r}; it has {', '.join(table.header)}. Name one.")
        return table.header.index(column), "years" if "year" in column.lower() else "months"
    simple = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in table.header]
    found = [(at, unit) for at, name in enumerate(simple) for unit in _NAMES if name in _NAMES[unit]]
    if len(found) != 1:
        raise SourceError(
            f"{table.name} must have one column of predictions such as predicted_months, got "
            f"{', '.join(table.header)}. Say --predicted NAME."
        )
    return found[0]


def _ends() -> list[str]:
    return [f"{end}_{level}" for level in LEVELS for end in ("low", "high")]


def _end(row: Row, place: int, unit: str) -> float:
    value = labels.number(row.cells[place])
    return np.nan if value is None else labels.to_months(value, unit)


def _some(names: pd.Series) -> str:
    return ", ".join(map(str, names[:3]))
