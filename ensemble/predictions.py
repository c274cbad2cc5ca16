"""Predictions of any system out of a table, joined with references: one row a case, and a reason for each that is not.

So a service, a clinical product or a reader is measured by the same figures as a bundle.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from ensemble import plausible, stated
from preprocessing import labels
from preprocessing.columns import find_columns
from preprocessing.rows import RowError, bone_age, case_id_of, check_sexes, extras, find_units, require, sex_of
from preprocessing.source import Source, SourceError, SourceOptions, problem, problem_table
from preprocessing.sources import read_source
from preprocessing.storage import AnyPath, as_path
from preprocessing.table import TABLE_SUFFIXES, Table, read_table

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


def read_predictions(
    path: str | Path | AnyPath, *, column: str = "", unit: str = "", trust_unit: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a table of predictions: an id and a bone age a row, or a reason for none.

    Args:
        path: CSV or Parquet, such as ``python -m ensemble score`` writes.
        column: Of the predicted bone age; empty to look for one called ``predicted_months`` or the like.
        unit: ``months`` or ``years``; empty to go by the column's name, else months.
        trust_unit: Take them in it even where they look like the other one, as those of infants do.

    Returns:
        The predictions: case_id, predicted_months, and the ends of the intervals where there are any (``low_90``,
        ``high_90``, ... in months; NaN in a row that lacks one), a ``distribution`` or ``findings`` as
        `ensemble.measures` has them. And the cases without a prediction, as problems: a row where it is empty and
        whose column ``reason`` says why.

    Raises:
        SourceError: No such column, values that look like another unit, a row without id or without number and
            reason, an id twice, a number or an interval that `ensemble.plausible` finds none of a human, or something
            beside the number that `ensemble.stated` does not take.
    """
    table = read_table(as_path(path))
    place, named = _predicted(table, column)
    unit = unit or named
    columns = find_columns(table, {})
    require(table, columns, ("id", "image"))
    places = {_simple(name): at for at, name in enumerate(table.header)}
    intervals = stated.intervals(table.name, places)
    levels = [interval.level for interval in intervals]
    rows: dict[str, dict[str, Any]] = {}
    unanswered: dict[str, dict[str, str]] = {}
    for row in table.rows:
        case_id, cell = case_id_of(row, columns), row.cells[place]
        value, reason = labels.number(cell), stated.cell(row, places, "reason")
        if row.fault or not case_id or (value is None and not (reason and labels.is_missing(cell))):
            said = row.fault or f"got the id {case_id!r} and the prediction {cell!r}."
            raise SourceError(
                f"{row.where}: a row must hold an id and a number, or say in a column 'reason' why there is none; "
                f"{said} Leave out what has no answer."
            )
        if case_id in rows or case_id in unanswered:
            raise SourceError(f"{row.where}: {case_id} stands there twice. Leave one prediction a case.")
        if value is None:
            detail = stated.cell(row, places, "detail") or "The system gave no prediction."
            unanswered[case_id] = problem(case_id, columns.get(row, "image"), reason, detail)
            continue
        plausible.check_number(row.where, value, unit)
        rows[case_id] = {"case_id": case_id, "predicted_months": labels.to_months(value, unit)}
        for interval in intervals:
            rows[case_id] |= stated.ends(row, places, interval, unit)
        plausible.check_nested(row.where, rows[case_id], levels)
        if "findings" in places:
            rows[case_id]["findings"] = stated.findings(row, places)
        if (probability_M := stated.distribution(row, places)) is not None:
            rows[case_id]["distribution"] = probability_M
    if not rows:
        raise SourceError(f"{table.name} holds no prediction.")
    _check_distributions(table.name, rows)
    numbers = [value for row in table.rows if (value := labels.number(row.cells[place])) is not None]
    labels.check_unit(numbers, unit, repr(table.header[place]), trusted=trust_unit, option="--predicted-unit")
    for level in levels:
        plausible.check_inside(table.name, list(rows.values()), level)
    return pd.DataFrame(list(rows.values())), problem_table(list(unanswered.values()))


