"""A folder of DICOM files, labelled by a table: facts from the headers, and no identifier anywhere else."""

from collections import Counter

from preprocessing import labels
from preprocessing.columns import Columns, find_columns
from preprocessing.dicom_folder import KEYS, DicomFile, join, read_files
from preprocessing.dicom_patients import name_patients
from preprocessing.header import contradictions
from preprocessing.rows import (
    RowError,
    Units,
    bone_age,
    case_id_of,
    check_sexes,
    extras,
    find_units,
    patient_of,
    require,
    sex_of,
    stem,
)
from preprocessing.source import (
    Source,
    SourceError,
    SourceOptions,
    case,
    case_table,
    problem,
    problem_table,
)
from preprocessing.source_rsna import label_tables
from preprocessing.storage import AnyPath
from preprocessing.table import Row, Table, beside, read_table


def read_dicom(root: AnyPath, options: SourceOptions) -> Source:
    """Read a folder of DICOM files with their labels in a table.

    A row finds its file by a column of SOP instance UID, of path or name, of study instance UID or accession number,
    of patient id, or by an id that is any of them; or by an id that a private mapping translates. Sex, chronological
    age, side and patient come from the header, and from the table where the header is silent. A row whose sex or
    patient contradicts the header is not used; another age is noted, and the header counts.

    The patient is a hash under the site's salt, or without a salt a number of this cohort alone; files are one
    patient's by the header or by the table. Files and ids whose names give an identifier away get a pseudonym.

    Raises:
        SourceError: No DICOM file, no table of labels or several, or a column that cannot be meant.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder. Name a folder of DICOM files.")
    table = _labels(root, options)
    columns = find_columns(table, options.columns)
    require(table, columns, KEYS, ("bone_age_months", "bone_age_years", "bone_age"))
    check_sexes(table, columns, digits=False)
    units = find_units(table, columns, options, default="months")
    files, problems = read_files(root, options.salt)
    rows_of_file, taken = join(table, columns, files, options, root, problems)
    named_alike = any(
        not row.fault and _names_patient(row, columns, files[index])
        for index, rows in rows_of_file.items()
        for row in rows
    )
    stems = Counter(stem(file.name) for file in files)
    used: dict[int, tuple[Row, str, dict[str, object], list[tuple[str, str]]]] = {}
    told = dict.fromkeys(sorted(rows_of_file), "")
    for index in told:
        file = files[index]
        for row in rows_of_file[index]:
            if index in used:
                text = f"The file is labelled already, by {used[index][0].where}."
                problems.append(problem(file.pseudonym, file.name, "duplicate_id", text, row=row.where))
                continue
            case_id = _case_id(row, columns, file, is_alone=stems[stem(file.name)] == 1)
            try:
                if row.fault:
                    raise RowError("bad_row", "The row is damaged: a quote is not closed, or it has too many cells.")
                if named_alike and _names_patient(row, columns, file) is False:
                    text = "The table's patient is another one than that of the DICOM header."
                    raise RowError("patient_contradicted", text)
                patient = patient_of(row, columns, b"")
                told[index] = told[index] or patient  # of a row without a label, too, unless another one is used
                used[index] = (row, case_id, *_case(row, columns, units, file))
                told[index] = patient
            except RowError as error:  # leaves the file to the next row
                problems.append(problem(case_id, file.name, error.reason, _safe(str(error), file), row=row.where))
    headers = {index: (files[index].header, files[index].identity) for index in told}
    patients, disagreements = name_patients(headers, told, salt=options.salt)
    cases, notes, hidden = [], [], {}
    for index, (row, case_id, known, doubts) in used.items():
        file = files[index]
        cases.append(known | {"case_id": case_id, "patient": patients[index]})
        doubts += [disagreements[index]] if index in disagreements else []
        notes += [problem(case_id, file.name, reason, _safe(text, file), row=row.where) for reason, text in doubts]
        if file.name != file.path:
            hidden[file.name] = file.path
    for index, file in enumerate(files):
        if index not in rows_of_file and index not in taken:
            text = f"The file has no row in {table.name}."
            problems.append(problem(file.pseudonym, file.name, "missing_label", text))
    cases = _without_repeats(cases, problems)
    notes += _of_both_sexes(cases)
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


def _case_id(row: Row, columns: Columns, file: DicomFile, *, is_alone: bool) -> str:
    """The table's id or else the file's name, with its folders where it is not alone, unless an identifier shows."""
    name = stem(file.name) if is_alone else file.name.removesuffix(".dcm")
    text = case_id_of(row, columns) if "id" in columns else name
    return file.pseudonym if not text or file.identity.told_by(text) else text


def _case(row: Row, columns: Columns, units: Units, file: DicomFile) -> tuple[dict[str, object], list[tuple[str, str]]]:
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
    of_header = header.chronological_age_months
    known = case(
        "",
        sex,
        months,
        file.name,
        chronological_age_months=age if of_header is None else of_header,
        side=header.laterality or side,
    )
    return known, doubts


def _names_patient(row: Row, columns: Columns, file: DicomFile) -> bool | None:
    """Whether the table's patient is that of the header; None where either is silent."""
    text = columns.get(row, "patient")
    if labels.is_missing(text) or not file.identity.patient:
        return None
    return text in (file.identity.patient, file.header.patient_hash)


def _safe(text: str, file: DicomFile) -> str:
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


def _of_both_sexes(cases: list[dict[str, object]]) -> list[dict[str, str]]:
    """Notes on cases whose patient cannot be one child, such as an id that anonymised files have in common."""
    sexes: dict[object, list[object]] = {}
    for known in cases:
        sexes.setdefault(known["patient"], []).append(known["sex"])
    text = "Boys and girls have its patient's id, which may stand for several children: all {} cases share a fold."
    return [
        problem(str(known["case_id"]), str(known["file"]), "patient_of_both_sexes", text.format(len(found)))
        for known in cases
        if known["patient"] and len(set(found := sexes[known["patient"]])) > 1
    ]
