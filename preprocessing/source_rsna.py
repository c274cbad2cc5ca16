"""The layout of the RSNA 2017 challenge: a CSV of id, boneage, male beside a folder of ``<id>.png``."""

from pathlib import Path

from preprocessing.columns import find_columns
from preprocessing.source import Source, SourceError, SourceOptions
from preprocessing.source_table import read_labelled
from preprocessing.storage import AnyPath, as_path
from preprocessing.table import Table, beside, read_table


def read_rsna(folder: str | Path | AnyPath, options: SourceOptions | None = None) -> Source:
    """Read the layout of the RSNA 2017 challenge.

    Args:
        folder: Holds exactly one CSV with those columns (an optional ``rejected.csv`` is passed over), and the
            pictures, in any format that is decoded, in it or in its sub-folders.
        options: Table, columns, unit and salt, where not as usual.

    Raises:
        SourceError: No such folder, no such CSV or more than one, no picture at all.
    """
    root = as_path(folder)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder. Name a folder with a CSV of id, boneage, male and the pictures.")
    if options and options.table is not None:
        return read_labelled(root, read_table(beside(root, options.table)), options, layout="rsna")
    fitting, seen = label_tables(root)
    if len(fitting) != 1:
        raise SourceError(
            f"{root} must hold exactly one CSV with the columns id, boneage (months) and male (True or False); "
            f"found: {'; '.join(seen) or 'none'}. Name another table with --table, and its columns with --columns."
        )
    return read_labelled(root, fitting[0], options or SourceOptions(), layout="rsna")


def label_tables(root: AnyPath, *, needs_sex: bool = True) -> tuple[list[Table], list[str]]:
    """Tables directly in a folder whose columns say a bone age of a picture, and a word on each table that is there."""
    fitting, seen = [], []
    for path in sorted(root.iterdir(), key=str):
        if path.suffix.lower() not in (".csv", ".parquet") or path.name in ("rejected.csv", "notes.csv"):
            continue
        try:
            table = read_table(path)
        except SourceError as error:
            seen.append(f"{path.name} (not a table: {error})")
            continue
        seen.append(f"{path.name} ({', '.join(table.header)})")
        try:
            columns = find_columns(table, {})
        except SourceError:  # ambiguous: only the caller can say what is meant
            continue
        has_key = any(role in columns for role in ("id", "image", *(() if needs_sex else ("sop", "study", "patient"))))
        has_age = any(role in columns for role in ("bone_age", "bone_age_months", "bone_age_years"))
        if has_key and has_age and (not needs_sex or "sex" in columns or "is_male" in columns):
            fitting.append(table)
    return fitting, seen
