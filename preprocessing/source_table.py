"""Pictures labelled by one table: the RSNA layout, and any CSV or Parquet file with named columns."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from preprocessing import labels
from preprocessing.columns import find_columns
from preprocessing.dicom_patients import join_by_headers
from preprocessing.rows import (
    RowError,
    bone_age,
    case_id_of,
    check_sexes,
    composed,
    extras,
    find_units,
    patient_of,
    require,
    sex_of,
    stem,
)
from preprocessing.source import (
    IMAGE_SUFFIXES,
    Source,
    SourceError,
    SourceOptions,
    case,
    case_table,
    find_images,
    problem,
    problem_table,
)
from preprocessing.storage import AnyPath
from preprocessing.table import Table

_IMAGE_SUFFIX = re.compile(f"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})$", re.IGNORECASE)
_ROUNDED = re.compile(r"\d[.,]?\d*[eE]\+\d+")


def read_labelled(root: AnyPath, table: Table, options: SourceOptions, *, layout: str) -> Source:
    """Join a table with the pictures below a folder.

    Args:
        root: The pictures, found by the path that the table gives, else by its id as the file's name.
        table: One row a picture.
        options: Columns, unit and salt.
        layout: ``rsna`` or ``table``. Where the options say the first, and looking did not find it, digits and truth
            values count as in a column ``male`` in one that is called ``sex``, too.

    Raises:
        SourceError: A needed column is missing or cannot be meant, the sex is said by numbers that may mean either, or
            there is no picture.
    """
    columns = find_columns(table, options.columns)
    require(table, columns, ("id", "image"), ("bone_age_months", "bone_age_years", "bone_age"), ("sex", "is_male"))
    digits = options.layout == "rsna"
    check_sexes(table, columns, digits=digits)
    units = find_units(table, columns, options, default="months")
    pictures = Pictures(root)
    cases: list[dict[str, object]] = []
    problems, notes = [], []
    told: dict[int, str] = {}
    line_of_id: dict[str, str] = {}
    line_of_file: dict[str, str] = {}
    mentioned: set[str] = set()
    for row in table.rows:
        case_id = case_id_of(row, columns)
        file = ""
        try:
            if row.fault:
                raise RowError("bad_row", row.fault)
            if not case_id:
                raise RowError("missing_id", "The row names no picture: its id is empty.")
            if case_id in line_of_id:
                raise RowError("duplicate_id", f"The id stands in more than one row; {line_of_id[case_id]} is used.")
            mentioned.add(case_id)
            file = pictures.find(columns.get(row, "image"), case_id)
            if file in line_of_file:
                raise RowError("duplicate_image", f"The picture is labelled already, by {line_of_file[file]}.")
            mentioned.add(file)
            months = bone_age(row, columns, units)
            sex = sex_of(row, columns, digits=digits)
            age, side, doubts = extras(row, columns, units)
            notes += [problem(case_id, file, reason, text, row=row.where) for reason, text in doubts]
            patient = patient_of(row, columns, options.salt)
            told[len(cases)] = patient_of(row, columns, b"")
            cases.append(case(case_id, sex, months, file, patient=patient, chronological_age_months=age, side=side))
            line_of_id[case_id] = line_of_file[file] = row.where  # a faulty row leaves both to the next one
        except RowError as error:
            problems.append(problem(case_id, file, error.reason, str(error), row=row.where))
    notes += join_by_headers(root, cases, told, salt=options.salt)
    unlabelled = [file for file in pictures.files if file not in mentioned and stem(file) not in mentioned]
    text = f"The picture has no row in {table.name}."
    problems += [problem(stem(file), file, "missing_label", text) for file in unlabelled]
    return Source(root, case_table(cases), problem_table(problems), problem_table(notes), layout=layout)


class Pictures:
    """The pictures below a folder, to be found by path, by name and by id."""

    def __init__(self, root: AnyPath) -> None:
        """List them.

        Raises:
            SourceError: There is none.
        """
        self.files = find_images(root)
        if not self.files:
            raise SourceError(f"{root} holds no picture ({', '.join(IMAGE_SUFFIXES)}). Name the folder of pictures.")
        self._by_name: dict[str, list[str]] = {}
        for file in self.files:
            for name in {PurePosixPath(file).name, stem(file)}:
                self._by_name.setdefault(composed(name), []).append(file)
        self._known = {composed(file): file for file in self.files}

    def find(self, path: str, case_id: str) -> str:
        """The one picture that a row means.

        Args:
            path: What the table says of the file: a path below the folder, or its end; empty where it says nothing.
            case_id: Then the name of the file, with or without suffix.

        Raises:
            RowError: None, several, or one outside the folder.
        """
        if labels.is_missing(path):
            return self._one(self._by_name.get(composed(case_id), []), f"no picture has the id {case_id!r}", case_id)
        asked = PurePosixPath(composed(path).replace("\\", "/"))
        if asked.is_absolute() or ".." in asked.parts or re.match(r"[A-Za-z]:", path):
            raise RowError("outside_folder", f"A picture must lie below the folder, got {path!r}. Name it from there.")
        if (text := str(asked)) in self._known:
            return self._known[text]
        found = self._by_name.get(asked.name) or self._by_name.get(_IMAGE_SUFFIX.sub("", asked.name), [])
        if len(asked.parts) > 1:
            found = [file for file in found if _same_end(composed(file), text)]
        return self._one(found, f"there is no picture {path!r}", asked.name)

    @staticmethod
    def _one(found: Sequence[str], none: str, asked: str) -> str:
        if len(found) > 1:  # which of them the label means cannot be known
            raise RowError("duplicate_image", f"{len(found)} pictures have this id: {', '.join(found)}.")
        if not found:
            hint = " It looks rounded by a spreadsheet: store ids as text." if _ROUNDED.fullmatch(asked) else ""
            raise RowError("missing_image", f"The table names it, {none}.{hint}")
        return found[0]


def _same_end(file: str, path: str) -> bool:
    """Whether one of two paths is the end of the other, suffixes aside."""
    ends = [f"/{_IMAGE_SUFFIX.sub('', text)}" for text in (file, path)]
    return ends[0].endswith(ends[1]) or ends[1].endswith(ends[0])
