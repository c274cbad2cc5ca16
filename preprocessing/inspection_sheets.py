"""The same as the pages of `preprocessing.inspection`, in short, on one picture."""

import textwrap
from typing import Any

import numpy as np

from preprocessing import charts, overview
from preprocessing.acquisition import Styles
from preprocessing.charts import GREY, INK, WARM
from preprocessing.cohort import Cohort
from preprocessing.outliers import LabelCheck
from preprocessing.steps import MEASURES, Course

_COLUMNS = 4
"""Steps in a row."""
_STRIP = 12
"""Pictures in a strip of the overview."""


def course_sheet(course: Course) -> bytes:
    """Every step of one file side by side, with its scores below."""
    rows = -(-len(course.panels) // _COLUMNS)
    figure = charts.empty(13, 3.9 * rows + 4.4, dpi=110)
    parts = figure.subfigures(2 if rows else 1, 1, height_ratios=[3.9 * rows, 4.4] if rows else [1], squeeze=False)
    if rows:
        grid = parts[0, 0].subplots(rows, _COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for number, (axes, panel) in enumerate(zip(grid.flat, course.panels, strict=False), 1):
            axes.imshow(panel.picture, interpolation="antialiased")
            axes.set_anchor("NW")
            axes.set_title(f"{number}. {panel.title}\n", loc="left", fontsize=11, color=INK, fontweight="bold")
            axes.text(0, 1.015, panel.note, transform=axes.transAxes, fontsize=8.5, color=GREY, va="bottom")
    left, right = parts[-1, 0].subplots(1, 2, width_ratios=[1, 1.25])
    _write(left, _words(course))
    _scores(right, course)
    return charts.png(figure)


def cohort_sheet(cohort: Cohort, check: LabelCheck | None, listed: np.ndarray, styles: Styles) -> bytes:
    """The overview figure; arguments from `preprocessing.inspection.look_at`."""
    bands = overview.bands(cohort)
    strips = [(f"{band.name}, {band.cases:,} cases", list(band.rows)) for band in bands]
    marked = [("labels worth a second look", listed.tolist())] if len(listed) else []
    kinds = [
        (f"acquisition style {number}, {len(style.rows):,} cases", style.rows[:_STRIP].tolist())
        for number, style in enumerate(styles.styles, 1)
        if len(styles.styles) > 1
    ]
    lines = -(-len(strips) // 2) + len(marked) + len(kinds)
    figure: Any = charts.empty(13, 4.4 + 1.3 * lines, dpi=110)
    top, below = figure.subfigures(2, 1, height_ratios=[4.4, max(1.3 * lines, 0.1)])
    left, middle, right, words = top.subplots(1, 4, width_ratios=[1.25, 1, 1.1, 0.9])
    charts.draw_histogram(charts.plain(left), cohort.cases[~cohort.cases["is_test"]])
    charts.draw_splits(charts.plain(middle), overview.splits(cohort))
    if check is not None:
        charts.draw_label_check(charts.plain(right), cohort.cases, check, listed)
    else:
        _write(right, [("labels were not checked", GREY), ("too few cases", GREY)])
    _write(words, _summary(cohort))
    pairs = [strips[i : i + 2] for i in range(0, len(strips), 2)]
    grid = below.add_gridspec(max(lines, 1), 2)
    for line, pair in enumerate(pairs):
        for column, strip in enumerate(pair):
            _strip(below.add_subplot(grid[line, column]), cohort, *strip, 2 * overview.EXAMPLES)
    for line, strip in enumerate(marked + kinds, len(pairs)):
        axes = below.add_subplot(grid[line, :])
        _strip(axes, cohort, *strip, _STRIP)
        if strip in marked:
            _caption(axes, cohort, listed)
    return charts.png(figure)


def _strip(axes: Any, cohort: Cohort, title: str, rows: list[int], columns: int) -> None:
    pictures: list[np.ndarray] = [cohort.pixels[row, 0] for row in rows[:columns]]
    pictures += [np.full_like(cohort.pixels[0, 0], 255)] * (columns - len(pictures))
    axes.imshow(overview.montage(pictures, columns), cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)


def _caption(axes: Any, cohort: Cohort, rows: np.ndarray) -> None:
    """Case and label below each picture of a strip."""
    side = cohort.recipe.size
    for place, row in enumerate(rows[:_STRIP]):
        case = cohort.cases.loc[row]
        text = f"{str(case['case_id'])[:10]}: {case['bone_age_months'] / 12:.1f} y"
        axes.text(place * (side + overview.GAP_PX), side * 1.03, text, fontsize=7.5, color=GREY, va="top")


def _words(course: Course) -> list[tuple[str, str]]:
    lines = [(f"{name}: {value}", INK) for name, value in course.facts]
    if course.refusal:
        lines += [("", INK), (f"refused: {course.refusal.code}. {course.refusal}", WARM)]
    for finding in course.findings:
        if finding.action != "refused":
            lines += [("", INK), (f"{finding.action}: {finding.code}. {finding.message}", INK)]
    if not course.findings and not course.refusal:
        lines += [("", INK), ("nothing found", INK)]
    return [*lines, ("", INK), (f"recipe {course.recipe.hash[:12]}, {course.recipe.size} pixels", GREY)]


def _summary(cohort: Cohort) -> list[tuple[str, str]]:
    lines = [(f"{len(cohort.cases):,} cases, {cohort.recipe.size} pixels", INK)]
    lines += [(f"views: {', '.join(cohort.recipe.views)}", INK), ("", INK), ("rejected", GREY)]
    lines += [(f"{count.cases:,} {count.name}", INK) for count in overview.problems(cohort, "rejected.csv")] or [
        ("none", INK)
    ]
    lines += [("", INK), ("findings", GREY)]
    found = [(f"{count.cases:,} {count.name}, {count.action}", INK) for count in overview.findings(cohort)]
    return [*lines, *(found or [("none", INK)])]


def _write(axes: Any, lines: list[tuple[str, str]]) -> None:
    """Lines of text with their colours, one below the other."""
    axes.axis("off")
    place = 1.0
    for text, colour in lines:
        for line in textwrap.wrap(text, 62) or [""]:
            axes.text(0, place, line, transform=axes.transAxes, fontsize=9, color=colour, va="top")
            place -= 0.052


def _scores(axes: Any, course: Course) -> None:
    axes.axis("off")
    cells = [
        [
            score.check.code,
            MEASURES[score.check.code],
            "" if score.value is None else f"{score.value:.2f}" if score.value < 100 else f"{score.value:,.0f}",
            f"{'at least' if score.check.is_low else 'at most'} {score.threshold:g}",
            score.outcome,
        ]
        for score in course.scores
    ]
    table = axes.table(
        cells,
        colLabels=["check", "what it measures", "score", "passes", "outcome"],
        colWidths=[0.14, 0.46, 0.1, 0.16, 0.14],
        cellLoc="left",
        colLoc="left",
        edges="horizontal",
        bbox=[0, 0, 1, 1],
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8.5)
    for (row, _), cell in table.get_celld().items():
        cell.set_edgecolor(GREY)
        cell.set_linewidth(0.4)
        outcome = "" if row == 0 else cells[row - 1][-1]
        colour = WARM if outcome in ("refused", "beyond") else GREY if outcome in ("passed", "not made") else INK
        cell.get_text().set_color(INK if row == 0 else colour)
