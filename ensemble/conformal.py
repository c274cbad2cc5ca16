"""Intervals that hold the bone age as often as they say: split-conformal on out-of-fold residuals.

Each residual is divided by the standard deviation of that case's own distribution, where that makes the intervals
narrower. The categories (Mondrian, by label) are the sex and a band of the *true* bone age: every month is asked
whether a child of that sex and age would be as far from the answer as this, among the residuals of its own category,
and the interval holds all months that pass. So each band is held as often as the level says, the youngest and the
oldest too, who are few, and whom predictions pull towards the middle. On 9,990 radiographs out of fold, categories of
predicted age held 82 % of girls above 15 years at 90 %, these 89 %, and the intervals grew by 3 %. Where a category
holds too few cases, the wider of its parents answers for it: the band of both sexes, the sex at all ages.

Sources: Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", Springer 2005 (conformal prediction and
its label-conditional, Mondrian form); Lei et al., "Distribution-free predictive inference for regression", JASA 113,
2018 (split conformal, and residuals scaled case by case).

Shape letters: C cases, L levels, G categories, B bands.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ensemble.ambiguity import kept
from search.metrics import BAND_YEARS, rounded
from search.months import NUM_BINS

LEVELS = (80, 90, 95)
"""Percent of cases that an interval shall hold."""
MIN_CASES = 20
"""A category with fewer answers with its parents' residuals; as many give every level an end. Over 200 draws of 1,000
and 2,000 of 9,990 radiographs, categories below 120 cases were held 4.5 and 3.4 points beside the 90 % (root mean
square) so, and 4.9 and 4.3 where those below 60 took their parents', which is too wide as often as too narrow."""
SCALES = ("distribution", "constant")
"""What a residual is divided by: the standard deviation of the case's own distribution, or nothing."""
NARROWEST_MONTHS = 3.0
"""No distribution counts as narrower than this when it scales a residual."""
SEXES = ("female", "male")
_NUM_BANDS = NUM_BINS // (12 * BAND_YEARS)


