"""The Digital Hand Atlas: folders by race and sex, within them by age, and a table of two radiologists' readings.

``JPEGimages/ASIF/ASIF05/5012.jpg`` is an Asian girl of five; races are ASI, BLK, CAU and HIS, ages 00 to 18 in
completed years. The readings are in years. They come with the archive as a spreadsheet, or, as the public downloader
(razorx89/digital-hand-atlas-downloader) writes them, as a listing without a header: the picture's path first, the two
readings last.
"""

import math
import re
from pathlib import PurePosixPath

from preprocessing import labels
from preprocessing.columns import Columns, find_columns
from preprocessing.dicom_patients import join_by_headers
from preprocessing.rows import (
    RowError,
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
    find_images,
    problem,
    problem_table,
)
from preprocessing.storage import AnyPath
from preprocessing.table import Row, Table, beside, read_table

MOST_APART_MONTHS = 36
"""Readings of one hand that are further apart are noted. The root mean square of their difference is 7.6 months
(Thodberg and Savendahl 2010, 1,100 hands)."""
_GROUP = re.compile(r"(ASI|BLK|CAU|HIS)([FM])", re.IGNORECASE)
_GROUP_AGE = re.compile(r"(ASI|BLK|CAU|HIS)([FM])[-_ ]?(\d\d?)", re.IGNORECASE)
_LABELS = ("reading_1", "bone_age_years", "bone_age_months", "bone_age")
_SEXES = {"F": "female", "M": "male"}


def place(file: str) -> tuple[str, str, int] | None:
    """Race, sex and age in completed years out of a picture's path; None where its folders do not say them."""
    folders = PurePosixPath(file).parts[:-1]
    if folders and (found := _GROUP_AGE.fullmatch(folders[-1])):
        return found[1].upper(), _SEXES[found[2].upper()], int(found[3])
    if len(folders) > 1 and (found := _GROUP.fullmatch(folders[-2])) and re.fullmatch(r"\d\d?", folders[-1]):
        return found[1].upper(), _SEXES[found[2].upper()], int(folders[-1])
    return None


def is_atlas(files: list[str]) -> bool:
    """Whether at least half of the pictures lie in folders of race, sex and age."""
    return 2 * sum(place(file) is not None for file in files) >= max(1, len(files))


