"""Which column of a table means what: by its name, or as the caller says."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from preprocessing.source import SourceError
from preprocessing.table import Row, Table

_ALIASES = {
    "id": ("id", "case_id", "caseid", "case", "image_id", "imageid", "picture_id"),
    "image": ("image", "file", "filename", "file_name", "path", "image_path", "file_path", "image_file", "picture"),
    "bone_age_months": ("bone_age_months", "boneage_months", "bone_age_in_months", "bone_age_mo"),
    "bone_age_years": ("bone_age_years", "boneage_years", "bone_age_in_years", "bone_age_yr", "bone_age_yrs"),
    "bone_age": ("bone_age", "boneage"),
    "sex": ("sex", "gender", "patient_sex"),
    "is_male": ("male", "is_male"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "child"),
    "chronological_age_months": ("chronological_age_months", "age_months", "chrono_age_months", "ca_months"),
    "chronological_age_years": ("chronological_age_years", "age_years", "chrono_age_years", "ca_years"),
    "chronological_age": ("chronological_age", "chronologicalage", "chrono_age", "chronage", "chr_age", "chrage"),
    "side": ("side", "laterality", "hand"),
    "reading_1": ("reading_1", "reading1", "reader_1", "reader1", "read1", "first_reading", "reading_a"),
    "reading_2": ("reading_2", "reading2", "reader_2", "reader2", "read2", "second_reading", "reading_b"),
    "sop": ("sop", "sop_instance_uid", "sopinstanceuid", "sop_uid"),
    "study": ("study", "study_instance_uid", "studyinstanceuid", "study_uid", "accession", "accession_number"),
}
"""Names, in lower case with every other character as an underscore, that need no telling."""

ROLES = tuple(_ALIASES)
_ONE_OF = (
    ("bone_age_months", "bone_age_years", "bone_age"),
    ("chronological_age_months", "chronological_age_years", "chronological_age"),
    ("sex", "is_male"),
)


def parse_columns(words: Iterable[str]) -> dict[str, str]:
    """Read ``role=name`` pairs from the command line, several in a word where commas part them.

    Raises:
        SourceError: No pair, an unknown role, or a role told twice.
    """
    found: dict[str, str] = {}
    for pair in (pair for word in words for pair in next(csv.reader([word]), [])):
        role, equals, name = pair.partition("=")
        role = role.strip()
        if not equals or not name.strip() or role not in ROLES:
            raise SourceError(f"--columns takes ROLE=NAME with a role of {', '.join(ROLES)}; got {pair!r}.")
        if role in found:
            raise SourceError(f"A role stands for one column; --columns names two for {role}. Leave one out.")
        found[role] = name.strip()
    return found


@dataclass(frozen=True)
class Columns:
    """Places of a table's columns by what they mean."""

    places: Mapping[str, int]
    names: Mapping[str, str]

    def __contains__(self, role: str) -> bool:
        return role in self.places

    def get(self, row: Row, role: str) -> str:
        """The row's cell; empty where there is no such column."""
        place = self.places.get(role)
        return "" if place is None else row.cells[place]


def find_columns(table: Table, told: Mapping[str, str]) -> Columns:
    """Find out what the columns mean.

    Args:
        table: Without a header, `told` gives places, counted from 1.
        told: Names by role; they win over what names suggest.

    Raises:
        SourceError: A column that was told is not there, or two columns could be meant by one role.
    """
    places: dict[str, int] = {}
    for role, name in told.items():
        places[role] = _place(table, role, name)
    width = len(table.header)
    simple = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in table.header]
    for role, aliases in _ALIASES.items():
        family = next((roles for roles in _ONE_OF if role in roles), (role,))
        if any(other in told for other in family):
            continue
        fitting = [i for i in range(width) if simple[i] in aliases and i not in places.values()]
        if len(fitting) > 1:
            listed = ", ".join(repr(table.header[i]) for i in fitting)
            raise SourceError(
                f"One column of {table.name} must be the {role}, got {listed}. Say --columns {role}=NAME."
            )
        if fitting:
            places[role] = fitting[0]
    for family in _ONE_OF:
        found = [role for role in family if role in places]
        if len(found) > 1:
            listed = ", ".join(repr(table.header[places[role]]) for role in found)
            raise SourceError(
                f"One column of {table.name} must tell the {family[0]}, got {listed}. Say --columns {found[0]}=NAME."
            )
    names = {role: table.header[i] if i < width else f"column {i + 1}" for role, i in places.items()}
    return Columns(places, names)


def _place(table: Table, role: str, name: str) -> int:
    width = len(table.header) or max((len(row.cells) for row in table.rows), default=0)
    if not table.header:
        if not name.isascii() or not name.isdigit() or not 1 <= int(name) <= width:
            raise SourceError(
                f"{table.name} has no header: --columns {role} takes a place of 1..{width}, got {name!r}."
            )
        return int(name) - 1
    fitting = [i for i, column in enumerate(table.header) if column == name]
    fitting = fitting or [i for i, column in enumerate(table.header) if column.lower() == name.lower()]
    if len(fitting) != 1:
        what = "no column" if not fitting else f"{len(fitting)} columns"
        raise SourceError(
            f"{table.name} has {what} {name!r} for {role}; it has {', '.join(map(repr, table.header))}. Name one."
        )
    return fitting[0]
