"""Pages about one file or one cohort: ``python -m preprocessing inspect``."""

from pathlib import Path
from typing import Any

import numpy as np

from preprocessing import charts, overview, page
from preprocessing.acquisition import STATISTICS, Styles, find_styles
from preprocessing.cohort import MARKER, Cohort
from preprocessing.inspection_sheets import cohort_sheet, course_sheet
from preprocessing.limits import read_limited
from preprocessing.outliers import LEAST_DEVIATION, NEIGHBOURS, LabelCheck, check_labels
from preprocessing.radiograph import RadiographError
from preprocessing.standardize import Reader
from preprocessing.steps import MEASURES, Course, follow, own_reader
from preprocessing.storage import AnyPath, StorageError, as_path, write_atomic

NUM_LISTED = 12
"""Labels worth a second look that are listed."""
NUM_TYPICAL = 8
"""Pictures that show what an acquisition style looks like."""
FORMATS = (".png", ".html")
TEMPLATES = Path(__file__).parent / "templates"


def inspect(
    target: str | Path | AnyPath,
    out: str | Path | AnyPath,
    *,
    recipe_of: str | None = None,
    weights: Path | None = None,
) -> RadiographError | None:
    """Write a page or a picture that shows what happens to a file, or what a cohort holds.

    Args:
        target: A radiograph of any format, or a cohort; local or an fsspec URI.
        out: ``.png`` or ``.html``; one file that needs no other.
        recipe_of: A cohort whose recipe is followed; None takes the standard one with all views, at a size to look at.
        weights: Of the segmenter, where no recipe brings them; None takes those that ship.

    Returns:
        Why the file is refused, if it is; the page says so too, with the steps that were reached.

    Raises:
        StorageError: There is no such file or cohort.
        ValueError: `out` has another suffix.
    """
    path, written = as_path(target), as_path(out)
    if written.suffix.lower() not in FORMATS:
        raise ValueError(f"The output must end in {' or '.join(FORMATS)}, got {written.name!r}.")
    is_page = written.suffix.lower() == ".html"
    if (path / MARKER).exists():
        cohort = Cohort.load(path)
        looked_at = look_at(cohort)
        content = cohort_page(cohort, *looked_at).encode() if is_page else cohort_sheet(cohort, *looked_at)
        write_atomic(written, content)
        return None
    if path.is_dir():
        raise StorageError(f"{path} must be a radiograph or a cohort; this folder has no {MARKER}. Prepare it first.")
    course = follow(_bytes(path), _reader(recipe_of, weights), path.name)
    write_atomic(written, course_page(course).encode() if is_page else course_sheet(course))
    return course.refusal


def look_at(cohort: Cohort) -> tuple[LabelCheck | None, np.ndarray, Styles]:
    """What looks wrong in a cohort: how labels fit, which rows are worth a second look, and acquisition styles."""
    check = check_labels(cohort)
    rows = np.array([], int) if check is None else check.worst(NUM_LISTED, at_least=LEAST_DEVIATION)
    return check, rows, find_styles(cohort)


def course_page(course: Course) -> str:
    """The page about one file."""
    return (
        page.environment(TEMPLATES)
        .get_template("inspect_file.html")
        .render(
            course=course,
            measures=MEASURES,
            pictures=[page.embed(page.encoded(panel.picture)) for panel in course.panels],
        )
    )


def cohort_page(cohort: Cohort, check: LabelCheck | None, listed: np.ndarray, styles: Styles) -> str:
    """The page about a cohort; arguments from `look_at`."""
    is_open = ~cohort.cases["is_test"]
    groups = overview.groups(cohort)
    return (
        page.environment(TEMPLATES)
        .get_template("inspect_cohort.html")
        .render(
            cohort=cohort,
            name=Path(cohort.source).name,
            num_open=int(is_open.sum()),
            splits=overview.splits(cohort),
            sizes=overview.sizes(cohort),
            rejects=overview.problems(cohort, "rejected.csv"),
            notes=overview.problems(cohort, "notes.csv"),
            findings=overview.findings(cohort),
            bands=[(band, [_case(cohort, row) for row in band.rows]) for band in overview.bands(cohort)],
            check=check,
            listed=[_listed(cohort, check, row) for row in listed] if check else [],
            least_deviation=LEAST_DEVIATION,
            neighbours=NEIGHBOURS,
            groups=[(group, [_case(cohort, row) for row in group.rows[:8]]) for group in groups[: overview.MAX_GROUPS]],
            num_groups=len(groups),
            num_grouped=sum(len(group.rows) for group in groups),
            num_near=sum(group.reason != "same patient" for group in groups),
            styles=styles,
            typical=[[_case(cohort, row) for row in style.rows[:NUM_TYPICAL]] for style in styles.styles],
            statistics=STATISTICS,
            charts={
                "histogram": _chart(
                    "Histogram of bone age by sex", charts.draw_histogram, cohort.cases[is_open], size=(5.2, 3.0)
                ),
                "splits": _chart(
                    "Bone ages of folds and locked test", charts.draw_splits, overview.splits(cohort), size=(5.2, 3.0)
                ),
                "labels": _chart(
                    "Out-of-fold estimate against label",
                    charts.draw_label_check,
                    cohort.cases,
                    check,
                    listed,
                    size=(4.6, 4.4),
                )
                if check
                else None,
            },
        )
    )


def _reader(recipe_of: str | None, weights: Path | None) -> Reader:
    if recipe_of is None:
        return own_reader(weights)
    cohort = Cohort.load(recipe_of)
    return Reader(cohort.recipe, cohort.segmenter)


def _bytes(path: AnyPath) -> bytes:
    try:
        return read_limited(path)
    except FileNotFoundError:
        raise StorageError(f"There is no {path}. Name a radiograph, or a cohort.") from None


def _case(cohort: Cohort, row: int) -> dict[str, Any]:
    """A case as it is shown; without its label in the locked test."""
    case: dict[Any, Any] = cohort.cases.loc[row].to_dict()
    return {
        "src": page.embed(page.encoded(cohort.pixels[row, 0])),
        "case_id": case["case_id"],
        "sex": "boy" if case["is_male"] else "girl",
        "months": None if case["is_test"] else float(case["bone_age_months"]),
    }


def _listed(cohort: Cohort, check: LabelCheck, row: int) -> dict[str, Any]:
    return _case(cohort, row) | {
        "estimate": float(np.clip(check.estimate[row], 0, 240)),
        "usual": float(check.usual[row]),
        "deviation": float(check.deviation[row]),
    }


def _chart(alt: str, draw: Any, *values: Any, size: tuple[float, float]) -> str:
    figure = charts.empty(*size)
    draw(charts.plain(figure.add_subplot()), *values)
    return charts.svg(figure, alt)
