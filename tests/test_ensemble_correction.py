"""Corrections: they keep the mean of what they move, and are kept where they help cases that took no part."""

import numpy as np
import pytest

from ensemble.correction import NO_CORRECTION, Correction, fit, nested, parts
from search.months import BIN_MONTHS


def cases(
    count: int, *, offset=(0.0, 0.0), slope: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reference, prediction with the given error, sex and part."""
    rng = np.random.default_rng(0)
    actual, is_male = rng.uniform(20, 210, count), rng.random(count) < 0.5
    error = np.where(is_male, offset[1], offset[0]) + slope * (actual - 120) + rng.laplace(0, 6, count)
    return actual, actual + error, is_male, parts(is_male, 4, 0)


def test_an_unbiased_prediction_is_left_alone():
    assert not nested(*cases(400)).helps


def test_the_bias_of_a_sex_is_found():
    trial = nested(*cases(600, offset=(0.0, 5.0)))
    assert trial.helps
    assert trial.correction.offset_S[0] == pytest.approx(0, abs=1.5)
    assert trial.correction.offset_S[1] == pytest.approx(-5, abs=1.5)


def test_the_gain_is_that_of_cases_that_took_no_part():
    actual, months, is_male, part = cases(600, offset=(4.0, 4.0))
    trial = nested(actual, months, is_male, part)
    out = part == 0
    chosen = fit(trial.kind, actual[~out], months[~out], is_male[~out])
    np.testing.assert_allclose(trial.corrected_C[out], chosen.months(months[out], is_male[out]))
    assert trial.gain_months == pytest.approx(trial.mae_before_months - trial.mae_after_months)


def test_a_prediction_that_shies_from_the_ends_is_stretched():
    trial = nested(*cases(2000, slope=-0.25))
    assert trial.kind == "line"
    assert trial.helps
    assert min(trial.correction.slope_S) > 0.15


def test_a_sex_with_few_cases_is_left_alone():
    actual, months, is_male, part = cases(600, offset=(6.0, 6.0))
    keep = ~is_male | (np.cumsum(is_male) < 20)
    correction = nested(actual[keep], months[keep], is_male[keep], part[keep]).correction
    assert correction.offset_S[1] == 0
    assert correction.offset_S[0] < -4


def test_a_corrected_distribution_has_the_corrected_mean():
    correction = Correction((3.3, -2.7), (0.1, -0.05))
    shape = np.exp(-0.5 * ((BIN_MONTHS - np.array([[70.0], [120.4]])) / 8) ** 2)
    shape /= shape.sum(axis=1, keepdims=True)
    for is_male in (False, True):
        months = correction.months(shape @ BIN_MONTHS, np.full(2, is_male))
        moved = correction.distribution(shape, months, is_male)
        np.testing.assert_allclose(moved.sum(axis=1), 1)
        np.testing.assert_allclose(moved @ BIN_MONTHS, months, atol=1e-6)


@pytest.mark.parametrize("centre", [1, 6, 15, 30, 210, 225, 234, 238])
@pytest.mark.parametrize(("offset", "slope"), [(5.35, 0.0), (-5.35, 0.0), (-12.0, 0.2), (20.0, 0.3), (0.0, -0.5)])
def test_near_the_ends_it_has_the_corrected_mean_too(centre, offset, slope):
    correction = Correction((offset, offset), (slope, slope))
    shape = np.exp(-0.5 * ((np.arange(240.0) - centre) / 9) ** 2)[None]
    shape /= shape.sum()
    months = correction.months(shape @ BIN_MONTHS, np.array([True]))
    moved = correction.distribution(shape, months, True)
    assert moved.sum() == pytest.approx(1)
    assert moved.min() >= -1e-12
    assert moved @ BIN_MONTHS == pytest.approx(months, abs=1e-6)


def test_far_from_the_ends_it_moves_as_the_line_says():
    correction = Correction((7.0, 7.0), (0.25, 0.25))
    shape = np.zeros((1, 240))
    shape[0, [100, 120]] = 0.3, 0.7
    moved = correction.distribution(shape, correction.months(shape @ BIN_MONTHS, np.array([False])), False)
    np.testing.assert_allclose(moved[0, [102, 127]], [0.3, 0.7], atol=1e-9)


def test_no_case_is_no_case():
    assert NO_CORRECTION.distribution(np.empty((0, 240)), np.empty(0), True).shape == (0, 240)


def test_corrected_months_stay_on_the_grid():
    corrected = Correction((-10.0, 10.0)).months(np.array([2.0, 238.0]), np.array([False, True]))
    np.testing.assert_array_equal(corrected, [0, 239])


def test_the_json_form_comes_back():
    correction = Correction((1.25, -3.5), (0.01, -0.02))
    assert Correction.from_dict(correction.to_dict()) == correction


@pytest.mark.parametrize("offset", [float("nan"), float("inf"), "much"])
def test_a_correction_without_a_number_is_refused(offset):
    value = Correction((0.0, 0.0)).to_dict()
    value["male"]["offset_months"] = offset
    with pytest.raises(ValueError, match="correction"):
        Correction.from_dict(value)
