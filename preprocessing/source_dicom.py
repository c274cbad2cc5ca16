"""A folder of DICOM files, labelled by a table: facts from the headers, and no identifier anywhere else."""

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from preprocessing import labels
from preprocessing.columns import Columns, find_columns
from preprocessing.dicom import is_dicom
from preprocessing.dicom_identity import Identity, read_identity
from preprocessing.header import Header, contradictions
from preprocessing.limits import RadiographError
from preprocessing.source import (
    IMAGE_SUFFIXES,
    Source,
    SourceError,
    SourceOptions,
    case,
    case_table,
    problem,
    problem_table,
)
from preprocessing.source_rsna import label_tables
from preprocessing.source_table import (
    RowError,
    Units,
    bone_age,
    case_id_of,
    extras,
    find_units,
    patient_of,
    require,
    sex_of,
    stem,
)
from preprocessing.storage import AnyPath
from preprocessing.table import Row, Table, beside, read_table

_KEYS = ("sop", "image", "id", "study", "patient")
"""Columns that may say which file a row means; the one by which most rows find one file counts."""
_KINDS = ("name", "sop", "study", "accession", "patient")
_OTHER = (
    *(suffix for suffix in IMAGE_SUFFIXES if suffix != ".dcm"),
    *(".csv", ".tsv", ".txt", ".parquet", ".json", ".xml", ".html", ".pdf", ".zip", ".md", ".xls", ".xlsx"),
)


@dataclass(frozen=True)
class _File:
    """One DICOM: `name` may be written down, `path` only where it is the same."""

    path: str
    name: str
    pseudonym: str
    header: Header
    identity: Identity

    def key(self, kind: str) -> tuple[str, ...]:
        if kind == "name":
            plain = PurePosixPath(self.path)
            return self.path, plain.name, plain.stem, str(plain.with_suffix(""))
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


