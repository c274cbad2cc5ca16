"""Labelled pictures however they lie: recognises the layout by looking and reads it."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from preprocessing.columns import ROLES, find_columns, parse_columns
from preprocessing.dicom_folder import find_dicom
from preprocessing.labels import MAX_BONE_AGE_MONTHS
from preprocessing.source import (
    IMAGE_SUFFIXES,
    LAYOUTS,
    Source,
    SourceError,
    SourceOptions,
    find_images,
    problem,
    problem_table,
)
from preprocessing.source_atlas import is_atlas, read_atlas
from preprocessing.source_dicom import read_dicom
from preprocessing.source_rsna import label_tables, read_rsna
from preprocessing.source_table import read_labelled
from preprocessing.storage import AnyPath, as_path
from preprocessing.table import beside, read_table

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BONE_AGE_MONTHS",
    "Source",
    "SourceError",
    "SourceOptions",
    "add_options",
    "options_of",
    "problem",
    "problem_table",
    "read_rsna",
    "read_salt",
    "read_source",
    "recognise",
]

SALT_VARIABLE = "CARPAL_SALT"
SALT_BYTES = 16
"""Fewest bytes of a salt. Whoever can guess the salt can look for a known patient among the hashes."""


def read_source(path: str | Path | AnyPath, options: SourceOptions | None = None) -> Source:
    """Read labelled pictures in any layout.

    Args:
        path: A folder of pictures, or a table beside its pictures.
        options: What looking does not show.

    Returns:
        The cases, and a problem for each row and file that is none; a bad row never stops the others.

    Raises:
        SourceError: The layout is not recognised, or a whole column cannot be meant.
    """
    options = options or SourceOptions()
    root = as_path(path)
    layout = recognise(root, options)
    if layout == "rsna":
        return read_rsna(root, options)
    if layout == "atlas":
        return read_atlas(root, options)
    if layout == "dicom" and root.is_file():
        return read_dicom(root.parent, replace(options, table=root))
    if layout == "dicom":
        return read_dicom(root, options)
    return _read_table(root, options)


def recognise(root: AnyPath, options: SourceOptions) -> str:
    """The layout of a folder: ``rsna``, ``atlas``, ``table`` or ``dicom``, unless the options say it.

    Raises:
        SourceError: There is no such folder.
    """
    if options.layout != "auto":
        return options.layout
    if not root.exists():
        raise SourceError(
            f"{root} is not a folder. Name a folder of labelled pictures, or a table beside its pictures."
        )
    folder = root.parent if root.is_file() else root
    files = find_images(folder)
    if is_atlas(files):
        return "table" if root.is_file() else "atlas"
    if all(file.lower().endswith(".dcm") for file in files) and (files or find_dicom(folder)):
        return "dicom"
    if root.is_file() or options.table is not None or options.columns:
        return "table"
    tables, _ = label_tables(root)
    more = {"image", "bone_age_years", "patient", "chronological_age", "side"}
    is_table = len(tables) == 1 and any(role.startswith(tuple(more)) for role in find_columns(tables[0], {}).places)
    return "table" if is_table else "rsna"


def _read_table(root: AnyPath, options: SourceOptions) -> Source:
    if root.is_file():
        return read_labelled(root.parent, read_table(root), options, layout="table")
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder. Name the folder of pictures, and the table with --table.")
    if options.table is not None:
        return read_labelled(root, read_table(beside(root, options.table)), options, layout="table")
    tables, seen = label_tables(root)
    if len(tables) != 1 and options.columns:  # the names say nothing, the caller does
        tables = [read_table(p) for p in sorted(root.iterdir(), key=str) if p.suffix.lower() in (".csv", ".parquet")]
    if len(tables) != 1:
        raise SourceError(
            f"{root} must hold exactly one table of labels; found: {'; '.join(seen) or 'none'}. "
            "Name it with --table, and its columns with --columns."
        )
    return read_labelled(root, tables[0], options, layout="table")


def read_salt(file: str | AnyPath | None = None) -> bytes:
    """The secret that goes into hashes of patients: a file's content, else the variable CARPAL_SALT, else none.

    Raises:
        SourceError: It is too short to be a secret, or the file cannot be read.
    """
    try:
        salt = as_path(file).read_bytes().strip() if file else os.environ.get(SALT_VARIABLE, "").strip().encode()
    except OSError as error:
        raise SourceError(f"The salt's file {file} cannot be read ({type(error).__name__}). Check its path.") from None
    if (file or salt) and len(salt) < SALT_BYTES:
        raise SourceError(
            f"A salt must have {SALT_BYTES} bytes or more, this one has {len(salt)}. "
            "Make one with: openssl rand -hex 32"
        )
    return salt


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `SourceOptions` to a command."""
    group = parser.add_argument_group("labelled pictures", "the layout is recognised by looking, unless told")
    group.add_argument("--layout", choices=LAYOUTS, default="auto", help="of the source (default: look)")
    group.add_argument("--table", metavar="FILE", help="CSV or Parquet of labels (default: look in the folder)")
    group.add_argument(
        "--columns", metavar="ROLE=NAME", action="append", default=[],
        help=f"columns of the table, comma-separated or repeated; roles: {', '.join(ROLES)}",
    )  # fmt: skip
    group.add_argument("--unit", choices=("months", "years"), help="of its ages (default months; the atlas: years)")
    group.add_argument("--trust-unit", action="store_true", help="even where the values look like the other unit")
    group.add_argument("--label", choices=("mean", "floor"), default="mean", help="of two readings (default mean)")
    group.add_argument("--mapping", metavar="CSV", help="private: which DICOM has which id in the table")
    group.add_argument("--salt-file", metavar="FILE", help=f"secret for patients' hashes (default ${SALT_VARIABLE})")


def options_of(options: argparse.Namespace) -> SourceOptions:
    """What a command line with `add_options` said."""
    return SourceOptions(
        layout=options.layout,
        table=options.table,
        columns=parse_columns(options.columns),
        unit=options.unit,
        trust_unit=options.trust_unit,
        label=options.label,
        mapping=options.mapping,
        salt=read_salt(options.salt_file),
    )
