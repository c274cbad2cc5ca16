"""What a batch is scored from: every file of a folder, or a table that names a file or URI a row."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path, PurePosixPath

from ensemble.chronology import OLDEST_MONTHS
from preprocessing import labels
from preprocessing.columns import Columns, find_columns
from preprocessing.rows import BAD_AGE, Units, case_id_of, extras, find_units, require
from preprocessing.source import IMAGE_SUFFIXES, SourceError, SourceOptions
from preprocessing.storage import AnyPath, as_path, canonical_hash, find_files
from preprocessing.table import TABLE_SUFFIXES, Row, read_table

_URI = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True)
class Inputs:
    """Files to be scored, in a fixed order."""

    folder: AnyPath
    """What `files` are relative to."""
    files: tuple[str, ...]
    """Paths below `folder`, or URIs; empty where a row of the table names none."""
    case_ids: tuple[str, ...]
    sexes: tuple[str, ...]
    """``male``, ``female`` or empty where nobody has said."""
    ages: tuple[float | None, ...]
    """Chronological, in months; None where nobody has said. They judge the answers and never enter them."""
    num_masks: int = 0
    """Files of the folder that are the masks of others, and so no inputs."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def hash(self) -> str:
        """Names this list: files, ids, sexes and ages in their order."""
        return canonical_hash([str(self.folder), self.files, self.case_ids, self.sexes, self.ages])

    def chunk(self, start: int, stop: int) -> Iterator[tuple[str, str, str, str]]:
        """Location, file, case id and sex of some of them."""
        for index in range(start, stop):
            file = self.files[index]
            yield locate(self.folder, file), file, self.case_ids[index], self.sexes[index]


def locate(folder: AnyPath, file: str) -> str:
    """Where a file lies; empty where none is named."""
    if not file:
        return ""
    return file if _URI.match(file) or Path(file).is_absolute() else str(folder / file)


def read_inputs(path: str | Path | AnyPath, options: SourceOptions | None = None, *, sex: str = "") -> Inputs:
    """List what is to be scored; nothing is opened.

    Args:
        path: A folder, below which every file counts that is not hidden, by whatever name: a radiograph may have any
            suffix or none, and whoever reads the files says of each other one why it is none. Only what lies in a
            folder ``masks`` and has the name of a picture elsewhere is that one's mask. Or a CSV or Parquet file
            with a path or URI a row (a column such as ``file``, relative to the table's folder), and sex, id and
            chronological age where they are known.
        options: Its columns, where their names do not say what they are.
        sex: Of every child whose row does not tell; empty where it is unknown.

    Raises:
        SourceError: There is no such folder or table, or no file in it; or a sex or an age that cannot be.
        OSError: A folder that cannot be listed.
    """
    root, options = as_path(path), options or SourceOptions()
    if root.is_file() and root.suffix.lower() in TABLE_SUFFIXES:
        return _of_table(root, options, sex)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder. Name a folder of radiographs, or a table with a file or URI a row.")
    found = find_files(root)
    masks = _masks(found)
    files = [file for file in found if file not in masks]
    if not files:
        raise SourceError(f"{root} holds no file that is not hidden. Name the folder of the radiographs.")
    return Inputs(root, tuple(files), case_ids_of(files), (sex,) * len(files), (None,) * len(files), len(masks))


def _masks(files: Sequence[str]) -> set[str]:
    paths = [PurePosixPath(file) for file in files]
    pictures = {path.stem for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and "masks" not in path.parts[:-1]}
    return {str(path) for path in paths if "masks" in path.parts[:-1] and path.stem in pictures}


def case_ids_of(files: Sequence[str]) -> tuple[str, ...]:
    """Ids that tell the files of a folder apart: names without suffix, and paths where several would share one.

    A lone picture among them, by its suffix, keeps the name: ``1.png`` beside ``1.json`` is case 1.

    Args:
        files: Paths below the folder, each once.
    """
    stems = [PurePosixPath(file).stem for file in files]
    is_picture = [PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES for file in files]
    sharing, paths = Counter(stems), set(files)
    pictures = Counter(stem for stem, picture in zip(stems, is_picture, strict=True) if picture)
    return tuple(
        stem if (sharing[stem] == 1 or (picture and pictures[stem] == 1)) and stem not in paths else file
        for file, stem, picture in zip(files, stems, is_picture, strict=True)
    )


def _of_table(root: AnyPath, options: SourceOptions, sex: str) -> Inputs:
    table = read_table(root)
    columns = find_columns(table, options.columns)
    require(table, columns, ("image",))
    asks = "is_male" in columns
    units = find_units(table, columns, options, default="months")
    files, case_ids, sexes, ages = [], [], [], []
    for row in table.rows:
        file = columns.get(row, "image")
        files.append("" if labels.is_missing(file) else file)
        case_ids.append(case_id_of(row, columns))
        cell = columns.get(row, "is_male" if asks else "sex")
        said = labels.sex(cell, of_is_male=asks)
        if said is None and not labels.is_missing(cell):
            raise SourceError(f"{row.where}: the sex must be male, female or empty, got {cell!r}. Mend the table.")
        sexes.append(said or sex)
        ages.append(_age(row, columns, units))
    if not files:
        raise SourceError(f"{table.name} names no file. Give one row a radiograph.")
    return Inputs(root.parent, tuple(files), tuple(case_ids), tuple(sexes), tuple(ages))


def _age(row: Row, columns: Columns, units: Units) -> float | None:
    """Chronological age in months; None where the row does not tell."""
    months, _, doubts = extras(row, columns, units)
    said = next((sentence for reason, sentence in doubts if reason == BAD_AGE), "")
    if not said and months > OLDEST_MONTHS:
        said = f"The chronological age must lie within 0..{OLDEST_MONTHS:.0f} months, got {months:g}."
    if said:
        raise SourceError(f"{row.where}: {said} Mend the table, or leave the cell empty.")
    return None if isnan(months) else months
