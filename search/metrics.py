"""How far predictions lie from references, each figure with a 95 % interval.

A mean has a percentile interval from resamples of the cases, and none (null) below `FEWEST_CASES`; a share has Wilson's
score interval, since resamples of 30 hits of 30 say that nothing else was possible.

What the literature of bone age calls MAD, Memon & Cuomo among it, is the mean absolute difference: our ``mae_months``.
It is measured once, under the name that says what it is; the report's figures.csv repeats it as ``mad_months``. The
median of the absolute errors stands beside it.

Shape letters: C cases, M monthly bins, Y years, K kinds of value, R resamples.
"""

from collections.abc import Iterator
from math import sqrt
from typing import Any

import numpy as np

RESAMPLES = 2000
FEWEST_CASES = 10
"""Of an interval of a mean: resamples of fewer repeat a handful of values. Measured on the
absolute value of normal errors: such a 95 % interval holds the mean 75 times of 100 with 3 cases, 85 with 5, 90 with
10 and 93 with 20."""
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
        ``n``, each figure beside its interval (``mae_months`` and ``mae_ci95``, ...; null where there is none), and
        ``groups`` of sex and bone-age band (see `groups`). Months; shares within 0..1.

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
    mae_ci, square_ci, bias_ci = mean_ci95(np.stack([absolute_C, np.square(error_C), error_C]), seed=seed)
    within = {months: absolute_C <= months for months in (6, 12, 24)}
    return {
        "n": len(actual_C),
        "mae_months": rounded(absolute_C.mean()),
        "mae_ci95": mae_ci,
        "rmse_months": rounded(np.sqrt(np.square(error_C).mean())),
        "rmse_ci95": _root(square_ci),
        "median_absolute_error_months": rounded(np.median(absolute_C)),
        "median_absolute_error_ci95": median_ci95(absolute_C, seed=seed),
        "bias_months": rounded(error_C.mean()),
        "bias_ci95": bias_ci,
        **{f"within_{months}_months": rounded(hit_C.mean()) for months, hit_C in within.items()},
        **{f"within_{months}_ci95": share_ci95(hit_C) for months, hit_C in within.items()},
        **{name: rounded(hit_C.mean()) for name, hit_C in years.items()},
        **{f"{name}_ci95": share_ci95(hit_C) for name, hit_C in years.items()},
        "groups": groups(actual_C, error_C, is_male_C, seed=seed),
    }


def beside_median(
    actual_C: np.ndarray, predicted_C: np.ndarray, said_C: np.ndarray | float, *, seed: int = 0
) -> dict[str, Any]:
    """What it costs to look at no picture: the error of saying the training median to every case, and the gain over it.

    Args:
        actual_C: ``(C,)`` reference bone age, in months.
        predicted_C: ``(C,)`` predicted bone age, in months.
        said_C: What the median predictor says, in months: one number, or ``(C,)`` where cases have training cases of
            their own, as out of fold.
        seed: Of the bootstrap, which is paired: 95 % percentile intervals from 2,000 resamples of the cases;
            null of fewer than 10.
    """
    of_median_C = np.abs(said_C - actual_C)
    gain_C = of_median_C - np.abs(predicted_C - actual_C)
    median_ci, gain_ci = mean_ci95(np.stack([of_median_C, gain_C]), seed=seed)
    return {
        "median_predictor_mae_months": rounded(of_median_C.mean()),
        "median_predictor_ci95": median_ci,
        "gain_over_median_months": rounded(gain_C.mean()),
        "gain_over_median_ci95": gain_ci,
    }