def read_atlas(root: AnyPath, options: SourceOptions) -> Source:
    """Read the Digital Hand Atlas.

    The bone age is the mean of the readings that are there, or, with ``label="floor"``, that mean in whole years. The
    cases also hold race, both readings and both labels. The chronological age is the table's where it says one, else
    the middle of the folder's year.

    Raises:
        SourceError: No picture in such folders, no table of readings or several, or a unit that cannot be meant.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder. Name the folder that holds ASIF, ASIM and the others.")
    files = find_images(root)
    placed = {file: where for file in files if (where := place(file)) is not None}
    if not placed:
        raise SourceError(f"{root} holds no picture in folders such as ASIF/ASIF05. Name another --layout.")
    pictures = _by_id(placed)
    table = _readings_table(root, options)
    columns = _columns(table, options)
    check_sexes(table, columns, digits=False)
    units = find_units(table, columns, options, default="years")
    unit = options.unit or "years"
    _check_readings(table, columns, unit, options)
    cases: list[dict[str, object]] = []
    problems, notes = [], []
    told: dict[int, str] = {}
    seen: dict[str, str] = {}
    mentioned: set[str] = set()
    for row in table.rows:
        case_id, file = stem(case_id_of(row, columns)), ""
        try:
            if row.fault:
                raise RowError("bad_row", row.fault)
            if not case_id:
                raise RowError("missing_id", "The row names no picture: its id is empty.")
            if case_id in seen:
                raise RowError("duplicate_id", f"The id stands in more than one row; {seen[case_id]} is used.")
            mentioned.add(case_id)
            file = _picture(pictures.get(case_id, []))
            race, sex, years = placed[file]
            first, second = (_reading(row, columns, role, unit) for role in ("reading_1", "reading_2"))
            if "reading_1" not in columns:  # a table of the readings' mean
                first = bone_age(row, columns, units)
            both = [value for value in (first, second) if not math.isnan(value)]
            if not both:
                raise RowError("bad_bone_age", "No reader read the picture.")
            mean = sum(both) / len(both)
            floor = 12.0 * math.floor(mean / 12 + 1e-9)
            if ("sex" in columns or "is_male" in columns) and sex_of(row, columns) != sex:
                raise RowError("sex_contradicted", f"The folder says {sex}, the table the other sex.")
            age, side, doubts = extras(row, columns, units)
            doubts += _doubts(first, second, age, years, two="reading_2" in columns)
            notes += [problem(case_id, file, reason, text, row=row.where) for reason, text in doubts]
            known = case(
                case_id,
                sex,
                floor if options.label == "floor" else mean,
                file,
                patient=patient_of(row, columns, options.salt),
                chronological_age_months=years * 12 + 6 if math.isnan(age) else age,
                side=side,
            )
            told[len(cases)] = patient_of(row, columns, b"")
            more = {"race": race, "reading_1_months": first, "reading_2_months": second}
            cases.append(known | more | {"readings_mean_months": mean, "readings_floor_months": floor})
            seen[case_id] = row.where  # a faulty row leaves the id to the next one
        except RowError as error:
            problems.append(problem(case_id, file, error.reason, str(error), row=row.where))
    notes += join_by_headers(root, cases, told, salt=options.salt)
    for case_id in sorted(set(pictures) - mentioned):
        text = f"The picture has no row in {table.name}."
        problems.append(problem(case_id, pictures[case_id][0], "missing_label", text))
    misplaced = [file for file in files if file not in placed]
    text = "The picture lies in no folder of race, sex and age."
    problems += [problem(stem(file), file, "misplaced", text) for file in misplaced]
    return Source(root, case_table(cases), problem_table(problems), problem_table(notes), layout="atlas")


def _by_id(placed: dict[str, tuple[str, str, int]]) -> dict[str, list[str]]:
    """Pictures by id; of a picture that lies there in two formats the DICOM, which is deeper."""
    found: dict[str, list[str]] = {}
    for file in placed:
        found.setdefault(stem(file), []).append(file)
    for case_id, files in found.items():
        deep = [file for file in files if file.lower().endswith(".dcm")]
        if len(deep) == 1 and len({placed[file] for file in files}) == 1:
            found[case_id] = deep
    return found


def _picture(files: list[str]) -> str:
    if len(files) > 1:
        raise RowError("duplicate_image", f"{len(files)} pictures have this id: {', '.join(files)}.")
    if not files:
        raise RowError("missing_image", "The table names the id, no picture has it.")
    return files[0]


def _readings_table(root: AnyPath, options: SourceOptions) -> Table:
    if options.table is not None:
        return _listing(read_table(beside(root, options.table)))
    found, seen = [], []
    for path in sorted(root.iterdir(), key=str):
        if path.suffix.lower() not in (".csv", ".parquet") or path.name in ("rejected.csv", "notes.csv"):
            continue
        table = _listing(read_table(path))
        seen.append(f"{path.name} ({', '.join(table.header) or 'no header'})")
        if not table.header or options.columns or _has_readings(find_columns(table, {})):
            found.append(table)
    if len(found) != 1:
        raise SourceError(
            f"{root} must hold exactly one table with columns reading_1 and reading_2; found: "
            f"{'; '.join(seen) or 'none'}. "
            "Save the spreadsheet of readings as CSV and name it with --table. Folders say the age, not the bone age."
        )
    return found[0]


def _has_readings(columns: Columns) -> bool:
    return any(role in columns for role in _LABELS) and ("id" in columns or "image" in columns)


def _listing(table: Table) -> Table:
    """The table; without a header where its first line names a picture already."""
    first = table.header[0] if table.header else ""
    return table.without_header() if place(first.replace("\\", "/")) is not None else table


def _columns(table: Table, options: SourceOptions) -> Columns:
    if table.header:
        columns = find_columns(table, options.columns)
        require(table, columns, ("id", "image"), _LABELS)
        return columns
    width = len(table.rows[0].cells)
    told = {"image": "1", "reading_1": str(width - 1), "reading_2": str(width)}
    return find_columns(table, {**({} if width < 3 else told), **options.columns})


def _reading(row: Row, columns: Columns, role: str, unit: str) -> float:
    """One reading in months; NaN where it is missing."""
    text = columns.get(row, role)
    if labels.is_missing(text):
        return float("nan")
    value = labels.number(text)
    months = None if value is None else labels.to_months(value, unit)
    if months is None or not 0 <= months <= labels.MAX_BONE_AGE_MONTHS:
        raise RowError(
            "bad_bone_age",
            f"{columns.names[role]} must lie within 0..{labels.MAX_BONE_AGE_MONTHS} months, got {text!r} {unit}.",
        )
    return months


def _check_readings(table: Table, columns: Columns, unit: str, options: SourceOptions) -> None:
    for role in ("reading_1", "reading_2"):
        values = [value for row in table.rows if (value := labels.number(columns.get(row, role))) is not None]
        name = repr(columns.names.get(role, role))
        labels.check_unit(values, unit, name, trusted=options.trust_unit)
        if table.header or role in options.columns or not values:
            continue
        # Without a header the place of the readings is a guess, which their distance from the folder's age confirms.
        apart = [
            abs(labels.to_months(value, unit) - years[2] * 12 - 6)
            for row in table.rows
            if (value := labels.number(columns.get(row, role))) is not None
            and (years := place(columns.get(row, "image"))) is not None
        ]
        if apart and sorted(apart)[len(apart) // 2] > MOST_APART_MONTHS:
            raise SourceError(
                f"{table.name} has no header, and its {name} lies {sorted(apart)[len(apart) // 2]:.0f} months from the "
                f"folder's age in the middle: no reading. Say --columns {role}=PLACE, counted from 1."
            )


def _doubts(first: float, second: float, age: float, years: int, *, two: bool) -> list[tuple[str, str]]:
    doubts = []
    if abs(first - second) > MOST_APART_MONTHS:
        doubts.append(("readers_disagree", f"The two readings are {abs(first - second):.0f} months apart."))
    if two and (math.isnan(first) or math.isnan(second)):
        doubts.append(("one_reader", "Only one reader read the picture."))
    if not math.isnan(age) and not years * 12 - 1 <= age <= years * 12 + 13:
        doubts.append(
            ("age_contradicted", f"The folder says {years} years, the table {age / 12:.1f}; the table counts.")
        )
    return doubts
