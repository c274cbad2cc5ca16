"""What all drawings of figures share: colours, empty axes, PNG and SVG; and the charts of a cohort."""

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from preprocessing.outliers import LabelCheck
from preprocessing.overview import BAND_MONTHS, Split

INK, GREY, GRID, PAPER = "#1c2430", "#6b7480", "#e3e6ea", "#ffffff"
FEMALE, MALE, ACCENT, WARM = "#b3541e", "#1f5f8b", "#0f766e", "#b3541e"
SEXES = (("girls", False, FEMALE, "o"), ("boys", True, MALE, "^"))
DPI = 200
MANY = 2000
"""Points of a scatter that are drawn one by one; more of them become a picture inside the drawing."""
_VARIABLES = {
    INK: "var(--ink)",
    GREY: "var(--grey)",
    GRID: "var(--line)",
    FEMALE: "var(--warm)",
    MALE: "var(--cool)",
    ACCENT: "var(--accent)",
    PAPER: "var(--paper)",
}
"""What each colour is called in the style sheet of ``page.html``."""


def empty(width: float, height: float, *, dpi: int = DPI) -> Figure:
    """An empty drawing, `width` by `height` inches, made without pyplot: no global state, no window."""
    figure = Figure((width, height), dpi=dpi, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(w_pad=0.08, h_pad=0.08)
    return figure


def plain(axes: Any) -> Any:
    """Axes without a box, with a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9, length=3, color=GREY)
    axes.xaxis.label.set(color=INK, fontsize=9.5)
    axes.yaxis.label.set(color=INK, fontsize=9.5)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def legend(axes: Any) -> None:
    """Above the axes, where it hides no data."""
    drawn = axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=3,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.4,
    )
    for handle in drawn.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([36])  # as large as the eye needs, however many cases there are


def png(figure: Figure) -> bytes:
    """The bytes of the drawing, the same every time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, alt: str) -> Markup:
    """The drawing as part of a page, in the colours of its style sheet, so that it follows light and dark.

    Its text stays text in the page's own font. To a screen reader it is one picture.

    Args:
        figure: From `empty`.
        alt: What there is to see, for those who do not see it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "carpal"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    name = "c" + hashlib.sha256(drawing.encode()).hexdigest()[:8]  # ids of two drawings on one page must differ
    drawing = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", drawing)
    drawing = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", drawing)
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, variable)
    view = re.search(r'viewBox="[^"]+"', drawing)
    assert view is not None
    head = f'<svg class="chart" {view.group()} role="img" aria-label="{escape(alt)}">'
    return Markup(head + drawing[drawing.index(">") + 1 :])


def draw_histogram(axes: Any, cases: pd.DataFrame) -> None:
    """Number of cases by band of bone age, girls beside boys; the locked test, where it is among them, lighter."""
    top = max(20, int(np.ceil(cases["bone_age_months"].max() / 24)) * 2) if len(cases) else 20
    years = np.arange(0, top + 1)
    for offset, (label, is_male, colour, _) in zip((0.0, 0.44), SEXES, strict=True):
        of_sex = cases[cases["is_male"] == is_male]
        left, below = years[:-1] + 0.06 + offset, np.zeros(top, int)
        for is_test, style in ((False, {"label": f"{len(of_sex):,} {label}"}), (True, {"alpha": 0.4})):
            counts = np.histogram(of_sex.loc[of_sex["is_test"] == is_test, "bone_age_months"] / 12, years)[0]
            axes.bar(left, counts, 0.42, below, align="edge", color=colour, **style)
            below = counts
    if cases["is_test"].any():
        axes.bar(0, 0, color=GREY, alpha=0.4, label="lighter: locked test")
    axes.set(xlabel="bone age, years", ylabel="cases", xlim=(0, top), xticks=range(0, top + 1, BAND_MONTHS // 12))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", visible=False)
    legend(axes)


def draw_splits(axes: Any, splits: Sequence[Split]) -> None:
    """Middle half and median of the bone ages of each fold and of the locked test; all should look alike."""
    for place, split in enumerate(splits):
        low, middle, high = (months / 12 for months in split.quartiles)
        axes.plot([low, high], [place, place], color=ACCENT, linewidth=7, alpha=0.3, solid_capstyle="butt")
        axes.plot([middle], [place], "o", color=ACCENT, markersize=6)
    axes.set(xlabel="bone age, years: median and middle half", ylim=(len(splits) - 0.5, -0.5))
    labels = [f"{split.name}\n{split.girls} girls, {split.boys} boys" for split in splits]
    axes.set_yticks(range(len(splits)), labels)
    axes.grid(axis="y", visible=False)


def draw_label_check(axes: Any, cases: pd.DataFrame, check: LabelCheck, marked: np.ndarray) -> None:
    """Out-of-fold estimate against label; the cases of the list are ringed."""
    is_known = np.isfinite(check.estimate)
    size = float(np.clip(4000 / max(1, is_known.sum()), 3, 24))
    months, guess = cases["bone_age_months"].to_numpy(float) / 12, np.clip(check.estimate, 0, 240) / 12
    for label, is_male, colour, marker in SEXES:
        rows = is_known & (cases["is_male"] == is_male).to_numpy()
        axes.scatter(
            months[rows],
            guess[rows],
            size,
            colour,
            marker=marker,
            alpha=0.6,
            linewidths=0,
            label=label,
            rasterized=len(cases) > MANY,
        )
    if len(marked):
        style = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.1, "label": "listed"}
        axes.scatter(months[marked], guess[marked], 60, **style)
    axes.set(xlabel="label, years", ylabel="estimate from other folds, years")
    axes.set(xlim=(0, 20), ylim=(0, 20), xticks=range(0, 21, 4), yticks=range(0, 21, 4))
    legend(axes)
