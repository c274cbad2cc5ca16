"""Figures of predictions, by hand where they can be counted."""

import numpy as np
import pytest

from search.metrics import (
    beside_median,
    bootstrap_ci95,
    bootstrap_means,
    limits_ci95,
    limits_of_agreement,
    measure,
    median_ci95,
    share_ci95,
    wilson,
)


def one_hot(months: object) -> np.ndarray:
    return np.eye(240, dtype=np.float32)[np.asarray(months, int)]


def test_errors_are_counted_in_months() -> None:
    actual_C, predicted_C = np.array([10.0, 20, 100, 150]), np.array([11.0, 18, 108, 171])
    figures = measure(actual_C, predicted_C, np.array([True] * 4), one_hot(predicted_C))
    assert figures["n"] == 4
    assert figures["mae_months"] == 8
    assert figures["median_absolute_error_months"] == 5
    assert figures["bias_months"] == 7
    assert figures["rmse_months"] == pytest.approx(np.sqrt((1 + 4 + 64 + 441) / 4), abs=1e-4)
    assert figures["within_6_months"] == 0.5
    assert figures["within_12_months"] == 0.75


def test_the_median_predictor_stands_beside_the_predictions() -> None:
    figures = beside_median(np.array([10.0, 20, 100, 150]), np.array([11.0, 18, 100, 171]), 100)
    assert figures["median_predictor_mae_months"] == (90 + 80 + 0 + 50) / 4
    assert figures["gain_over_median_months"] == (90 + 80 + 0 + 50) / 4 - 6


def test_out_of_fold_each_case_has_a_median_of_its_own() -> None:
    figures = beside_median(np.array([10.0, 20]), np.array([10.0, 20]), np.array([20.0, 10]))
    assert figures["median_predictor_mae_months"] == 10


def test_every_figure_lies_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    actual_C = rng.uniform(0, 200, 300)
    predicted_C = actual_C + rng.normal(3, 10, 300)
    figures = measure(actual_C, predicted_C, rng.random(300) < 0.5, one_hot(np.clip(predicted_C, 0, 239)))
    names = {"mae_months": "mae", "rmse_months": "rmse", "bias_months": "bias", "within_6_months": "within_6"}
    names |= {"median_absolute_error_months": "median_absolute_error", "top1_year": "top1_year"}
    for name, interval in names.items():
        low, high = figures[f"{interval}_ci95"]
        assert low < figures[name] < high


def test_the_rmse_has_the_interval_of_its_own_resamples() -> None:
    error_C = np.random.default_rng(0).normal(size=50) * 9
    actual_C = np.full(50, 100.0)
    figures = measure(actual_C, actual_C + error_C, np.ones(50, bool), one_hot(actual_C))
    rmse_R = np.sqrt(bootstrap_means(np.square(error_C)[None])[0])
    np.testing.assert_allclose(figures["rmse_ci95"], np.percentile(rmse_R, [2.5, 97.5]), rtol=1e-2)


def test_resamples_are_paired_between_rows() -> None:
    values_C = np.random.default_rng(0).normal(size=40)
    one, other = bootstrap_means(np.stack([values_C, values_C + 2]), num_resamples=50)
    np.testing.assert_allclose(other - one, 2)


def test_the_interval_of_the_median_holds_it_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    bounds = np.array([median_ci95(rng.exponential(5, 80), num_resamples=300, seed=seed) for seed in range(100)])
    assert 0.87 <= ((bounds[:, 0] <= 5 * np.log(2)) & (5 * np.log(2) <= bounds[:, 1])).mean() <= 0.99


def test_an_error_of_exactly_12_months_is_within() -> None:
    figures = measure(np.array([50.0]), np.array([62.0]), np.array([True]), one_hot([62]))
    assert figures["within_12_months"] == 1


def test_the_year_is_taken_from_the_distribution_summed_by_year() -> None:
    distribution_CM = np.zeros((3, 240), np.float32)
    distribution_CM[:, 131] = 0.3  # the likeliest month lies in year 10 ...
    distribution_CM[:, 108:120] = 0.5 / 12  # ... the likeliest year is year 9 ...
    distribution_CM[:, 36] = 0.2  # ... and year 3 is third
    actual_C = np.array([119.0, 120.0, 36.0])
    figures = measure(actual_C, actual_C, np.array([True] * 3), distribution_CM)
    assert figures["top1_year"] == pytest.approx(1 / 3, abs=1e-4)
    assert figures["top2_year"] == pytest.approx(2 / 3, abs=1e-4)


