"""Which bone ages do not fit their pictures: a list of what is worth a second look.

A ridge regression on gradient histograms (Dalal and Triggs, CVPR 2005) estimates each case from the cases of the other
folds. It shrinks towards the middle, as every regression does, so a case is not held against its own label but against
cases of its sex whose labels are like its own. The locked test is left out on both sides.

It finds gross faults, and not all: of 20 labels of 952 (RSNA, long side 384 pixels, crop view at 128) moved by
seven years, a third stood among the first 20 (2026-11, three draws: 4, 9, 8); of those moved by five years, a fifth.

Shape letters: N cases, S side, F features.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from preprocessing.cohort import Cohort

CELLS, DIRECTIONS = 16, 6
"""Of the gradient histograms: cells along each side, and bins of direction over half a turn."""
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of the ridge, in shares of the number of features; the one with the least out-of-fold error counts."""
MIN_CASES = 40
"""Fewer cases outside the locked test teach too little to call a label unusual."""
NEIGHBOURS = 60
"""Cases with the nearest labels, of the same sex, that say what is usual."""
LEAST_DEVIATION = 3.0
"""Standard deviations from what is usual at which a label is worth a second look; a normal spread has 1 in 370."""
LEAST_SCATTER_MONTHS = 3.0
"""Of the usual; labels are whole months and rarely better than half a year."""


@dataclass(frozen=True)
class LabelCheck:
    """How each label fits its picture."""

    estimate: np.ndarray
    """``(N,)`` float64 months, out of fold; NaN in the locked test."""
    usual: np.ndarray
    """``(N,)`` float64 months that pictures with such a label usually get; NaN in the locked test."""
    deviation: np.ndarray
    """``(N,)`` float64, estimate minus the usual one, in standard deviations of it; NaN in the locked test."""
    mae_months: float
    """Of the estimates; what the method itself is off by."""
    median_mae_months: float
    """Of saying the median to all, for comparison."""
    view: str
    """Whose pictures were read."""

    def worst(self, number: int, *, at_least: float = 0.0) -> np.ndarray:
        """Row numbers of the largest deviations, the largest first: `number` of them, none below `at_least`."""
        size = np.nan_to_num(np.abs(self.deviation), nan=-1.0)
        order = np.argsort(-size, kind="stable")[:number]
        return order[size[order] >= at_least]


def check_labels(cohort: Cohort) -> LabelCheck | None:
    """Estimate every case outside the locked test from the other folds.

    Returns:
        None where fewer than `MIN_CASES` cases are outside the locked test, or a fold leaves none to learn from.
    """
    rows = np.flatnonzero(~cohort.cases["is_test"])
    fold = cohort.cases["fold"].to_numpy()[rows]
    if len(rows) < MIN_CASES or len(np.unique(fold)) < 2:
        return None
    view = next(name for name in ("crop", "masked", "full") if name in cohort.recipe.views)
    pixels_NSS = cohort.view(view)
    features_NF = np.stack([gradient_histogram(pixels_NSS[row]) for row in rows])
    is_male = cohort.cases["is_male"].to_numpy()[rows]
    months = cohort.cases["bone_age_months"].to_numpy(float)[rows]
    guess = estimate(features_NF, is_male, months, fold)
    usual, scatter = _usual(guess, months, is_male)
    places = np.full((3, len(cohort.cases)), np.nan)
    places[:, rows] = guess, usual, (guess - usual) / scatter
    return LabelCheck(
        estimate=places[0],
        usual=places[1],
        deviation=places[2],
        mae_months=float(np.abs(guess - months).mean()),
        median_mae_months=float(np.abs(months - np.median(months)).mean()),
        view=view,
    )


def gradient_histogram(image_SS: np.ndarray) -> np.ndarray:
    """Strength of the edges by place and direction, ``(CELLS * CELLS * DIRECTIONS,)`` float32.

    Edges of bones and their gaps tell the age, and change less with exposure than grey levels do.

    Args:
        image_SS: ``(S, S)`` uint8.
    """
    smooth = cv2.GaussianBlur(image_SS.astype(np.float32), (0, 0), 1)
    x, y = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength, direction = np.hypot(x, y), np.arctan2(y, x) % np.pi * (DIRECTIONS / np.pi)
    bins = []
    for middle in range(DIRECTIONS):
        apart = np.abs((direction - middle + DIRECTIONS / 2) % DIRECTIONS - DIRECTIONS / 2)
        share = strength * np.clip(1 - apart, 0, 1)
        bins.append(cv2.resize(share, (CELLS, CELLS), interpolation=cv2.INTER_AREA))
    return np.sqrt(np.stack(bins)).ravel()


def estimate(features_NF: np.ndarray, is_male_N: np.ndarray, months_N: np.ndarray, fold_N: np.ndarray) -> np.ndarray:
    """Out-of-fold ridge regression, both sexes together with the sex as a feature of its own.

    Returns:
        ``(N,)`` months.
    """
    guesses_PN = np.zeros((len(PENALTIES), len(months_N)))
    for fold in np.unique(fold_N):
        learn, ask = fold_N != fold, fold_N == fold
        middle, spread = features_NF[learn].mean(0), features_NF[learn].std(0)
        scaled = (features_NF - middle) / np.maximum(spread, 0.2 * np.median(spread) + 1e-6)
        # As large as a 25th of all features together, so that the penalty hardly touches it.
        sex = (is_male_N - is_male_N[learn].mean())[:, None] * np.sqrt(features_NF.shape[1] / 25)
        columns = np.concatenate([scaled, sex], axis=1).astype(np.float64)
        mean = months_N[learn].mean()
        values, vectors = np.linalg.eigh(columns[learn].T @ columns[learn])
        aim = vectors.T @ (columns[learn].T @ (months_N[learn] - mean))
        asked = columns[ask] @ vectors
        for i, penalty in enumerate(PENALTIES):
            guesses_PN[i, ask] = mean + asked @ (aim / (np.maximum(values, 0) + penalty * columns.shape[1]))
    errors_P = np.abs(guesses_PN - months_N).mean(1)
    return guesses_PN[int(np.argmin(errors_P))]


def _usual(guess_N: np.ndarray, months_N: np.ndarray, is_male_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What pictures with such a label usually get, and how far that scatters: running median and deviation."""
    usual, scatter = np.zeros_like(guess_N), np.zeros_like(guess_N)
    for of_sex in (is_male_N, ~is_male_N):
        rows = np.flatnonzero(of_sex)
        if not rows.size:
            continue
        trend = np.polyfit(months_N[rows], guess_N[rows], 2 if len(rows) > NEIGHBOURS else 1 if len(rows) > 2 else 0)
        expected = np.polyval(trend, months_N[rows])
        rest = guess_N[rows] - expected
        for i, row in enumerate(rows):
            near = np.argsort(np.abs(months_N[rows] - months_N[row]), kind="stable")[: NEIGHBOURS + 1]
            near = near[near != i] if len(near) > 1 else near
            middle = np.median(rest[near])
            usual[row] = expected[i] + middle
            # 1.4826 makes the median deviation that of a normal distribution.
            scatter[row] = max(1.4826 * float(np.median(np.abs(rest[near] - middle))), LEAST_SCATTER_MONTHS)
    return usual, scatter
