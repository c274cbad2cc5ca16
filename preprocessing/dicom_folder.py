"""The DICOM files of a folder, and which of them each row of a label table means."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from preprocessing.columns import Columns, find_columns
from preprocessing.dicom import is_dicom
from preprocessing.dicom_identity import Identity, read_identity
from preprocessing.header import Header
from preprocessing.limits import RadiographError
from preprocessing.rows import case_id_of, composed, require
from preprocessing.source import IMAGE_SUFFIXES, SourceError, SourceOptions, problem
from preprocessing.storage import AnyPath
from preprocessing.table import Row, Table, beside, read_table

KEYS = ("sop", "image", "id", "study", "patient")
"""Columns that may say which file a row means; the one by which most rows find one file counts."""
_KINDS = ("name", "sop", "study", "accession", "patient")
_OTHER = (
    *(suffix for suffix in IMAGE_SUFFIXES if suffix != ".dcm"),
    *(".csv", ".tsv", ".txt", ".parquet", ".json", ".xml", ".html", ".pdf", ".zip", ".md", ".xls", ".xlsx"),
)


@dataclass(frozen=True)
class DicomFile:
    """One DICOM: `name` may be written down, `path` only where it is the same."""

    path: str
    name: str
    pseudonym: str
    header: Header
    identity: Identity

    def key(self, kind: str) -> tuple[str, ...]:
        if kind == "name":
            plain = PurePosixPath(composed(self.path))
            return str(plain), plain.name, plain.stem, str(plain.with_suffix(""))
        value: str = getattr(self.identity, kind)
        return (value,) if value else ()


def find_dicom(root: AnyPath) -> list[str]:
    """Paths below a folder of what is DICOM by its suffix or, without one that says otherwise, by its first bytes."""
    found = []
    for path in sorted(root.rglob("*"), key=str):
        suffix = path.suffix.lower()
        if suffix in _OTHER or path.name[:1] == "." or path.name.upper() == "DICOMDIR" or not path.is_file():
            continue
        if suffix != ".dcm":
            with path.open("rb") as file:
                if not is_dicom(file.read(256)):
                    continue
        found.append("/".join(path.relative_to(root).parts))
    return found


def read_files(root: AnyPath, salt: bytes) -> tuple[list[DicomFile], list[dict[str, str]]]:
    files, problems = [], []
    paths = find_dicom(root)
    if not paths:
        raise SourceError(f"{root} holds no DICOM file. Name a folder of DICOM files, or another --layout.")
    for number, path in enumerate(paths, start=1):
        pseudonym = f"dicom-{number:06d}"
        try:
            header, identity = read_identity(root / path, salt)
        except (RadiographError, OSError) as error:  # whose file it is is not known, so its name is not told
            code = error.code if isinstance(error, RadiographError) else "unreadable"
            text = f"{error if isinstance(error, RadiographError) else 'The file cannot be opened.'} It is number "
            problems.append(
                problem(pseudonym, "", code, f"{text}{number} of the DICOM files in the order of their paths.")
            )
            continue
        if salt and identity.sop:
            pseudonym = "dicom-" + hmac.new(salt, f"case\0{identity.sop}".encode(), hashlib.sha256).hexdigest()[:16]
        name = f"{pseudonym}.dcm" if identity.told_by(path) else path
        files.append(DicomFile(path, name, pseudonym, header, identity))
    return files, problems


def join(
    table: Table,
    columns: Columns,
    files: list[DicomFile],
    options: SourceOptions,
    root: AnyPath,
    problems: list[dict[str, str]],
) -> tuple[dict[int, list[Row]], set[int]]:
    """Rows by the index of their file, and files that a row meant without saying which of several."""
    key, found_by = "id", dict[str, list[int]]()
    if options.mapping is not None:
        require(table, columns, ("id",))
        found_by = _mapped(read_table(beside(root, options.mapping)), files)
    else:
        most = -1
        for role in filter(columns.__contains__, KEYS):
            keys = [_key_of(row, columns, role) for row in table.rows]
            index = _index(files, role, keys)
            hits = sum(len(index.get(wanted, [])) == 1 for wanted in keys)
            if hits > most:
                key, found_by, most = role, index, hits
    rows_of_file: dict[int, list[Row]] = {}
    taken: set[int] = set()
    for row in table.rows:
        indices = found_by.get(_key_of(row, columns, key), [])
        if not indices:
            problems.append(problem("", "", "missing_image", f"No DICOM file has the row's {key}.", row=row.where))
        elif len(indices) > 1:  # which of them the label means cannot be known
            taken |= set(indices)
            listed = ", ".join(files[index].name for index in indices)
            text = f"{len(indices)} files have the row's {key}: {listed}. Label each by its SOP instance UID or path."
            problems.append(problem("", "", "duplicate_image", text, row=row.where))
        else:
            rows_of_file.setdefault(indices[0], []).append(row)
    return rows_of_file, taken


def _key_of(row: Row, columns: Columns, role: str) -> str:
    text = columns.get(row, role)
    return composed(case_id_of(row, columns) if role == "id" else text.replace("\\", "/").removeprefix("./"))


def _index(files: list[DicomFile], role: str, wanted: Iterable[str]) -> dict[str, list[int]]:
    """Files by key, of the kind by which most of the wanted keys are found."""
    kinds = {"sop": ("sop",), "image": ("name",), "study": ("study", "accession"), "patient": ("patient",)}.get(
        role, _KINDS
    )
    keys = [key for key in wanted if key]
    best: dict[str, list[int]] = {}
    most = -1
    for kind in kinds:
        found: dict[str, list[int]] = {}
        for index, file in enumerate(files):
            for key in {*file.key(kind)}:
                found.setdefault(key, []).append(index)
        hits = sum(key in found for key in keys)
        if hits > most:
            best, most = found, hits
    return best


def _mapped(mapping: Table, files: list[DicomFile]) -> dict[str, list[int]]:
    """Files by the id that the mapping gives them."""
    columns = find_columns(mapping, {})
    key = next((role for role in ("sop", "image", "study", "patient") if role in columns), "")
    if not key or "id" not in columns:
        raise SourceError(
            f"The mapping {mapping.name} must have a column id and one of sop, image, study, patient; it has "
            f"{', '.join(map(repr, mapping.header))}. Rename its columns."
        )
    by_key = _index(files, key, (_key_of(row, columns, key) for row in mapping.rows))
    found: dict[str, list[int]] = {}
    for row in mapping.rows:
        indices = found.setdefault(case_id_of(row, columns), [])
        indices += [index for index in by_key.get(_key_of(row, columns, key), []) if index not in indices]
    return found