def test_a_flat_distribution_is_right_no_more_often_than_a_guess() -> None:
    actual_C = np.arange(0.0, 240.0, 12.0)
    distribution_CM = np.full((20, 240), 1 / 240, np.float32)
    figures = measure(actual_C, actual_C, np.ones(20, bool), distribution_CM)
    assert figures["top1_year"] == pytest.approx(1 / 20)
    assert figures["top2_year"] == pytest.approx(2 / 20)


def test_groups_hold_every_case_once() -> None:
    rng = np.random.default_rng(0)
    actual_C, is_male_C = rng.uniform(0, 239, 50), rng.random(50) < 0.5
    figures = measure(actual_C, actual_C + 1, is_male_C, one_hot(actual_C))
    assert sum(group["n"] for group in figures["groups"]) == 50
    assert {group["sex"] for group in figures["groups"]} == {"female", "male"}


def test_the_figures_of_a_group_that_holds_all_cases_are_those_of_all() -> None:
    rng = np.random.default_rng(0)
    actual_C = rng.uniform(61, 119, 40)
    figures = measure(actual_C, actual_C + rng.normal(0, 10, 40), np.ones(40, bool), None)
    (group,) = figures["groups"]
    told = set(group) - {"sex", "bone_age_years"}
    assert {"n", "rmse_months", "rmse_ci95", "within_6_months", "within_12_ci95"} <= told
    assert {name: group[name] for name in told} == {name: figures[name] for name in told}


def test_no_case_is_an_error_not_a_nan() -> None:
    empty = np.empty(0)
    with pytest.raises(ValueError, match="1 case or more"):
        measure(empty, empty, empty.astype(bool), np.empty((0, 240)))


def test_the_interval_holds_the_mean_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_ci95(rng.exponential(5, (1, 80)), num_resamples=400, seed=seed)[0]
        hits += low <= 5 <= high
    assert 0.88 <= hits / 200 <= 0.98


def test_a_share_has_wilsons_interval_which_is_not_empty_where_all_or_none_were_held() -> None:
    assert share_ci95(np.ones(30, bool)) == [pytest.approx(0.8865, abs=1e-4), 1]  # 1 / (1 + 1.96^2 / 30)
    assert share_ci95(np.zeros(12, bool)) == [0, pytest.approx(0.2425, abs=1e-4)]
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, Stat Med 1998, table I
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


def test_all_shares_of_few_cases_have_an_interval_and_no_mean_has() -> None:
    actual_C = np.arange(20.0, 29)
    figures = measure(actual_C, actual_C + 3, np.ones(9, bool), None)
    assert [figures[f"{name}_ci95"] for name in ("mae", "rmse", "bias", "median_absolute_error")] == [None] * 4
    assert all(group["mae_ci95"] is None and group["bias_ci95"] is None for group in figures["groups"])
    assert figures["within_12_ci95"][0] == pytest.approx(0.7008, abs=1e-3)
    assert measure(*[np.arange(20.0, 30)] * 2, np.ones(10, bool), None)["mae_ci95"] == [0, 0]


def test_the_interval_of_the_limits_holds_them_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    found = [limits_ci95(rng.normal(2, 10, 100), seed=seed) for seed in range(100)]
    bounds = np.array(found)
    for end, true in enumerate((2 - 19.6, 2 + 19.6)):
        assert 0.87 <= ((bounds[:, end, 0] <= true) & (true <= bounds[:, end, 1])).mean() <= 0.99
    difference_C = rng.normal(2, 10, 100)
    (low_from, low_to), (high_from, high_to) = limits_ci95(difference_C) or [[0, 0], [0, 0]]
    _, low, high = limits_of_agreement(difference_C)
    assert low_from < low < low_to < high_from < high < high_to
    assert limits_ci95(difference_C[:9]) is None


def test_the_interval_is_the_same_twice() -> None:
    values_KC = np.random.default_rng(0).normal(size=(2, 30_000))
    assert bootstrap_ci95(values_KC, num_resamples=70) == bootstrap_ci95(values_KC, num_resamples=70)
