"""Acquisition styles: which radiographs of a cohort look as if they came from different machines.

Simple statistics of the grey levels are clustered (k-means++, Arthur and Vassilvitskii, SODA 2007). Labels play no part
in it; whether sex or bone age differ between the clusters is asked afterwards, outside the locked test.

Shape letters: N cases, K statistics, S side.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from preprocessing.cohort import Cohort

STATISTICS = {
    "background": "tenth percentile of the grey levels",
    "border": "median of the outermost twentieth",
    "middle": "median of the picture",
    "span": "tenth to ninetieth percentile",
    "grain": "median difference between neighbouring pixels",
}
"""Of each prepared picture, padding left out, on the scale 0 to 255."""
MAX_STYLES = 5
MIN_SILHOUETTE = 0.5
"""Below it the cohort is called of one style: one normal cloud, cut in two, reaches 0.4 (simplified silhouette)."""
MIN_SHARE = 0.02
"""Smaller clusters are a handful of odd pictures, no style."""
_STARTS, _ROUNDS = 8, 60


@dataclass(frozen=True)
class Style:
    """One cluster."""

    rows: np.ndarray
    """Row numbers of its cases, the most typical first."""
    statistics: dict[str, float]
    """Medians of `STATISTICS`."""
    num_open: int
    """Cases outside the locked test, of which the rest is said."""
    share_girls: float
    girls_apart: tuple[float, float, float]
    """Share of girls minus that of all other cases, with its 95 % interval."""
    median_months: float
    months_apart: tuple[float, float, float]
    """Mean bone age minus that of all other cases of the same sex, with its 95 % interval."""

    @property
    def differs(self) -> bool:
        """Whether an interval leaves out 0."""
        return any(low > 0 or high < 0 for _, low, high in (self.girls_apart, self.months_apart))


@dataclass(frozen=True)
class Styles:
    """All clusters, the largest first; one where the pictures are of one kind."""

    styles: tuple[Style, ...]
    silhouette: float
    """How far apart the best division lies, 0 to 1, whether or not it was taken."""

    @property
    def differing(self) -> list[int]:
        """Numbers, from 1, of those whose sex or bone age differs."""
        return [number for number, style in enumerate(self.styles, 1) if style.differs]


def find_styles(cohort: Cohort, *, seed: int = 0) -> Styles:
    """Cluster the pictures of a cohort's first view."""
    pixels_NSS = cohort.view(cohort.recipe.views[0])
    statistics = np.array([measure_style(image_SS) for image_SS in pixels_NSS])
    low, middle, high = np.percentile(statistics, (5, 50, 95), axis=0)
    points = np.clip((statistics - middle) / np.maximum((high - low) / 3.3, 1.0), -4, 4)
    label, centres, silhouette = _divide(points, seed)
    styles = []
    for number in np.argsort(-np.bincount(label), kind="stable"):
        rows = np.flatnonzero(label == number)
        typical = np.argsort(((points[rows] - centres[number]) ** 2).sum(1), kind="stable")
        styles.append(_describe(cohort.cases, rows[typical], statistics))
    return Styles(tuple(styles), silhouette)


def measure_style(image_SS: np.ndarray) -> list[float]:
    """The `STATISTICS` of one ``(S, S)`` uint8 picture."""
    inside = image_SS
    rows, columns = np.flatnonzero(image_SS.any(axis=1)), np.flatnonzero(image_SS.any(axis=0))
    if len(rows) > 8 and len(columns) > 8:
        inside = image_SS[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = inside.astype(np.float32)
    width = max(2, round(0.05 * min(image.shape)))
    ring = np.ones(image.shape, bool)
    ring[width:-width, width:-width] = False
    low, middle, high = np.percentile(image, (10, 50, 90))
    grain = float(np.median(np.abs(cv2.Laplacian(image, cv2.CV_32F))))
    return [float(low), float(np.median(image[ring])), float(middle), float(high - low), grain]


def _divide(points_NK: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels, centres and silhouette of the best division; one cluster where none is good."""
    whole = np.zeros(len(points_NK), int), points_NK.mean(0, keepdims=True)
    best, best_silhouette = whole, 0.0
    rng = np.random.default_rng(seed)
    least = max(4, MIN_SHARE * len(points_NK))
    for count in range(2, MAX_STYLES + 1):
        if len(np.unique(points_NK, axis=0)) < 4 * count:
            break
        label, centres = _k_means(points_NK, count, rng)
        if np.bincount(label, minlength=count).min() < least:
            continue
        distance = np.sqrt(((points_NK[:, None] - centres) ** 2).sum(2))
        own, other = np.sort(distance, axis=1)[:, :2].T
        silhouette = float(np.mean((other - own) / np.maximum(other, 1e-9)))
        if silhouette > best_silhouette:
            best, best_silhouette = (label, centres), silhouette
    return (*(best if best_silhouette >= MIN_SILHOUETTE else whole), best_silhouette)


def _k_means(points_NK: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    found: tuple[float, np.ndarray, np.ndarray] | None = None
    for _ in range(_STARTS):
        centres = points_NK[[rng.integers(len(points_NK))]]
        while len(centres) < count:
            nearest = ((points_NK[:, None] - centres) ** 2).sum(2).min(1)
            centres = np.vstack([centres, points_NK[rng.choice(len(points_NK), p=nearest / nearest.sum())]])
        for _ in range(_ROUNDS):
            distance = ((points_NK[:, None] - centres) ** 2).sum(2)
            label = distance.argmin(1)
            moved = np.array(
                [points_NK[label == k].mean(0) if (label == k).any() else centres[k] for k in range(count)]
            )
            if np.allclose(moved, centres):
                break
            centres = moved
        total = float(((points_NK - centres[label]) ** 2).sum())
        if found is None or total < found[0]:
            found = total, label, centres
    assert found is not None
    return found[1], found[2]


def _describe(cases: pd.DataFrame, rows: np.ndarray, statistics_NK: np.ndarray) -> Style:
    is_open = ~cases["is_test"].to_numpy()
    inside = np.zeros(len(cases), bool)
    inside[rows] = True
    male = cases["is_male"].to_numpy(float)
    # The sex is taken out of the ages first, so that more boys do not look like older children.
    months = cases["bone_age_months"].to_numpy(float)
    within = months - np.where(male > 0, _mean(months[is_open & (male > 0)]), _mean(months[is_open & (male == 0)]))
    here, there = inside & is_open, ~inside & is_open
    return Style(
        rows=rows,
        statistics=dict(zip(STATISTICS, np.median(statistics_NK[rows], axis=0).tolist(), strict=True)),
        num_open=int(here.sum()),
        share_girls=_mean(1 - male[here]),
        girls_apart=_difference(1 - male[here], 1 - male[there]),
        median_months=float(np.median(months[here])) if here.any() else float("nan"),
        months_apart=_difference(within[here], within[there]),
    )


def _difference(here: np.ndarray, there: np.ndarray) -> tuple[float, float, float]:
    """Difference of the means with its 95 % interval (Welch, normal approximation); NaN where there is none."""
    if len(here) < 2 or len(there) < 2:
        return float("nan"), float("nan"), float("nan")
    apart = float(here.mean() - there.mean())
    reach = 1.96 * float(np.sqrt(here.var(ddof=1) / len(here) + there.var(ddof=1) / len(there)))
    return apart, apart - reach, apart + reach


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