@dataclass(frozen=True)
class Intervals:
    """Fitted intervals; it knows nothing of the cases that they were fitted on but their number."""

    scale: str
    """One of `SCALES`."""
    reach_GL: np.ndarray
    """``(2 x 4, 3)`` half widths in units of the scale, girls' bands first; infinite where too few cases are known."""
    num_cases_G: np.ndarray
    """``(2 x 4,)`` cases of each category itself."""
    pooled_G: tuple[str, ...]
    """Whose residuals answer for a category: ``own``, ``band``, ``sex``, ``band or sex`` (the wider), or ``all``."""

    def of(self, months_C: np.ndarray, sd_C: np.ndarray, is_male_C: np.ndarray) -> np.ndarray:
        """Intervals of predictions.

        Args:
            months_C: ``(C,)`` predicted bone age, in months.
            sd_C: ``(C,)`` standard deviation of the predicted distribution, in months.
            is_male_C: ``(C,)`` bool.

        Returns:
            ``(C, 3, 2)`` low and high ends in months within 0..239, one pair for each of `LEVELS`; a higher level holds
            the lower ones.
        """
        scale_C11 = _scale(sd_C, self.scale)[:, None, None]
        reach_CBL = self.reach_GL.reshape(2, _NUM_BANDS, -1)[np.asarray(is_male_C, int)] * scale_C11
        edge_B = np.arange(_NUM_BANDS + 1.0) * 12 * BAND_YEARS
        low_CBL = np.maximum(months_C[:, None, None] - reach_CBL, edge_B[:-1, None])
        high_CBL = np.minimum(months_C[:, None, None] + reach_CBL, edge_B[1:, None])
        passes_CBL = low_CBL <= high_CBL  # the band of the prediction itself always does
        low_CL = np.where(passes_CBL, low_CBL, np.inf).min(axis=1)
        high_CL = np.where(passes_CBL, high_CBL, -np.inf).max(axis=1)
        return np.clip(np.stack([low_CL, high_CL], axis=2), 0, NUM_BINS - 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        groups = []
        for index, reach_L in enumerate(self.reach_GL):
            sex, band = divmod(index, _NUM_BANDS)
            groups.append(
                {
                    "sex": SEXES[sex],
                    "bone_age_years": [band * BAND_YEARS, (band + 1) * BAND_YEARS],
                    "n": int(self.num_cases_G[index]),
                    "residuals_of": self.pooled_G[index],
                    "reach": [None if math.isinf(reach) else rounded(reach) for reach in reach_L],
                }
            )
        return {"levels": list(LEVELS), "scale": self.scale, "groups": groups}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Rebuild and check.

        Raises:
            ValueError: Another set of levels or categories, or half widths that are no widths.
        """
        try:
            scale, groups = value["scale"], value["groups"]
            reach_GL = np.array([[math.inf if reach is None else float(reach) for reach in g["reach"]] for g in groups])
            names = [(g["sex"], *g["bone_age_years"]) for g in groups]
            counts, pooled = [int(g["n"]) for g in groups], [str(g["residuals_of"]) for g in groups]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The intervals are incomplete ({type(error).__name__}: {error}).") from None
        expected = [(sex, b * BAND_YEARS, (b + 1) * BAND_YEARS) for sex in SEXES for b in range(_NUM_BANDS)]
        if set(value) != {"levels", "scale", "groups"} or value["levels"] != list(LEVELS) or names != expected:
            raise ValueError(f"Intervals must have the levels {LEVELS} and {len(expected)} groups, got {set(value)}.")
        if scale not in SCALES or reach_GL.shape != (len(expected), len(LEVELS)):
            raise ValueError(f"Intervals must be scaled by one of {SCALES}, with a reach a level, got {scale!r}.")
        if not (reach_GL >= 0).all() or not (reach_GL[:, 1:] >= reach_GL[:, :-1]).all():
            raise ValueError("The reach of an interval must be 0 or more, and grow with its level.")
        return cls(scale, reach_GL, np.array(counts), tuple(pooled))


def fit(
    actual_C: np.ndarray,
    months_C: np.ndarray,
    sd_C: np.ndarray,
    is_male_C: np.ndarray,
    fold_C: np.ndarray,
    *,
    ambiguity: float = 0.0,
) -> tuple[Intervals, np.ndarray]:
    """Fit intervals to out-of-fold predictions.

    The scale that gives the narrower 90 % intervals is kept; both hold what they say by construction. A mean of models
    is held by narrower ones than its models are: the mean square of the residuals of each category is less by the
    ambiguity, and all of them are taken to shrink alike. That is less of the residuals that are large because all
    models are pulled the same way.

    Args:
        actual_C: ``(C,)`` reference bone age, in months.
        months_C: ``(C,)`` its prediction by models that never saw the case.
        sd_C: ``(C,)`` standard deviation of the predicted distribution, in months.
        is_male_C: ``(C,)`` bool.
        fold_C: ``(C,)`` int; for the measurement alone.
        ambiguity: Months squared, of the models whose mean is served; see `ensemble.ambiguity`. 0: one model is served,
            as out of fold.

    Returns:
        The intervals, fitted on all cases, and those of each case fitted on the other folds, ``(C, 3, 2)``: what to
        measure the coverage with. These are for a single model, as the predictions are.

    Raises:
        ValueError: No case, or a number that is not finite.
    """
    if not len(actual_C) or not np.isfinite([actual_C, months_C, sd_C]).all():
        raise ValueError("Intervals need 1 case or more, with a finite reference, prediction and spread each.")
    found = {}
    for scale in SCALES:
        crossed_CL2 = np.empty((len(actual_C), len(LEVELS), 2))
        for fold in np.unique(fold_C):
            out_C = fold_C == fold
            rule = _fit(actual_C[~out_C], months_C[~out_C], sd_C[~out_C], is_male_C[~out_C], scale)
            crossed_CL2[out_C] = rule.of(months_C[out_C], sd_C[out_C], is_male_C[out_C])
        found[scale] = crossed_CL2
    middle = LEVELS.index(90)
    widths = {scale: rounded((found[scale][:, middle, 1] - found[scale][:, middle, 0]).mean()) for scale in SCALES}
    best = min(SCALES, key=lambda scale: widths[scale])
    return _fit(actual_C, months_C, sd_C, is_male_C, best, ambiguity), found[best]


def reach_of(score_C: np.ndarray, level: int) -> float:
    """The conformal quantile: the smallest reach that a new case exceeds in at most ``100 - level`` % of all draws.

    Args:
        score_C: ``(C,)`` absolute residuals.
        level: Percent.

    Returns:
        The ``ceil((C + 1) level)``-th smallest score; infinite with too few cases to say anything.
    """
    rank = math.ceil((len(score_C) + 1) * level / 100 - 1e-9)
    return float(np.sort(score_C)[rank - 1]) if rank <= len(score_C) else math.inf


def _fit(
    actual_C: np.ndarray,
    months_C: np.ndarray,
    sd_C: np.ndarray,
    is_male_C: np.ndarray,
    scale: str,
    ambiguity: float = 0.0,
) -> Intervals:
    residual_C = actual_C - months_C
    score_C = np.abs(residual_C) / _scale(sd_C, scale)
    category_C = _category(actual_C, is_male_C)
    reach_GL, pooled, counts = [], [], []
    for index in range(len(SEXES) * _NUM_BANDS):
        own_C = category_C == index
        parents = {
            "band": category_C % _NUM_BANDS == index % _NUM_BANDS,
            "sex": category_C // _NUM_BANDS == index // _NUM_BANDS,
        }
        enough = {name: chosen_C for name, chosen_C in parents.items() if chosen_C.sum() >= MIN_CASES}
        if own_C.sum() >= MIN_CASES:
            enough = {"own": own_C}
        groups = list(enough.values()) or [np.ones(len(score_C), bool)]
        reach_GL.append(_widest([score_C[of_C] * kept(residual_C[of_C], ambiguity) for of_C in groups]))
        pooled.append(" or ".join(enough) or "all")
        counts.append(int(own_C.sum()))
    return Intervals(scale, np.array(reach_GL), np.array(counts), tuple(pooled))


def _widest(scores: Sequence[np.ndarray]) -> list[float]:
    return [max(reach_of(score_C, level) for score_C in scores) for level in LEVELS]


def _scale(sd_C: np.ndarray, scale: str) -> np.ndarray:
    return np.ones(len(sd_C)) if scale == "constant" else np.maximum(sd_C, NARROWEST_MONTHS)


def _category(months_C: np.ndarray, is_male_C: np.ndarray) -> np.ndarray:
    band_C = np.clip(months_C // (12 * BAND_YEARS), 0, _NUM_BANDS - 1).astype(int)
    return np.where(is_male_C, _NUM_BANDS, 0) + band_C
