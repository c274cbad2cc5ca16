"""The pictures of the report: each function returns the bytes of one PNG."""

import io
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, GREY, GRID = "#1c2430", "#6b7480", "#e3e6ea"
FEMALE, MALE, ACCENT = "#b3541e", "#1f5f8b", "#0f766e"
_SEXES = (("girls", False, FEMALE, "o"), ("boys", True, MALE, "^"))


def bone_age_histogram(cases: pd.DataFrame) -> bytes:
    """Number of cases by year of bone age, girls and boys, the locked test in a lighter shade."""
    figure, axes = _figure(5.2, 3.0)
    years = np.arange(0, 21)
    for offset, (label, is_male, colour, _) in zip((0.0, 0.44), _SEXES, strict=True):
        of_sex = cases[cases["is_male"] == is_male]
        counts = [
            np.histogram(of_sex.loc[of_sex["is_test"] == test, "bone_age_months"] / 12, years)[0]
            for test in (False, True)
        ]
        left = years[:-1] + 0.06 + offset
        axes.bar(left, counts[0], 0.42, align="edge", color=colour, label=label)
        axes.bar(left, counts[1], 0.42, counts[0], align="edge", color=colour, alpha=0.4)
    axes.bar(0, 0, color=GREY, alpha=0.4, label="lighter: locked test")
    axes.set(xlabel="bone age, years", ylabel="cases", xlim=(0, 20), xticks=range(0, 21, 2))
    axes.grid(axis="x", visible=False)
    _legend(axes)
    return _png(figure)


def agreement(cases: pd.DataFrame) -> bytes:
    """Predicted against reference bone age."""
    figure, axes = _figure(4.4, 4.2)
    axes.plot([0, 20], [0, 20], color=GREY, linewidth=1)
    axes.fill_between([0, 20], [-1, 19], [1, 21], color=GRID, alpha=0.6, linewidth=0, label="within 1 year")
    for label, is_male, colour, marker in _SEXES:
        of_sex = cases[cases["is_male"] == is_male]
        style = {"marker": marker, "alpha": 0.75, "linewidths": 0, "label": label}
        ages = of_sex[["bone_age_months", "predicted_months"]].to_numpy() / 12
        axes.scatter(ages[:, 0], ages[:, 1], _marker_size(len(cases)), colour, **style)
    axes.set(xlabel="reference bone age, years", ylabel="predicted bone age, years")
    axes.set(xlim=(0, 20), ylim=(0, 20), xticks=range(0, 21, 4), yticks=range(0, 21, 4), aspect="equal")
    _legend(axes)
    return _png(figure)


def bland_altman(cases: pd.DataFrame) -> bytes:
    """Difference against mean of prediction and reference, with bias and 95 % limits of agreement."""
    figure, axes = _figure(4.4, 4.2)
    difference = (cases["predicted_months"] - cases["bone_age_months"]).to_numpy()
    mean = ((cases["predicted_months"] + cases["bone_age_months"]) / 24).to_numpy()
    for label, is_male, colour, marker in _SEXES:
        of_sex = (cases["is_male"] == is_male).to_numpy()
        size = _marker_size(len(cases))
        axes.scatter(
            mean[of_sex], difference[of_sex], size, colour, marker=marker, alpha=0.75, linewidths=0, label=label
        )
    axes.axhline(0, color=GREY, linewidth=0.8)
    bias, low, high = limits_of_agreement(difference)
    reach = 1.15 * max(12.0, np.abs(difference).max(), abs(low), abs(high))
    for value, style in ((bias, "-"), (low, "--"), (high, "--")):
        axes.axhline(value, color=INK, linewidth=1, linestyle=style)
        text = f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
        axes.text(20.25, value, text, color=INK, fontsize=9, va="center", clip_on=False)
    axes.set(xlabel="mean of prediction and reference, years", ylabel="prediction \N{MINUS SIGN} reference, months")
    axes.set(xlim=(0, 20), ylim=(-reach, reach), xticks=range(0, 21, 4))
    _legend(axes)
    return _png(figure)


def limits_of_agreement(difference_C: np.ndarray) -> tuple[float, float, float]:
    """Mean difference and its 95 % limits of agreement (Bland and Altman, Lancet 1986)."""
    bias = float(difference_C.mean())
    reach = 1.96 * float(difference_C.std(ddof=1)) if len(difference_C) > 1 else 0.0
    return bias, bias - reach, bias + reach


def distribution(answer: dict[str, Any], true_months: float | None) -> bytes:
    """The predicted distribution over bone age, with the estimate and, where known, the truth."""
    figure, axes = _figure(5.2, 3.0)
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
    _legend(axes)
    return _png(figure)


def radiograph(pixels_HW: np.ndarray) -> bytes:
    """A standardised radiograph as it is, cut to where it is not padding."""
    rows, columns = np.flatnonzero(pixels_HW.any(axis=1)), np.flatnonzero(pixels_HW.any(axis=0))
    if len(rows) and len(columns):
        pixels_HW = pixels_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cv2.imencode(".png", np.ascontiguousarray(pixels_HW))[1].tobytes()


def stretched(data: bytes) -> bytes | None:
    """A picture file in grey, its darkest and brightest hundredth saturated; None when it cannot be read."""
    if not data or (image := cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)) is None:
        return None
    low, high = np.percentile(image, [1, 99])
    bright = np.clip((image - low) * (255 / max(high - low, 1)), 0, 255)
    return cv2.imencode(".png", np.rint(bright).astype(np.uint8))[1].tobytes()


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    """An empty drawing, `width` by `height` inches, made without pyplot: no global state, no window."""
    figure = Figure((width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9, length=3, color=GREY)
    axes.xaxis.label.set(color=INK, fontsize=9.5)
    axes.yaxis.label.set(color=INK, fontsize=9.5)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Any) -> None:
    """Above the axes, where it hides no data."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=3,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.4,
    )


def _marker_size(num_cases: int) -> float:
    return float(np.clip(4000 / num_cases, 6, 28))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
