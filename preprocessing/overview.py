"""What a cohort holds: cases, splits, sizes, rejects, findings, examples, and cases that belong together.

Labels of the locked test go into totals of the whole split only; none is shown for a case, and nothing is chosen by
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pydicom import dcmread

from preprocessing.cohort import Cohort
from preprocessing.quiet import quiet
from preprocessing.storage import as_path, is_local

BAND_MONTHS = 24
"""Width of the bands of bone age that examples are shown for."""
EXAMPLES = 3
"""Of each sex in a band."""
MAX_GROUPS = 12
"""Groups of cases that are shown."""
GAP_PX = 3
"""Between the pictures of a montage."""


@dataclass(frozen=True)
class Split:
    """Totals of one fold, or of the locked test."""

    name: str
    cases: int
    girls: int
    boys: int
    quartiles: tuple[float, float, float]
    """Of the bone ages, months."""


@dataclass(frozen=True)
class Count:
    """How often a reason or a finding occurs."""

    name: str
    action: str
    cases: int
    example: str
    """A sentence of one case."""


@dataclass(frozen=True)
class Band:
    """Examples of two years of bone age, outside the locked test."""

    name: str
    cases: int
    rows: tuple[int, ...]
    """Of the cohort; girls before boys."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the files the cohort was made of, where they still lie there."""

    known: int
    unknown: int
    least: tuple[int, int]
    """Width and height of the smallest picture, by area."""
    median: tuple[int, int]
    """Medians of width and height."""
    most: tuple[int, int]
    shapes: int
    """How many different sizes."""


@dataclass(frozen=True)
class Group:
    """Cases that share a fold because they belong together."""

    rows: tuple[int, ...]
    reason: str
    """``same patient`` or ``nearly the same picture``."""
    is_locked: bool
    spread_months: float
    """Between the largest and the smallest label; NaN in the locked test."""
    sexes: int
    """How many different ones; 2 can only be wrong."""


def splits(cohort: Cohort) -> list[Split]:
    """Totals of each fold and of the locked test."""
    fold = cohort.cases["fold"]
    parts = [(f"fold {number}", fold == number) for number in range(cohort.num_folds)]
    parts.append(("locked test", cohort.cases["is_test"]))
    found = []
    for name, chosen in parts:
        part = cohort.cases[chosen]
        if part.empty:
            continue
        low, middle, high = np.percentile(part["bone_age_months"], (25, 50, 75))
        boys = int(part["is_male"].sum())
        found.append(Split(name, len(part), len(part) - boys, boys, (float(low), float(middle), float(high))))
    return found


def findings(cohort: Cohort) -> list[Count]:
    """Findings by code and action, most frequent first."""
    quality = cohort.quality
    counts = [
        Count(str(code), str(action), int(part["case_id"].nunique()), str(part["message"].iloc[0]))
        for (code, action), part in quality.groupby(["code", "action"])
    ]
    return sorted(counts, key=lambda count: (-count.cases, count.name))


def problems(cohort: Cohort, table: str) -> list[Count]:
    """Rows of ``rejected.csv`` or ``notes.csv`` by reason, most frequent first; none where there is no such file."""
    path = Path(str(cohort.pixels.filename)).parent / table
    if not path.is_file():
        return []
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    counts = [Count(str(reason), "", len(part), str(part["detail"].iloc[0])) for reason, part in rows.groupby("reason")]
    return sorted(counts, key=lambda count: (-count.cases, count.name))


def bands(cohort: Cohort) -> list[Band]:
    """Examples of every band that has cases outside the locked test, evenly spaced over its labels."""
    cases = cohort.cases[~cohort.cases["is_test"]]
    found = []
    for number, part in cases.groupby((cases["bone_age_months"] // BAND_MONTHS).astype(int)):
        rows = []
        for is_male in (False, True):
            of_sex = part[part["is_male"] == is_male].sort_values(["bone_age_months", "case_id"])
            places = np.linspace(0, len(of_sex) - 1, min(EXAMPLES, len(of_sex))).round().astype(int)
            rows += of_sex.index[places].tolist()
        years = int(number) * BAND_MONTHS // 12
        found.append(Band(f"{years} to {years + BAND_MONTHS // 12} years", len(part), tuple(rows)))
    return found


def sizes(cohort: Cohort) -> Sizes | None:
    """Sizes of the original files; None where none of them can be reached on this machine."""
    folder = as_path(cohort.source)
    if not is_local(folder) or not Path(str(folder)).is_dir():
        return None
    found = [size for file in cohort.cases["file"] if (size := _size(Path(str(folder)) / str(file))) is not None]
    if not found:
        return None
    widths_heights = np.array(found)
    order = np.argsort(widths_heights.prod(axis=1), kind="stable")
    width, height = np.median(widths_heights, axis=0)
    return Sizes(
        known=len(found),
        unknown=len(cohort.cases) - len(found),
        least=found[order[0]],
        median=(int(width), int(height)),
        most=found[order[-1]],
        shapes=len(set(found)),
    )


def groups(cohort: Cohort) -> list[Group]:
    """Groups of two cases or more; those whose labels disagree most come first, the locked test's last."""
    cases = cohort.cases
    if "group" not in cases:
        return []
    found = []
    for _, part in cases[cases["group"].duplicated(keep=False)].groupby("group"):
        patients = set(part["patient"]) if "patient" in part else {""}
        is_locked = bool(part["is_test"].any())
        months = part["bone_age_months"]
        found.append(
            Group(
                rows=tuple(part.index.tolist()),
                reason="same patient" if len(patients) == 1 and "" not in patients else "nearly the same picture",
                is_locked=is_locked,
                spread_months=float("nan") if is_locked else float(months.max() - months.min()),
                sexes=int(part["is_male"].nunique()),
            )
        )
    return sorted(found, key=lambda group: (group.is_locked, -np.nan_to_num(group.spread_months), group.rows))


def montage(pictures: Sequence[np.ndarray], columns: int, *, gap: int = GAP_PX) -> np.ndarray:
    """Pictures of one size side by side on white, uint8, padded with white to whole rows."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height as the file's header says; None where it does not."""
    try:
        with quiet():
            if path.suffix.lower() == ".dcm":
                header = dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
                return int(header.Columns), int(header.Rows)
            with Image.open(path) as picture:
                return picture.size
    except Exception:  # gone or changed since; the cohort does not need it any more
        return None