def read_dicom(root: AnyPath, options: SourceOptions) -> Source:
    """Read a folder of DICOM files with their labels in a table.

    A row finds its file by a column of SOP instance UID, of path or name, of study instance UID or accession number,
    of patient id, or by an id that is any of them; or by an id that a private mapping translates. Sex, chronological
    age, side and patient come from the header, and from the table where the header is silent. A row whose sex or
    patient contradicts the header is not used; another age is noted, and the header counts.

    The patient is a hash under the site's salt, or without a salt a number of this cohort alone. Files and ids whose
    names give an identifier away get a pseudonym.

    Raises:
        SourceError: No DICOM file, no table of labels or several, or a column that cannot be meant.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder. Name a folder of DICOM files.")
    table = _labels(root, options)
    columns = find_columns(table, options.columns)
    require(table, columns, _KEYS, ("bone_age_months", "bone_age_years", "bone_age"))
    units = find_units(table, columns, options, default="months")
    files, problems = _read_files(root, options.salt)
    rows_of_file, taken = _join(table, columns, files, options, root, problems)
    numbers = _patient_numbers(files)
    named_alike = any(_names_patient(rows[0], columns, files[index]) for index, rows in rows_of_file.items())
    cases, notes, hidden = [], [], {}
    for index, rows in sorted(rows_of_file.items()):
        file = files[index]
        for row in rows[1:]:
            text = f"The file is labelled already, by {rows[0].where}."
            problems.append(problem(file.pseudonym, file.name, "duplicate_id", text, row=row.where))
        row = rows[0]
        case_id = _case_id(row, columns, file)
        try:
            if row.fault:
                raise RowError("bad_row", "The row is damaged: a quote is not closed, or it has too many cells.")
            if named_alike and _names_patient(row, columns, file) is False:
                text = "The table's patient is another one than that of the DICOM header."
                raise RowError("patient_contradicted", text)
            known, doubts = _case(row, columns, units, file, numbers, options)
            cases.append(known | {"case_id": case_id})
            notes += [problem(case_id, file.name, reason, _safe(text, file), row=row.where) for reason, text in doubts]
            if file.name != file.path:
                hidden[file.name] = file.path
        except RowError as error:
            problems.append(problem(case_id, file.name, error.reason, _safe(str(error), file), row=row.where))
    for index, file in enumerate(files):
        if index not in rows_of_file and index not in taken:
            text = f"The file has no row in {table.name}."
            problems.append(problem(file.pseudonym, file.name, "missing_label", text))
    cases = _without_repeats(cases, problems)
    return Source(root, case_table(cases), problem_table(problems), problem_table(notes), hidden, "dicom")


def _labels(root: AnyPath, options: SourceOptions) -> Table:
    if options.table is not None:
        return read_table(beside(root, options.table))
    fitting, seen = label_tables(root, needs_sex=False)
    if len(fitting) != 1:
        raise SourceError(
            f"{root} must hold exactly one table with a bone age and what finds its DICOM file (sop, image, study, "
            f"patient or id); found: {'; '.join(seen) or 'none'}. Name it with --table, its columns with --columns."
        )
    return fitting[0]


def _read_files(root: AnyPath, salt: bytes) -> tuple[list[_File], list[dict[str, str]]]:
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
        files.append(_File(path, name, pseudonym, header, identity))
    return files, problems


def _join(
    table: Table,
    columns: Columns,
    files: list[_File],
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
        for role in filter(columns.__contains__, _KEYS):
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
    return case_id_of(row, columns) if role == "id" else text.replace("\\", "/").removeprefix("./")


def _index(files: list[_File], role: str, wanted: Iterable[str]) -> dict[str, list[int]]:
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


def _mapped(mapping: Table, files: list[_File]) -> dict[str, list[int]]:
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


def _patient_numbers(files: list[_File]) -> dict[str, str]:
    """Numbers of the patients in the order of their files: without a salt a hash could be looked up."""
    hashes = dict.fromkeys(file.header.patient_hash for file in files if file.header.patient_hash)
    return {known: f"patient-{number:06d}" for number, known in enumerate(hashes, start=1) if known}


def _case_id(row: Row, columns: Columns, file: _File) -> str:
    """The table's id or else the file's name, unless it gives an identifier away."""
    text = case_id_of(row, columns) if "id" in columns else stem(file.name)
    return file.pseudonym if not text or file.identity.told_by(text) else text


def _case(
    row: Row, columns: Columns, units: Units, file: _File, numbers: dict[str, str], options: SourceOptions
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    months = bone_age(row, columns, units)
    header = file.header
    told_sex = _sex(row, columns)
    age, side, doubts = extras(row, columns, units)
    if header.sex and told_sex and header.sex != told_sex:
        raise RowError("sex_contradicted", contradictions(header, sex=told_sex, laterality=None)[0])
    sex = header.sex or told_sex
    if sex is None:
        raise RowError("missing_sex", "Neither the DICOM header nor the table says the sex.")
    if age == age:
        found = contradictions(header, chronological_age_months=age, laterality=None)
        doubts += [("age_contradicted", f"{text} The header counts.") for text in found]
    if side and header.laterality and side != header.laterality:
        text = f"The table says a {side} hand, the DICOM header a {header.laterality} one; the header counts."
        doubts.append(("side_contradicted", text))
    elif header.laterality == "right" and not side:
        doubts.append(("right_hand", "The DICOM header says a right hand; bone age is read from the left."))
    if header.patient_hash:
        patient = header.patient_hash if options.salt else numbers[header.patient_hash]
    else:  # without a salt a table's word for a patient may be the hospital's own
        patient = patient_of(row, columns, options.salt) if options.salt else ""
    of_header = header.chronological_age_months
    known = case(
        "",
        sex,
        months,
        file.name,
        patient=patient,
        chronological_age_months=age if of_header is None else of_header,
        side=header.laterality or side,
    )
    return known, doubts


def _names_patient(row: Row, columns: Columns, file: _File) -> bool | None:
    """Whether the table's patient is that of the header; None where either is silent."""
    text = columns.get(row, "patient")
    if labels.is_missing(text) or not file.identity.patient:
        return None
    return text in (file.identity.patient, file.header.patient_hash)


def _safe(text: str, file: _File) -> str:
    """A sentence, unless it quotes a cell that gives an identifier away."""
    return "A cell of the row cannot be used, nor quoted, as it identifies." if file.identity.told_by(text) else text


def _sex(row: Row, columns: Columns) -> str | None:
    if ("sex" not in columns and "is_male" not in columns) or labels.is_missing(
        columns.get(row, "is_male" if "is_male" in columns else "sex")
    ):
        return None
    return sex_of(row, columns)


def _without_repeats(cases: list[dict[str, object]], problems: list[dict[str, str]]) -> list[dict[str, object]]:
    """Cases of different files under one id: which of them it means cannot be known."""
    count = Counter(known["case_id"] for known in cases)
    for known in cases:
        if count[known["case_id"]] > 1:
            text = "The id stands for more than one file."
            problems.append(problem(str(known["case_id"]), str(known["file"]), "duplicate_id", text))
    return [known for known in cases if count[known["case_id"]] == 1]
