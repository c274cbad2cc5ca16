"""How often intervals hold the bone age, for all cases and for each sex and age band.

Shape letters: C cases, L levels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.conformal import LEVELS, SEXES
from search.metrics import BAND_YEARS, mean_ci95, rounded, share_ci95


def coverage(
    actual_C: np.ndarray,
    intervals_CL2: np.ndarray,
    is_male_C: np.ndarray,
    *,
    levels: Sequence[int] = LEVELS,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure intervals against references.

    Args:
        actual_C: ``(C,)`` reference bone age, in months.
        intervals_CL2: ``(C, L, 2)`` low and high ends in months; NaN where a case has no interval of that level.
        is_male_C: ``(C,)`` bool.
        levels: Of the intervals, in percent.
        seed: Of the bootstrap, which gives the mean width its interval.

    Returns:
        ``levels``: for each level that a case has, ``n`` and ``left_out`` (cases with and without it), the ``share`` of
        the n that it holds with ``ci95`` (Wilson), the mean ``width_months`` with ``width_ci95``; ``groups``: the same
        for each sex and band of the reference bone age that has cases. Shares within 0..1.

    Raises:
        ValueError: No case.
    """
    if not len(actual_C):
        raise ValueError("Coverage needs 1 case or more, got none.")
    band_C = (actual_C // (12 * BAND_YEARS)).astype(int)
    groups = []
    for sex, is_male in zip(SEXES, (False, True), strict=True):
        for band in np.unique(band_C[is_male_C == is_male]):
            chosen_C = (is_male_C == is_male) & (band_C == band)
            about = {
                "sex": sex,
                "bone_age_years": [int(band) * BAND_YEARS, int(band + 1) * BAND_YEARS],
                "n": int(chosen_C.sum()),
            }
            groups.append(about | {"levels": _levels(actual_C[chosen_C], intervals_CL2[chosen_C], levels, seed)})
    return {"n": len(actual_C), "levels": _levels(actual_C, intervals_CL2, levels, seed), "groups": groups}


def _levels(actual_C: np.ndarray, intervals_CL2: np.ndarray, levels: Sequence[int], seed: int) -> list[dict[str, Any]]:
    found = []
    for level, ends_C2 in zip(levels, intervals_CL2.transpose(1, 0, 2), strict=True):
        has_C = np.isfinite(ends_C2).all(axis=1)
        if not has_C.any():
            continue
        low_C, high_C = ends_C2[has_C].T
        held_C = (low_C <= actual_C[has_C]) & (actual_C[has_C] <= high_C)
        (width_ci,) = mean_ci95((high_C - low_C)[None], seed=seed)
        found.append(
            {
                "level": level,
                "n": int(has_C.sum()),
                "left_out": int((~has_C).sum()),
                "share": rounded(held_C.mean()),
                "ci95": share_ci95(held_C),
                "width_months": rounded((high_C - low_C).mean()),
                "width_ci95": width_ci,
            }
        )
    return found
