"""Drawings that the report and the page of a bundle show."""

from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from preprocessing.charts import ACCENT, FEMALE, draw_histogram, empty, legend, plain
from preprocessing.page import encoded


def bone_age_histogram(cases: pd.DataFrame) -> Figure:
    """Number of cases by year of bone age, girls and boys, the locked test in a lighter shade."""
    figure = empty(5.2, 3.0)
    draw_histogram(plain(figure.add_subplot()), cases)
    return figure


def distribution(answer: dict[str, Any], true_months: float | None) -> Figure:
    """The predicted distribution over bone age, with the estimate and, where known, the truth."""
    figure = empty(5.2, 3.0)
    axes = plain(figure.add_subplot())
    share = 100 * np.asarray(answer["distribution"], float)
    years = np.arange(len(share)) / 12
    axes.fill_between(years, share, color=ACCENT, alpha=0.22, linewidth=0)
    axes.plot(years, share, color=ACCENT, linewidth=1.6)
    axes.axvline(answer["bone_age_months"] / 12, color=ACCENT, linewidth=1.6, label="predicted")
    seen = years[share > share.max() / 200]
    marks = [answer["bone_age_months"] / 12]
    if true_months is not None:
        axes.axvline(true_months / 12, color=FEMALE, linewidth=1.6, linestyle="--", label="reference")
        marks.append(true_months / 12)
    left, right = max(0, np.floor(min([*marks, seen.min()]))), min(20, np.ceil(max([*marks, seen.max()])))
    axes.set(xlabel="bone age, years", ylabel="probability per month, %", xlim=(left, right))
    axes.set_ylim(0, 1.08 * share.max())
    axes.xaxis.get_major_locator().set_params(integer=True)
    legend(axes)
    return figure


def stretched(data: bytes) -> bytes | None:
    """A picture file in grey, its darkest and brightest hundredth saturated; None when it cannot be read."""
    if not data or (image := cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)) is None:
        return None
    low, high = np.percentile(image, [1, 99])
    bright = np.clip((image - low) * (255 / max(high - low, 1)), 0, 255)
    return encoded(np.rint(bright).astype(np.uint8))


def scale(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors on one scale that begins at 0: their place and the width of their interval, in percent of the whole.

    Args:
        rows: ``value`` and ``ci95``, which may be None, and whatever else a row shows.
    """
    top = 1.08 * max(row["ci95"][1] if row["ci95"] else row["value"] for row in rows)
    placed = []
    for row in rows:
        low, high = row["ci95"] or (row["value"], row["value"])
        place = {"left": 100 * low / top, "width": 100 * (high - low) / top, "dot": 100 * row["value"] / top}
        placed.append({"note": "", **row, **place})
    return placed
