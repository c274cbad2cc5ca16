"""Calibration: what is fitted out of fold can be read back, and holds on new cases."""

import json

import numpy as np
import pytest

from ensemble import calibration, width
from ensemble.calibration import CalibrationError
from ensemble.conformal import LEVELS
from ensemble.correction import Correction
from ensemble.coverage import coverage
from search.months import BIN_MONTHS


def oof(count: int = 800, *, seed: int = 0, bias: float = 0.0, error: float = 10.0) -> dict[str, np.ndarray]:
    """What an ensemble says out of fold, its distributions too narrow."""
    rng = np.random.default_rng(seed)
    actual, is_male = rng.uniform(12, 215, count), rng.random(count) < 0.5
    centre = np.clip(actual + bias * is_male + rng.normal(0, error, count), 1, 238)
    logits = -0.5 * ((BIN_MONTHS - centre[:, None]) / 5) ** 2
    distribution = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {
        "case_id": np.arange(count).astype(str),
        "actual_C": actual,
        "is_male_C": is_male,
        "distribution_CM": distribution,
        "months_C": distribution @ BIN_MONTHS,
        "fold_C": np.arange(count) % 3,
    }


def answers(fitted: dict, new: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    found = calibration.parse(fitted)
    _, months = found.corrected(new["distribution_CM"], new["months_C"], new["is_male_C"])
    sd = np.sqrt(calibration.variance(new["distribution_CM"]))
    return months, found.intervals_of(months, sd, new["is_male_C"])


def test_it_survives_json_to_the_bit():
    fitted = calibration.fit(oof())
    again = json.loads(json.dumps(fitted, allow_nan=False))
    assert again == fitted
    np.testing.assert_array_equal(answers(fitted, oof(seed=1))[1], answers(again, oof(seed=1))[1])


def test_new_cases_are_held_after_the_bias_is_corrected():
    fitted, new = calibration.fit(oof(bias=8.0)), oof(seed=1, bias=8.0)
    assert fitted["bias"]["correction"]
    months, ends = answers(fitted, new)
    assert np.abs(months - new["actual_C"]).mean() < np.abs(new["months_C"] - new["actual_C"]).mean()
    assert coverage(new["actual_C"], ends, new["is_male_C"])["levels"][1]["share"] == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("steps", [(), (Correction((-9.0, 9.0), (0.1, 0.1)),), (Correction((30.0, -30.0)),) * 2])
def test_the_answer_is_the_mean_of_what_is_drawn_near_both_ends_too(steps):
    found, new = calibration.parse(calibration.fit(oof())), oof(seed=1)
    new["distribution_CM"] = np.eye(240)[[0, 1, 3, 10, 25, 120, 215, 230, 236, 238, 239] * 2]
    new["distribution_CM"] = 0.5 * new["distribution_CM"] + 0.5 * oof(22, error=60.0)["distribution_CM"]
    months, is_male = new["distribution_CM"] @ BIN_MONTHS, np.arange(22) < 11
    sd = np.sqrt(calibration.variance(new["distribution_CM"]))
    served = calibration.Calibration(found.intervals, steps, found.sex)
    drawn, answer = served.corrected(new["distribution_CM"], months, is_male)
    np.testing.assert_allclose(drawn @ BIN_MONTHS, answer, atol=1e-6)
    ends = served.intervals_of(answer, sd, is_male)[:, LEVELS.index(width.LEVEL)]
    np.testing.assert_allclose(width.agreeing(drawn, answer, ends) @ BIN_MONTHS, answer, atol=0.126)


def test_what_the_nested_test_measures_is_what_is_served():
    new = oof(bias=8.0)
    fitted = calibration.fit(new)
    step = Correction.from_dict(fitted["bias"]["correction"])
    np.testing.assert_array_equal(answers(fitted, new)[0], step.months(new["months_C"], new["is_male_C"]))


def test_a_bias_that_no_nested_test_finds_is_not_corrected():
    fitted = calibration.fit(oof(error=2.0))  # larger errors would shy from the ends, which a line does mend
    assert fitted["bias"]["correction"] is None
    new = oof(seed=1, error=2.0)
    np.testing.assert_array_equal(answers(fitted, new)[0], new["months_C"])


def test_the_coverage_out_of_fold_is_stated():
    stated = calibration.fit(oof())["intervals"]["out_of_fold"]
    assert stated["n"] == 800
    assert stated["levels"][1]["share"] == pytest.approx(0.9, abs=0.03)


def test_a_bundle_without_calibration_has_none():
    assert calibration.parse(None) is None


@pytest.mark.parametrize(
    "change",
    [{"more": 1}, {"intervals": None}, {"intervals": {}}, {"bias": 3}, {"site": {"name": "x"}}, {"sex": {}}],
)
def test_what_this_release_does_not_know_is_refused(change):
    with pytest.raises(CalibrationError, match="calibration"):
        calibration.parse(calibration.fit(oof()) | change)


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one row a case"):
        calibration.fit(oof() | {"months_C": np.zeros(3)})
