"""How often intervals hold the bone age, for all cases and for each sex and age band.

Shape letters: C cases, L levels.
"""

from typing import Any

import numpy as np

from ensemble.conformal import LEVELS, SEXES
from search.metrics import BAND_YEARS, bootstrap_ci95, rounded


def coverage(
    actual_C: np.ndarray, intervals_CL2: np.ndarray, is_male_C: np.ndarray, *, seed: int = 0
) -> dict[str, Any]:
    """Measure intervals against references.

    Args:
        actual_C: ``(C,)`` reference bone age, in months.
        intervals_CL2: ``(C, 3, 2)`` low and high ends in months, for each of `LEVELS`.
        is_male_C: ``(C,)`` bool.
        seed: Of the bootstrap: 95 % percentile intervals from 2,000 resamples of the cases.

    Returns:
        ``levels``: for each level its ``share`` of cases held with ``ci95`` and the mean ``width_months``; ``groups``:
        the same for each sex and band of the reference bone age that has cases. Shares within 0..1.

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
            groups.append(about | {"levels": _levels(actual_C[chosen_C], intervals_CL2[chosen_C], seed)})
    return {"n": len(actual_C), "levels": _levels(actual_C, intervals_CL2, seed), "groups": groups}


def _levels(actual_C: np.ndarray, intervals_CL2: np.ndarray, seed: int) -> list[dict[str, Any]]:
    low_CL, high_CL = intervals_CL2[..., 0], intervals_CL2[..., 1]
    held_LC = ((low_CL <= actual_C[:, None]) & (actual_C[:, None] <= high_CL)).T.astype(float)
    return [
        {
            "level": level,
            "share": rounded(held_C.mean()),
            "ci95": ci95,
            "width_months": rounded(width_C.mean()),
        }
        for level, held_C, ci95, width_C in zip(
            LEVELS, held_LC, bootstrap_ci95(held_LC, seed=seed), (high_CL - low_CL).T, strict=True
        )
    ]
