"""How far predictions lie from references, each figure with a 95 % interval.

What the literature of bone age calls MAD, Memon & Cuomo among it, is the mean absolute difference: our ``mae_months``.
It is given once, under the name that says what it is; the median of the absolute errors stands beside it.

Shape letters: C cases, M monthly bins, Y years, K kinds of value, R resamples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

RESAMPLES = 2000
BAND_YEARS = 5
"""Width of the bone-age bands in the table of groups."""
_CELLS = 2_000_000
"""Drawn at a time, so that memory does not grow with the cases."""


def measure(
    actual_C: np.ndarray,
    predicted_C: np.ndarray,
    is_male_C: np.ndarray,
    distribution_CM: np.ndarray | None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure predictions against references.

    ``top1_year`` is the share of cases whose year of bone age is the most probable one of the predicted
    distribution summed by year, ``top2_year`` among the two most probable (Chen's measures on the Digital Hand
    Atlas).

    Args:
        actual_C: ``(C,)`` reference bone age, in months, within 0..239.
        predicted_C: ``(C,)`` predicted bone age, in months.
        is_male_C: ``(C,)`` bool.
        distribution_CM: ``(C, 240)`` predicted probabilities by month; None of a system that says a number only: then
            ``top1_year`` is the share of cases whose predicted month lies in the right year, and there is no second.
        seed: Of the bootstrap.

    Returns:
        ``n``, each figure beside its interval (``mae_months`` and ``mae_ci95``, ...), and ``groups`` of sex and
        bone-age band with the same for error and bias. Months; shares within 0..1.

    Raises:
        ValueError: No case, or a number that is not finite.
    """
    if len(actual_C) == 0:
        raise ValueError("A measurement needs 1 case or more, got none.")
    if not (np.isfinite(actual_C).all() and np.isfinite(predicted_C).all()):
        raise ValueError("Every case needs a finite reference and prediction; drop the others first.")
    error_C = predicted_C - actual_C
    absolute_C = np.abs(error_C)
    years = _years(actual_C, predicted_C, distribution_CM)
    means = {
        "mae": absolute_C,
        "rmse": np.square(error_C),
        "bias": error_C,
        "within_6": absolute_C <= 6,
        "within_12": absolute_C <= 12,
        "within_24": absolute_C <= 24,
        **years,
    }
    values_KC = np.stack(list(means.values())).astype(float)
    intervals = dict(zip(means, bootstrap_ci95(values_KC, seed=seed), strict=True))
    return {
        "n": len(actual_C),
        "mae_months": rounded(absolute_C.mean()),
        "mae_ci95": intervals["mae"],
        "rmse_months": rounded(np.sqrt(np.square(error_C).mean())),
        "rmse_ci95": [rounded(np.sqrt(bound)) for bound in intervals["rmse"]],
        "median_absolute_error_months": rounded(np.median(absolute_C)),
        "median_absolute_error_ci95": median_ci95(absolute_C, seed=seed),
        "bias_months": rounded(error_C.mean()),
        "bias_ci95": intervals["bias"],
        "within_6_months": rounded((absolute_C <= 6).mean()),
        "within_6_ci95": intervals["within_6"],
        "within_12_months": rounded((absolute_C <= 12).mean()),
        "within_12_ci95": intervals["within_12"],
        "within_24_months": rounded((absolute_C <= 24).mean()),
        "within_24_ci95": intervals["within_24"],
        **{name: rounded(hit_C.mean()) for name, hit_C in years.items()},
        **{f"{name}_ci95": intervals[name] for name in years},
        "groups": groups(actual_C, error_C, is_male_C, seed=seed),
    }


