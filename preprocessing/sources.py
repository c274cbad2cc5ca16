"""Readers of labelled folders, each giving the same two tables: usable cases, and what is wrong with the rest."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preprocessing.storage import AnyPath, as_path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm")
MAX_BONE_AGE_MONTHS = 239
"""Labels lie in 0..239 months; the challenge's own reach 228."""

_IMAGE_SUFFIX = f"(?i)({'|'.join(map(re.escape, IMAGE_SUFFIXES))})$"
_COLUMNS = {
    **dict.fromkeys(("image id", "case id", "case_id", "image", "file"), "id"),
    **dict.fromkeys(("bone age (months)", "bone age", "bone_age", "bone_age_months", "boneage (months)"), "boneage"),
    **dict.fromkeys(("sex", "gender", "is_male"), "male"),
}
"""Headers that the challenge's own later files and others use for the same three columns."""

_SEXES = {
    **dict.fromkeys(("true", "1", "1.0", "m", "male"), "male"),
    **dict.fromkeys(("false", "0", "0.0", "f", "female"), "female"),
}


class SourceError(ValueError):
    """The folder is not in the expected layout."""


@dataclass(frozen=True)
class Source:
    """A labelled folder, read but not decoded."""

    folder: AnyPath
    cases: pd.DataFrame
    """One row a usable case: case_id (str), sex (male or female), is_male (bool), bone_age_months (float), file
    (relative to `folder`); sorted by case_id."""
    problems: pd.DataFrame
    """One row a row or file that cannot be used: case_id, file, reason (a stable word), detail (a sentence)."""


def problem(case_id: str, file: str, reason: str, detail: str) -> dict[str, str]:
    """One row of a table of problems."""
    return {"case_id": case_id, "file": file, "reason": reason, "detail": detail}


def problem_table(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows of `problem` as a table that has its columns even when it is empty."""
    return pd.DataFrame(rows, columns=["case_id", "file", "reason", "detail"], dtype=str)


def read_rsna(folder: str | Path | AnyPath) -> Source:
    """Read the layout of the RSNA 2017 challenge: a CSV of id, boneage, male beside a folder of ``<id>.png``.

    Args:
        folder: Holds exactly one CSV with those columns (an optional ``rejected.csv`` is passed over), and the
            pictures, in any format that is decoded, in it or in its sub-folders.

    Raises:
        SourceError: No such folder, no such CSV or more than one, no picture at all.
    """
    root = as_path(folder)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder. Name a folder with a CSV of id, boneage, male and the pictures.")
    table = _read_labels(root)
    files = _find_images(root)
    rows, problems, seen = [], [], set()
    for case_id, months, sex_word in zip(table["id"], table["boneage"], table["male"], strict=True):
        found = files.get(case_id, [""])
        file = found[0]
        sex = _SEXES.get(sex_word.strip().lower())
        value = pd.to_numeric(months, errors="coerce")
        if case_id in seen:
            problems.append(problem(case_id, file, "duplicate_id", "The id stands in more than one row."))
        elif len(found) > 1:  # which of them the label means cannot be known
            detail = f"{len(found)} pictures have this id: {', '.join(found)}."
            problems.append(problem(case_id, file, "duplicate_image", detail))
        elif not file:
            problems.append(problem(case_id, "", "missing_image", "The CSV names the id, no picture has it."))
        elif not 0 <= value <= MAX_BONE_AGE_MONTHS:
            detail = f"boneage must be 0..{MAX_BONE_AGE_MONTHS} months, got {months!r}."
            problems.append(problem(case_id, file, "bad_bone_age", detail))
        elif sex is None:
            problems.append(problem(case_id, file, "bad_sex", f"male must be True or False, got {sex_word!r}."))
        else:
            rows.append((case_id, sex, sex == "male", float(value), file))
        seen.add(case_id)
    unlabelled = sorted(set(files) - seen)
    problems += [problem(i, files[i][0], "missing_label", "The picture has no row in the CSV.") for i in unlabelled]
    cases = pd.DataFrame(rows, columns=["case_id", "sex", "is_male", "bone_age_months", "file"])
    return Source(root, cases.sort_values("case_id", ignore_index=True), problem_table(problems))


def _read_labels(root: AnyPath) -> pd.DataFrame:
    """Columns id, boneage and male of the one CSV that has them, as text."""
    tables, seen = [], []
    for path in sorted(root.iterdir(), key=str):
        if path.suffix.lower() != ".csv" or path.name == "rejected.csv":
            continue
        with path.open("rb") as file:
            try:
                # The separator is found by looking; index_col keeps a trailing one from shifting the columns.
                table = pd.read_csv(
                    file, sep=None, engine="python", dtype=str, keep_default_na=False, index_col=False,
                    encoding="utf-8-sig", encoding_errors="replace",
                )  # fmt: skip
            except (ValueError, csv.Error) as error:
                seen.append(f"{path.name} (not a table: {error})")
                continue
        table.columns = [_COLUMNS.get(name, name) for name in table.columns.str.strip().str.lower()]
        seen.append(f"{path.name} ({', '.join(table.columns)})")
        if {"id", "boneage", "male"} <= set(table.columns):
            tables.append(table)
    if len(tables) != 1:
        found = "; ".join(seen) or "none"
        raise SourceError(
            f"{root} must hold exactly one CSV with the columns id, boneage (months) and male (True or False); "
            f"found: {found}."
        )
    table = tables[0].fillna("").map(str.strip)
    return table.assign(id=table["id"].str.removesuffix(".0").str.replace(_IMAGE_SUFFIX, "", regex=True))


def _find_images(root: AnyPath) -> dict[str, list[str]]:
    """Map id to the paths below `root`; masks that the phantom writes beside the pictures are passed over."""
    files: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*"), key=str):
        inside = path.relative_to(root)
        if path.suffix.lower() in IMAGE_SUFFIXES and "masks" not in inside.parts[:-1]:
            files.setdefault(path.stem, []).append(str(inside))
    if not files:
        raise SourceError(f"{root} holds no picture ({', '.join(IMAGE_SUFFIXES)}).")
    return files
