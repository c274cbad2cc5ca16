"""Drawings of predictions against references; whoever shows them turns them into SVG or PNG."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from preprocessing.charts import ACCENT, FEMALE, GREY, INK, MALE, MANY, PAPER, SEXES, empty, legend, plain
from preprocessing.page import MINUS, signed
from search.metrics import by_year, limits_of_agreement


def agreement(cases: pd.DataFrame) -> Figure:
    """Predicted against reference bone age.

    Args:
        cases: is_male, bone_age_months, predicted_months.
    """
    figure = empty(4.4, 4.2)
    axes = plain(figure.add_subplot())
    axes.plot([0, 20], [0, 20], color=GREY, linewidth=1)
    axes.fill_between([0, 20], [-1, 19], [1, 21], color=GREY, alpha=0.18, linewidth=0, label="within 1 year")
    ages = cases[["bone_age_months", "predicted_months"]].to_numpy() / 12
    _scatter(axes, ages[:, 0], ages[:, 1], cases["is_male"].to_numpy(bool))
    axes.set(xlabel="reference bone age, years", ylabel="predicted bone age, years")
    axes.set(xlim=(0, 20), ylim=(0, 20), xticks=range(0, 21, 4), yticks=range(0, 21, 4), aspect="equal")
    legend(axes)
    return figure


def bland_altman(cases: pd.DataFrame) -> Figure:
    """Difference against mean of prediction and reference, with bias and 95 % limits of agreement."""
    figure = empty(4.4, 4.2)
    axes = plain(figure.add_subplot())
    difference = (cases["predicted_months"] - cases["bone_age_months"]).to_numpy()
    mean = ((cases["predicted_months"] + cases["bone_age_months"]) / 24).to_numpy()
    _scatter(axes, mean, difference, cases["is_male"].to_numpy(bool))
    axes.axhline(0, color=GREY, linewidth=0.8)
    bias, low, high = limits_of_agreement(difference)
    reach = 1.15 * max(12.0, np.abs(difference).max(), abs(low), abs(high))
    for value, style in ((bias, "-"), (low, "--"), (high, "--")):
        axes.axhline(value, color=INK, linewidth=1, linestyle=style)
        axes.text(20.25, value, signed(value), color=INK, fontsize=9, va="center", clip_on=False)
    axes.set(xlabel="mean of prediction and reference, years", ylabel=f"prediction {MINUS} reference, months")
    axes.set(xlim=(0, 20), ylim=(-reach, reach), xticks=range(0, 21, 4))
    legend(axes)
    return figure


def errors_by_group(groups: Sequence[dict[str, Any]]) -> Figure:
    """MAE of each sex and bone-age band with its interval, hollow without; `groups` as of `search.metrics.groups`."""
    figure = empty(5.4, 3.2)
    axes = plain(figure.add_subplot())
    bands = sorted({tuple(group["bone_age_years"]) for group in groups})
    for offset, (label, colour, marker, sex) in (
        (-0.1, ("girls", FEMALE, "o", "female")),
        (0.1, ("boys", MALE, "^", "male")),
    ):
        of_sex = [group for group in groups if group["sex"] == sex]
        for group in of_sex:
            place = bands.index(tuple(group["bone_age_years"])) + offset
            if group["mae_ci95"]:
                axes.plot([place, place], group["mae_ci95"], color=colour, linewidth=2, alpha=0.45)
            fill = colour if group["mae_ci95"] else PAPER
            axes.plot([place], [group["mae_months"]], marker, color=colour, mfc=fill, markersize=6, label=label)
            label = "_nolegend_"
    axes.set_xticks(range(len(bands)), [f"{low} to {high}" for low, high in bands])
    axes.set(xlabel="bone age, years", ylabel="MAE, months", xlim=(-0.5, len(bands) - 0.5))
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
    legend(axes)
    return figure


def confusion_matrix(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases by year of the reference (rows) and the most probable year of the predicted distribution (columns)."""
    predicted = by_year(np.stack(cases["distribution"].to_list())).argmax(axis=1)
    actual = (cases["bone_age_months"].to_numpy() // 12).astype(int)
    matrix = np.zeros((20, 20), int)
    np.add.at(matrix, (actual, predicted), 1)
    last = int(max(actual.max(), predicted.max())) + 1
    years = range(last)
    return pd.DataFrame(matrix[:last, :last], index=pd.Index(years, name="reference_year"), columns=list(years))


def confusion(matrix: pd.DataFrame) -> Figure:
    """The confusion matrix over years, shaded by the share of each row."""
    counts = matrix.to_numpy()
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure = empty(5.4, 5.0)
    axes = plain(figure.add_subplot())
    shade(axes, share, [[str(count or "") for count in row] for row in counts], size=7)
    step = range(0, len(counts), 2)
    axes.set(xlabel="most probable year of the prediction", ylabel="year of the reference", xticks=step, yticks=step)
    return figure


def shade(axes: Any, strength: np.ndarray, texts: Sequence[Sequence[str]], *, size: float) -> None:
    """Cells in one colour, stronger where `strength` (0..1) is, each with its text; readable on light and dark."""
    for row, column in np.ndindex(*strength.shape):
        alpha = float(0.6 * strength[row, column])
        if alpha > 0:
            axes.bar(column, 1, 1, row - 0.5, color=ACCENT, alpha=alpha, linewidth=0)
        if texts[row][column]:
            axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=size, color=INK)
    axes.set(xlim=(-0.5, strength.shape[1] - 0.5), ylim=(strength.shape[0] - 0.5, -0.5), aspect="equal")
    axes.grid(visible=False)


def _scatter(axes: Any, x: np.ndarray, y: np.ndarray, is_male: np.ndarray) -> None:
    size = float(np.clip(4000 / max(1, len(x)), 4, 28))
    for label, male, colour, marker in SEXES:
        chosen = is_male == male
        axes.scatter(
            x[chosen], y[chosen], size, colour, marker=marker, alpha=0.7, linewidths=0, label=label,
            rasterized=len(x) > MANY,
        )  # fmt: skip
