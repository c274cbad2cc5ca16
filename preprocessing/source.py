"""What every reader of labelled pictures gives: the usable cases, and what is wrong with the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from preprocessing.storage import AnyPath

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm")
CASE_COLUMNS = (
    "case_id",
    "sex",
    "is_male",
    "bone_age_months",
    "file",
    "patient",
    "chronological_age_months",
    "side",
)
LAYOUTS = ("auto", "rsna", "atlas", "table", "dicom")
_PROBLEM_COLUMNS = ["case_id", "file", "reason", "detail"]


class SourceError(ValueError):
    """The folder is in no layout that is read, or a whole column of its table cannot be meant."""


def problem(case_id: str, file: str, reason: str, detail: str, *, row: str = "") -> dict[str, str]:
    """One row of a table of problems; `row` says where in which table, such as ``labels.csv, line 7``."""
    return {"case_id": case_id, "file": file, "reason": reason, "detail": f"{row}: {detail}" if row else detail}


def problem_table(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows of `problem` as a table that has its columns even when it is empty."""
    return pd.DataFrame(rows, columns=_PROBLEM_COLUMNS, dtype=str)


@dataclass(frozen=True)
class Source:
    """Labelled pictures, their headers and labels read, their pixels not decoded."""

    folder: AnyPath
    cases: pd.DataFrame
    """One row a usable case, sorted by case_id: case_id (str), sex (male or female), is_male (bool), bone_age_months
    (float), file (relative to `folder`), patient (str, empty where unknown), chronological_age_months (float, NaN where
    unknown), side (left, right or empty). A layout may add columns of its own."""
    problems: pd.DataFrame
    """One row a row or file that cannot be used: case_id, file, reason (a stable word), detail (a sentence that names
    the row)."""
    notes: pd.DataFrame = field(default_factory=lambda: problem_table([]))
    """As `problems`, of cases that are used all the same."""
    hidden: dict[str, str] = field(default_factory=dict, repr=False)
    """Real path by `file` where the real one names the patient, so that it may be written down nowhere."""
    layout: str = ""
    """``rsna``, ``atlas``, ``table`` or ``dicom``."""

    @property
    def paths(self) -> list[str]:
        """Where the pictures of `cases` lie below `folder`, to be opened and not to be written down."""
        return [self.hidden.get(file, file) for file in self.cases["file"]]


def case(
    case_id: str,
    sex: str,
    bone_age_months: float,
    file: str,
    *,
    patient: str = "",
    chronological_age_months: float = float("nan"),
    side: str = "",
) -> dict[str, object]:
    """One row of `Source.cases`."""
    return {
        "case_id": case_id,
        "sex": sex,
        "is_male": sex == "male",
        "bone_age_months": float(bone_age_months),
        "file": file,
        "patient": patient,
        "chronological_age_months": float(chronological_age_months),
        "side": side,
    }


def case_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows of `case` as a table with the right types even when it is empty."""
    columns = dict.fromkeys(CASE_COLUMNS) | dict.fromkeys(key for row in rows for key in row)
    table = pd.DataFrame(rows, columns=list(columns))
    types = {"is_male": bool, "bone_age_months": float, "chronological_age_months": float}
    return table.astype(types).sort_values("case_id", ignore_index=True)


def find_images(root: AnyPath) -> list[str]:
    """Paths below `root` of everything with a picture's suffix, sorted.

    Masks that the phantom writes beside the pictures are passed over, and so are hidden files, which a Mac leaves
    beside each picture.
    """
    found = []
    for path in sorted(root.rglob("*"), key=str):
        inside = path.relative_to(root)
        if path.suffix.lower() in IMAGE_SUFFIXES and "masks" not in inside.parts[:-1] and path.name[:1] != ".":
            found.append("/".join(inside.parts))
    return found


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What cannot be seen by looking at a folder."""

    layout: str = "auto"
    """``auto`` looks; ``rsna``, ``atlas``, ``table`` or ``dicom`` say it."""
    table: str | AnyPath | None = None
    """The CSV or Parquet file of labels; None looks in the folder."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of columns by role, where they do not say it themselves; see `preprocessing.columns`."""
    unit: str | None = None
    """Of bone ages and ages whose column does not name it: ``months`` or ``years``; None means what is usual for the
    layout: years in the atlas, months elsewhere."""
    trust_unit: bool = False
    """Take a column in its unit even where it looks like the other one."""
    label: str = "mean"
    """Where two readers read: the ``mean`` of their readings, or ``floor``: that mean in whole years, as Chen did."""
    mapping: str | AnyPath | None = None
    """Private CSV that tells which DICOM has which id in the table; nothing of it is kept."""
    salt: bytes = field(default=b"", repr=False)
    """Secret of the site; see `preprocessing.sources.read_salt`."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("layout", self.layout, LAYOUTS),
            ("unit", self.unit, (None, "months", "years")),
            ("label", self.label, ("mean", "floor")),
        ):
            if value not in allowed:
                raise SourceError(f"The {name} must be one of {', '.join(map(str, allowed))}, got {value!r}.")