def groups(actual_C: np.ndarray, error_C: np.ndarray, is_male_C: np.ndarray, *, seed: int = 0) -> list[dict[str, Any]]:
    """Error and bias of each sex and bone-age band that has cases; girls first, then by age."""
    band_C = (actual_C // (12 * BAND_YEARS)).astype(int)
    found = []
    for sex, of_sex_C in (("female", ~is_male_C), ("male", is_male_C)):
        for band in np.unique(band_C[of_sex_C]):
            error = error_C[of_sex_C & (band_C == band)]
            mae_ci, bias_ci = bootstrap_ci95(np.stack([np.abs(error), error]), seed=seed)
            found.append(
                {
                    "sex": sex,
                    "bone_age_years": [int(band) * BAND_YEARS, int(band + 1) * BAND_YEARS],
                    "n": len(error),
                    "mae_months": rounded(np.abs(error).mean()),
                    "mae_ci95": mae_ci,
                    "bias_months": rounded(error.mean()),
                    "bias_ci95": bias_ci,
                }
            )
    return found


def _years(actual_C: np.ndarray, predicted_C: np.ndarray, distribution_CM: np.ndarray | None) -> dict[str, np.ndarray]:
    """Whether each case's year is the likeliest, and among the two likeliest."""
    if distribution_CM is None:
        return {"top1_year": predicted_C // 12 == actual_C // 12}
    rank_C = year_ranks(actual_C, distribution_CM)
    return {"top1_year": rank_C == 0, "top2_year": rank_C <= 1}


def year_ranks(actual_C: np.ndarray, distribution_CM: np.ndarray) -> np.ndarray:
    """For each case, how many years are more probable than its own, ``(C,)``; the younger year wins a tie."""
    year_CY = by_year(distribution_CM)
    own_C = (actual_C // 12).astype(int)
    own_share_C1 = np.take_along_axis(year_CY, own_C[:, None], axis=1)
    earlier_CY = np.arange(year_CY.shape[1]) < own_C[:, None]
    return ((year_CY > own_share_C1) | (earlier_CY & (year_CY == own_share_C1))).sum(axis=1)


def by_year(distribution_CM: np.ndarray) -> np.ndarray:
    """The distribution summed by year, ``(C, 20)``."""
    return distribution_CM.reshape(len(distribution_CM), -1, 12).sum(axis=2)


def bootstrap_means(values_KC: np.ndarray, *, num_resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of each row over resampled cases, ``(K, R)``; rows see the same resamples: differences are paired."""
    num_cases = values_KC.shape[1]
    means = []
    for drawn_RC in _draws(num_cases, num_resamples, seed):
        shifted = drawn_RC + num_cases * np.arange(len(drawn_RC))[:, None]
        counts_RC = np.bincount(shifted.ravel(), minlength=drawn_RC.size).reshape(drawn_RC.shape)
        means.append(values_KC @ counts_RC.T.astype(float) / num_cases)
    return np.concatenate(means, axis=1)


def bootstrap_ci95(values_KC: np.ndarray, *, num_resamples: int = RESAMPLES, seed: int = 0) -> list[list[float]]:
    """95 % percentile intervals of the mean of each row, all from the same resamples of the cases."""
    means_KR = bootstrap_means(values_KC, num_resamples=num_resamples, seed=seed)
    return [[rounded(low), rounded(high)] for low, high in np.percentile(means_KR, [2.5, 97.5], axis=1).T]


def median_ci95(values_C: np.ndarray, *, num_resamples: int = RESAMPLES, seed: int = 0) -> list[float]:
    """95 % percentile interval of the median, from the same resamples as those of the means."""
    medians = [np.median(values_C[drawn_RC], axis=1) for drawn_RC in _draws(len(values_C), num_resamples, seed)]
    low, high = np.percentile(np.concatenate(medians), [2.5, 97.5])
    return [rounded(low), rounded(high)]


def limits_of_agreement(difference_C: np.ndarray) -> tuple[float, float, float]:
    """Mean difference and its 95 % limits of agreement (Bland and Altman, Lancet 1986)."""
    bias = float(difference_C.mean())
    reach = 1.96 * float(difference_C.std(ddof=1)) if len(difference_C) > 1 else 0.0
    return bias, bias - reach, bias + reach


def rounded(value: float) -> float:
    """Four digits after the point: more than any of these figures means."""
    return round(float(value), 4)


def _draws(num_cases: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of case numbers drawn with replacement, ``(R, C)``, some at a time."""
    rng = np.random.default_rng(seed)
    at_a_time = max(1, _CELLS // num_cases)
    for start in range(0, num_resamples, at_a_time):
        yield rng.integers(num_cases, size=(min(at_a_time, num_resamples - start), num_cases))
