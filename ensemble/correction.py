"""A correction of the predicted months, one for each sex, that is kept only where nested validation shows a gain.

A line fitted by least squares to noisy labels over-corrects: its slope pulls the ends outwards, while the prediction
with the least absolute error is a conditional median. Hence corrections here are medians and least-absolute-deviation
lines, they are chosen inside the training part of an outer split, and the outer split judges the choice as a whole.

Shape letters: C cases, B batch, M monthly bins, K offsets, S sexes (girls, boys).
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from search.metrics import bootstrap_ci95, rounded
from search.months import BIN_MONTHS, NUM_BINS

CENTRE_MONTHS = 120.0
"""Where a line's offset is stated."""
KINDS = ("none", "shift", "line")
"""From the simplest on; a tie goes to the simpler one."""
MIN_CASES = 20
"""Of a sex: with fewer, its predictions are left alone."""
INNER_PARTS = 5
LAST = NUM_BINS - 1
"""The last month of the scale."""
_LAD_ROUNDS = 60


@dataclass(frozen=True)
class Correction:
    """``months + offset + slope (months - 120)``, by sex."""

    offset_S: tuple[float, float]
    """Girls' and boys', in months."""
    slope_S: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not np.isfinite([*self.offset_S, *self.slope_S]).all() or max(map(abs, self.slope_S)) > 0.5:
            raise ValueError(f"A correction needs finite offsets and slopes within -0.5..0.5, got {self}.")

    def months(self, months_C: np.ndarray, is_male_C: np.ndarray) -> np.ndarray:
        """``(C,)`` corrected months within 0..239 of predicted ones."""
        sex_C = np.asarray(is_male_C, int)
        offset_C, slope_C = np.array(self.offset_S)[sex_C], np.array(self.slope_S)[sex_C]
        return np.clip(months_C + offset_C + slope_C * (months_C - CENTRE_MONTHS), 0, LAST)

    def distribution(self, distribution_BM: np.ndarray, months_B: np.ndarray, is_male: bool) -> np.ndarray:
        """Distributions moved as their means are.

        Their spread grows or shrinks as the line says. What leaves the scale gathers in its first or last month. That
        would pull the mean away from the answer, so the rest goes further: the answer is what was fitted, and what
        the intervals were measured on.

        Args:
            distribution_BM: ``(B, 240)`` probabilities by month.
            months_B: ``(B,)`` corrected months within 0..239.
            is_male: Of all of them.

        Returns:
            ``(B, 240)`` float64, whose means are `months_B`.
        """
        line_M = (1 + self.slope_S[int(is_male)]) * BIN_MONTHS.astype(np.float64)
        offset_K = np.sort(np.concatenate([-line_M, LAST - line_M]))  # a month reaches an end; linear in between
        mean_BK = distribution_BM @ np.clip(line_M[:, None] + offset_K, 0, LAST)
        offset_B = np.array([np.interp(*case, offset_K) for case in zip(months_B, mean_BK, strict=True)])
        target_BM = np.clip(line_M + offset_B[:, None], 0, LAST)
        low_BM = np.minimum(np.floor(target_BM).astype(int), LAST - 1)
        place_BM = low_BM + NUM_BINS * np.arange(len(distribution_BM))[:, None]
        upper_BM = distribution_BM * (target_BM - low_BM)  # mass between two months is shared, which keeps the mean
        size = distribution_BM.size
        moved = np.bincount(place_BM.ravel(), (distribution_BM - upper_BM).ravel(), size)
        moved += np.bincount(place_BM.ravel() + 1, upper_BM.ravel(), size)
        return moved.reshape(distribution_BM.shape)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {
            sex: {"offset_months": rounded(offset), "slope": round(slope, 6)}
            for sex, offset, slope in zip(("female", "male"), self.offset_S, self.slope_S, strict=True)
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Rebuild and check.

        Raises:
            ValueError: A number is missing, or out of range.
        """
        try:
            sexes = [value["female"], value["male"]]
            offset, slope = ([float(sex[name]) for sex in sexes] for name in ("offset_months", "slope"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"A correction is incomplete ({type(error).__name__}: {error}).") from None
        return cls((offset[0], offset[1]), (slope[0], slope[1]))


NO_CORRECTION = Correction((0.0, 0.0))


@dataclass(frozen=True)
class Trial:
    """What nested validation says of correcting."""

    kind: str
    """What all cases together choose: one of `KINDS`."""
    correction: Correction
    """Fitted on all cases."""
    corrected_C: np.ndarray
    """``(C,)`` months, each corrected by what the other parts of the outer split chose and fitted."""
    gain_months: float
    """Mean of |error before| - |error after|, by `corrected_C`; positive is better."""
    gain_ci95: tuple[float, float]
    mae_before_months: float
    mae_after_months: float

    @property
    def helps(self) -> bool:
        """Whether the gain's interval lies above zero."""
        return self.kind != "none" and self.gain_ci95[0] > 0

    def answered(self, months_C: np.ndarray) -> np.ndarray:
        """``(C,)`` what stands for the months that were tried, as they would be answered: corrected where it helps."""
        return self.corrected_C if self.helps else months_C

    def evidence(self) -> dict[str, Any]:
        """The figures, as JSON values."""
        return {
            "kind": self.kind,
            "n": len(self.corrected_C),
            "mae_before_months": rounded(self.mae_before_months),
            "mae_after_months": rounded(self.mae_after_months),
            "gain_months": rounded(self.gain_months),
            "gain_ci95": list(self.gain_ci95),
        }


def nested(
    actual_C: np.ndarray, months_C: np.ndarray, is_male_C: np.ndarray, part_C: np.ndarray, *, seed: int = 0
) -> Trial:
    """Choose a correction and measure what choosing and fitting it gains on cases that took no part.

    Args:
        actual_C: ``(C,)`` reference bone age, in months.
        months_C: ``(C,)`` predicted bone age, in months.
        is_male_C: ``(C,)`` bool.
        part_C: ``(C,)`` int, the outer split.
        seed: Of the inner split and the bootstrap.
    """
    corrected_C = months_C.astype(np.float64)
    for part in np.unique(part_C):
        out_C = part_C == part
        inside = (actual_C[~out_C], months_C[~out_C], is_male_C[~out_C])
        chosen = fit(_choose(*inside, seed), *inside)
        corrected_C[out_C] = chosen.months(months_C[out_C], is_male_C[out_C])
    before_C, after_C = np.abs(months_C - actual_C), np.abs(corrected_C - actual_C)
    ((low, high),) = bootstrap_ci95((before_C - after_C)[None], seed=seed)
    kind = _choose(actual_C, months_C, is_male_C, seed)
    return Trial(
        kind,
        fit(kind, actual_C, months_C, is_male_C),
        corrected_C,
        float((before_C - after_C).mean()),
        (low, high),
        float(before_C.mean()),
        float(after_C.mean()),
    )


def fit(kind: str, actual_C: np.ndarray, months_C: np.ndarray, is_male_C: np.ndarray) -> Correction:
    """Fit one of `KINDS`; arguments as in `nested`."""
    offset, slope = [0.0, 0.0], [0.0, 0.0]
    for sex, is_male in enumerate((False, True)):
        of_sex_C = is_male_C == is_male
        if kind == "none" or of_sex_C.sum() < MIN_CASES:
            continue
        residual, x = (actual_C - months_C)[of_sex_C], months_C[of_sex_C] - CENTRE_MONTHS
        offset[sex] = float(np.median(residual))
        if kind == "line":
            offset[sex], slope[sex] = _least_absolute_line(x, residual)
    return Correction((offset[0], offset[1]), (slope[0], slope[1]))


def parts(is_male_C: np.ndarray, count: int, seed: int) -> np.ndarray:
    """``(C,)`` int: a random split into `count` parts with each sex spread evenly."""
    rng = np.random.default_rng(seed)
    part_C = np.empty(len(is_male_C), int)
    for is_male in (False, True):
        rows = rng.permutation(np.flatnonzero(is_male_C == is_male))
        part_C[rows] = np.arange(len(rows)) % count
    return part_C


def _choose(actual_C: np.ndarray, months_C: np.ndarray, is_male_C: np.ndarray, seed: int) -> str:
    part_C = parts(is_male_C, INNER_PARTS, seed)
    errors = {}
    for kind in KINDS:
        corrected_C = months_C.astype(np.float64)
        for part in range(INNER_PARTS):
            out_C = part_C == part
            chosen = fit(kind, actual_C[~out_C], months_C[~out_C], is_male_C[~out_C])
            corrected_C[out_C] = chosen.months(months_C[out_C], is_male_C[out_C])
        errors[kind] = rounded(np.abs(corrected_C - actual_C).mean())
    return min(KINDS, key=lambda kind: errors[kind])


def _least_absolute_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Offset and slope of least absolute deviations, by reweighted least squares; the slope stays within -0.5..0.5."""
    design = np.column_stack([np.ones_like(x), x])
    weight = np.ones_like(y)
    for _ in range(_LAD_ROUNDS):
        root = np.sqrt(weight)[:, None]
        line = np.linalg.lstsq(design * root, y * root[:, 0], rcond=None)[0]
        weight = 1 / np.maximum(np.abs(y - design @ line), 1e-3)
    slope = float(np.clip(line[1], -0.5, 0.5))
    return float(np.median(y - slope * x)), slope