def groups(actual_C: np.ndarray, error_C: np.ndarray, is_male_C: np.ndarray, *, seed: int = 0) -> list[dict[str, Any]]:
    """Errors, bias and shares within 6 and 12 months of each sex and bone-age band that has cases.

    Girls first, then by age; each figure beside its interval, as `measure` gives them.
    """
    band_C = (actual_C // (12 * BAND_YEARS)).astype(int)
    found = []
    for sex, of_sex_C in (("female", ~is_male_C), ("male", is_male_C)):
        for band in np.unique(band_C[of_sex_C]):
            error = error_C[of_sex_C & (band_C == band)]
            absolute = np.abs(error)
            mae_ci, square_ci, bias_ci = mean_ci95(np.stack([absolute, np.square(error), error]), seed=seed)
            within = {months: absolute <= months for months in (6, 12)}
            found.append(
                {
                    "sex": sex,
                    "bone_age_years": [int(band) * BAND_YEARS, int(band + 1) * BAND_YEARS],
                    "n": len(error),
                    "mae_months": rounded(absolute.mean()),
                    "mae_ci95": mae_ci,
                    "rmse_months": rounded(np.sqrt(np.square(error).mean())),
                    "rmse_ci95": _root(square_ci),
                    "bias_months": rounded(error.mean()),
                    "bias_ci95": bias_ci,
                    **{f"within_{months}_months": rounded(hit.mean()) for months, hit in within.items()},
                    **{f"within_{months}_ci95": share_ci95(hit) for months, hit in within.items()},
                }
            )
    return found


def _root(square_ci: list[float] | None) -> list[float] | None:
    """Of the interval of a mean square."""
    return None if square_ci is None else [rounded(np.sqrt(bound)) for bound in square_ci]


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


def mean_ci95(values_KC: np.ndarray, *, seed: int = 0) -> list[list[float]] | list[None]:
    """As `bootstrap_ci95`, to be reported: None for each row of fewer than `FEWEST_CASES` cases."""
    num_rows, num_cases = values_KC.shape
    return [None] * num_rows if num_cases < FEWEST_CASES else bootstrap_ci95(values_KC, seed=seed)


def median_ci95(values_C: np.ndarray, *, num_resamples: int = RESAMPLES, seed: int = 0) -> list[float] | None:
    """95 % percentile interval of the median, from the same resamples and as many cases as those of the means."""
    if len(values_C) < FEWEST_CASES:
        return None
    medians = [np.median(values_C[drawn_RC], axis=1) for drawn_RC in _draws(len(values_C), num_resamples, seed)]
    low, high = np.percentile(np.concatenate(medians), [2.5, 97.5])
    return [rounded(low), rounded(high)]


def wilson(hits: float, n: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson, JASA 1927), within 0..1; as good at 0 and 1, and of few cases.

    Raises:
        ValueError: No case.
    """
    if n < 1:
        raise ValueError(f"A share needs 1 case or more, got {n}.")
    z, share = 1.96, hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(max(0.0, share * (1 - share)) / n + z * z / (4 * n * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def share_ci95(hit_C: np.ndarray) -> list[float]:
    """`wilson` of ``(C,)`` bool, rounded as figures are."""
    return [rounded(end) for end in wilson(float(hit_C.sum()), len(hit_C))]


def limits_of_agreement(difference_C: np.ndarray) -> tuple[float, float, float]:
    """Mean difference and its 95 % limits of agreement (Bland and Altman, Lancet 1986)."""
    bias = float(difference_C.mean())
    reach = 1.96 * float(difference_C.std(ddof=1)) if len(difference_C) > 1 else 0.0
    return bias, bias - reach, bias + reach


def agreement_limits(difference_C: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """``limits_months`` as `limits_of_agreement` has them, None of one case, with ``limits_ci95`` of each end."""
    _, low, high = limits_of_agreement(difference_C)
    return {
        "limits_months": [rounded(low), rounded(high)] if len(difference_C) > 1 else None,
        "limits_ci95": limits_ci95(difference_C, seed=seed),
    }


def limits_ci95(difference_C: np.ndarray, *, seed: int = 0) -> list[list[float]] | None:
    """95 % percentile interval of the lower limit of agreement and of the upper; None as in `mean_ci95`."""
    num_cases = len(difference_C)
    if num_cases < FEWEST_CASES:
        return None
    mean_R, square_R = bootstrap_means(np.stack([difference_C, np.square(difference_C)]), seed=seed)
    reach_R = 1.96 * np.sqrt(np.maximum(0.0, square_R - mean_R**2) * num_cases / (num_cases - 1))
    ends_KR = np.stack([mean_R - reach_R, mean_R + reach_R])
    return [[rounded(low), rounded(high)] for low, high in np.percentile(ends_KR, [2.5, 97.5], axis=1).T]


def rounded(value: float) -> float:
    """Four digits after the point: more than any of these figures means."""
    return round(float(value), 4)


def _draws(num_cases: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of case numbers drawn with replacement, ``(R, C)``, some at a time."""
    rng = np.random.default_rng(seed)
    at_a_time = max(1, _CELLS // num_cases)
    for start in range(0, num_resamples, at_a_time):
        yield rng.integers(num_cases, size=(min(at_a_time, num_resamples - start), num_cases))
