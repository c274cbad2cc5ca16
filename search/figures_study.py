"""Drawings of a study's trials: how they learnt, what was searched, how they differ, what they cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from preprocessing.charts import ACCENT, FEMALE, GREY, INK, MALE, PAPER, empty, legend, plain
from search.figures import shade

_STATES = (
    ("stopped", {"color": GREY, "linewidth": 0.9, "alpha": 0.6, "linestyle": "--"}),
    ("failed", {"color": FEMALE, "linewidth": 1.2, "linestyle": ":"}),
    ("running", {"color": MALE, "linewidth": 1.2}),
    ("complete", {"color": ACCENT, "linewidth": 1.2, "alpha": 0.75}),
)
"""How a trial's line looks, later ones on top: by colour and by stroke."""
MAX_AXES = 10
"""Settings in the parallel coordinates."""


def learning_curves(curves: pd.DataFrame, states: Mapping[int, str], best: int | None, num_folds: int) -> Figure:
    """Error against image passes, one panel a fold, one line a trial; the best complete trial is thick."""
    columns = min(num_folds, 5)
    rows = -(-num_folds // columns)
    figure = empty(max(4.6, 3.3 * columns), 2.9 * rows + 0.3)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[num_folds:]:
        axes.axis("off")
    for fold, axes in enumerate(grid.flat[:num_folds]):
        plain(axes).set_title(f"fold {fold + 1}", loc="left", fontsize=9.5, color=INK)
        of_fold = curves[curves["fold"] == fold]
        for state, style in _STATES:
            for number in of_fold["number"].unique():
                if states[number] == state and number != best:
                    _line(axes, of_fold[of_fold["number"] == number], style)
        _line(axes, of_fold[of_fold["number"] == best], {"color": ACCENT, "linewidth": 2.6})
        axes.set_xlabel("image passes, thousands")
    for axes in grid[:, 0]:
        axes.set_ylabel("MAE, months")
    if len(curves):
        top = np.percentile(curves["mae_months"], 95)
        grid.flat[0].set_ylim(0.9 * curves["mae_months"].min(), max(1.05 * top, 1.0))
    for state, style in _STATES:
        if state in states.values():
            grid.flat[0].plot([], [], label=state, **style)
    if best is not None:
        grid.flat[0].plot([], [], color=ACCENT, linewidth=2.6, label=f"best, trial {best}")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=5, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def importance(shares: Mapping[str, float]) -> Figure:
    """Importance of each setting, largest on top."""
    names = list(shares)[:15]
    figure = empty(5.4, 0.9 + 0.3 * len(names))
    axes = plain(figure.add_subplot())
    axes.barh(range(len(names)), [shares[name] for name in names], 0.62, color=ACCENT)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="share of importance", ylim=(len(names) - 0.4, -0.6), xlim=(0, 1))
    axes.grid(axis="y", visible=False)
    return figure