def read_references(path: str | Path | AnyPath, options: SourceOptions | None = None) -> Source:
    """Read references: of a labelled folder, or of a table alone, without pictures.

    Returns:
        Cases, problems and notes; of a table no case has a file.

    Raises:
        SourceError: There are none, or a whole column cannot be meant, as a sex in digits that may mean either.
    """
    place, options = as_path(path), options or SourceOptions()
    if not (place.is_file() and is_table(place)):
        return read_source(place, options)
    table = read_table(place)
    columns = find_columns(table, options.columns)
    require(table, columns, ("id", "image"), ("bone_age_months", "bone_age_years", "bone_age"), ("sex", "is_male"))
    digits = options.layout == "rsna"
    check_sexes(table, columns, digits=digits)
    units = find_units(table, columns, options, default="months")
    cases: dict[str, dict[str, Any]] = {}
    problems, notes = [], []
    for row in table.rows:
        case_id = case_id_of(row, columns)
        try:
            if row.fault or not case_id or case_id in cases:
                raise RowError("bad_row", row.fault or f"The id {case_id!r} is empty or stands there twice.")
            sex, months = sex_of(row, columns, digits=digits), bone_age(row, columns, units)
            age, _, doubts = extras(row, columns, units)
        except RowError as error:
            problems.append(problem(case_id, "", error.reason, str(error), row=row.where))
            continue
        notes += [problem(case_id, "", reason, text, row=row.where) for reason, text in doubts]
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
    return Source(place.parent, pd.DataFrame(list(cases.values())), problem_table(problems), problem_table(notes))


def join(
    predictions: pd.DataFrame, references: pd.DataFrame, unanswered: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions beside their references, by case, and a problem for each that has no other half.

    Args:
        predictions: As `read_predictions` has them, as the last.
        references: Cases as `read_references` has them.
        unanswered: Cases without a prediction; their problems come first, with the reason that they have already.

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
    alone = sorted(set(references["case_id"]) - set(joined["case_id"]) - set(unanswered["case_id"]))
    extra = sorted(set(predictions["case_id"]) - set(joined["case_id"]))
    problems = [
        problem(case_id, "", "no_prediction", "The case has a reference and no prediction.") for case_id in alone
    ]
    problems += [
        problem(case_id, "", "no_reference", "The case has a prediction and no reference.") for case_id in extra
    ]
    return joined, pd.concat([unanswered, problem_table(problems)], ignore_index=True)


def _predicted(table: Table, column: str) -> tuple[int, str]:
    """Place of the predicted bone age, and the unit that its name says."""
    if column:
        if column not in table.header:
            raise SourceError(f"{table.name} has no column {column!r}; it has {', '.join(table.header)}. Name one.")
        return table.header.index(column), "years" if "year" in column.lower() else "months"
    found = [(at, unit) for at, name in enumerate(table.header) for unit in _NAMES if _simple(name) in _NAMES[unit]]
    if len(found) != 1:
        raise SourceError(
            f"{table.name} must have one column of predictions such as predicted_months, got "
            f"{', '.join(table.header)}. Say --predicted NAME."
        )
    return found[0]


def _check_distributions(table: str, rows: dict[str, dict[str, Any]]) -> None:
    """A share of cases that only some have would be one of other cases than the error beside it."""
    lacking = [case_id for case_id, row in rows.items() if "distribution" not in row]
    having = len(rows) - len(lacking)
    if lacking and having:
        raise SourceError(
            f"{table}: all predictions or none must have a distribution, got {having} of {len(rows)}; "
            f"{lacking[0]} has none. Add what is missing, or leave the column out."
        )


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _some(names: pd.Series) -> str:
    return ", ".join(map(str, names[:3]))