def parallel_coordinates(
    configs: Mapping[int, dict[str, Any]], maes: Mapping[int, float], names: Sequence[str]
) -> Figure:
    """Each trial with all its folds as a line over the settings it has, ending at its error; the best are strongest.

    Args:
        configs: Settings by trial number.
        maes: Error by number of the complete trials; the others are drawn faintly, up to their last setting.
        names: Settings to show, each with an axis of its own.
    """
    names = list(names)[:MAX_AXES]
    figure = empty(max(6.5, 1.25 * (len(names) + 1)), 4.2)
    axes = plain(figure.add_subplot())
    scales = {name: _scale([configs[number].get(name) for number in configs]) for name in names}
    low, high = min(maes.values()), max(maes.values())
    order = sorted(maes, key=lambda number: maes[number])
    for number in configs:
        heights = [scales[name][0](configs[number].get(name)) for name in names]
        if number not in maes:
            axes.plot(range(len(names)), heights, color=GREY, linewidth=0.7, alpha=0.35)
            continue
        rank = order.index(number) / max(1, len(order) - 1)
        heights.append((maes[number] - low) / (high - low) if high > low else 0.5)
        style = {"color": ACCENT, "alpha": 0.95 - 0.7 * rank, "linewidth": 2.4 - 1.4 * rank}
        axes.plot(range(len(names) + 1), heights, zorder=3 - rank, **style)
    for place, name in enumerate(names):
        axes.axvline(place, color=GREY, linewidth=0.8)
        for height, text in scales[name][1]:
            box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.85}
            axes.text(place + 0.05, height, text, fontsize=8, color=INK, va="center", zorder=5, bbox=box)
    axes.axvline(len(names), color=INK, linewidth=1.2)
    for height, value in {0.0: low, 1.0: high}.items():
        axes.text(len(names) + 0.04, height, f"{value:.1f}", fontsize=8, color=INK, va="center")
    labels = [name.replace("_", "\n") for name in [*names, "MAE_months"]]
    axes.set_xticks(range(len(names) + 1), labels)
    axes.set(xlim=(-0.1, len(names) + 0.45), ylim=(-0.06, 1.06), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(visible=False)
    return figure


def correlations(matrix: pd.DataFrame) -> Figure:
    """Heat map of the correlation of errors between trials; an empty cell is 0.5 or less."""
    size = len(matrix)
    figure = empty(1.4 + 0.36 * size, 1.2 + 0.36 * size)
    axes = plain(figure.add_subplot())
    values = matrix.to_numpy()
    texts = [[f"{value:.2f}".lstrip("0") if row != column else "" for column, value in enumerate(line)]
             for row, line in enumerate(values)]  # fmt: skip
    shade(axes, np.clip(2 * values - 1, 0, 1) * (1 - np.eye(size)), texts, size=7.5)
    axes.set_xticks(range(size), matrix.columns)
    axes.set_yticks(range(size), matrix.index)
    axes.set(xlabel="trial, best first", ylabel="trial")
    return figure


def passes(account: pd.DataFrame) -> Figure:
    """What was spent on which trials, and what full cross-validation of the same configurations would have added.

    Args:
        account: From `search.passes.account`. What was saved is the sum over all trials, short trainings taken off; a
            search that saved nothing has no such part.
    """
    figure = empty(7.6, 1.5)
    axes = plain(figure.add_subplot())
    left = 0.0
    spent = account.groupby("state")["spent"].sum() / 1000
    parts = [(f"on {state} trials", spent.get(state, 0.0), colour, 1.0) for state, colour in
             (("complete", ACCENT), ("running", MALE), ("stopped", GREY), ("failed", FEMALE))]  # fmt: skip
    parts.append(("saved", max(0.0, account["saved"].sum() / 1000), GREY, 0.22))
    for label, value, colour, alpha in parts:
        if value:
            words = f"{label}: {value:,.{0 if value >= 100 else 1 if value >= 1 else 2}f}"
            axes.barh(0, value, 0.6, left, color=colour, alpha=alpha, label=words)
        left += value
    axes.set(xlabel="image passes, thousands", yticks=[], xlim=(0, max(left, 1)), ylim=(-0.4, 0.4))
    axes.spines["left"].set_visible(False)
    legend(axes)
    return figure


def _line(axes: Any, line: pd.DataFrame, style: dict[str, Any]) -> None:
    axes.plot(line["images_seen"] / 1000, line["mae_months"], marker=".", markersize=3, **style)


def _scale(values: Sequence[Any]) -> tuple[Any, list[tuple[float, str]]]:
    """A function from a setting's value to 0..1, and what is written along its axis; logarithmic over a wide range."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values) or len(set(numbers)) < 2:
        kinds = sorted({str(value) for value in values})
        place = {kind: (index + 0.5) / len(kinds) for index, kind in enumerate(kinds)}
        return lambda value: place[str(value)], [(height, kind) for kind, height in place.items()]
    low, high = min(numbers), max(numbers)
    if low > 0 and high / low > 5:
        return lambda value: float(np.log(value / low) / np.log(high / low)), [
            (0.0, f"{low:.3g}"),
            (1.0, f"{high:.3g}"),
        ]
    return lambda value: float((value - low) / (high - low)), [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]
