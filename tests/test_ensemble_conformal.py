"""Intervals: they hold the bone age as often as they say, and are never narrower than the cases support."""

import math

import numpy as np
import pytest

from ensemble.conformal import LEVELS, MIN_CASES, Intervals, fit, reach_of
from ensemble.coverage import coverage


def cases(count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Predictions whose error grows with a spread that they state, too small by half."""
    rng = np.random.default_rng(seed)
    actual = rng.uniform(10, 220, count)
    noise = rng.uniform(4, 16, count)
    months = np.clip(actual + noise * rng.standard_normal(count), 0, 239)
    return {
        "actual_C": actual,
        "months_C": months,
        "sd_C": noise / 2,
        "is_male_C": rng.random(count) < 0.5,
        "fold_C": np.arange(count) % 4,
    }


def held(rule: Intervals, new: dict[str, np.ndarray]) -> dict:
    ends = rule.of(new["months_C"], new["sd_C"], new["is_male_C"])
    return coverage(new["actual_C"], ends, new["is_male_C"])


@pytest.mark.parametrize(("level", "rank"), [(80, 81), (90, 91), (95, 96)])
def test_the_reach_is_the_conformal_quantile(level, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1, 101))
    assert reach_of(scores, level) == rank  # ceil(101 * level / 100)


def test_too_few_cases_support_no_reach():
    assert reach_of(np.arange(18), 95) == math.inf
    assert reach_of(np.arange(19), 95) == 18


def test_new_cases_are_held_as_often_as_the_level_says():
    rule, _ = fit(**cases(4000))
    for level, found in zip(LEVELS, held(rule, cases(4000, seed=1))["levels"], strict=True):
        assert 100 * found["share"] == pytest.approx(level, abs=2)


def test_every_sex_and_band_is_held_as_often():
    rule, _ = fit(**cases(6000))
    for group in held(rule, cases(6000, seed=1))["groups"]:
        assert group["levels"][1]["share"] == pytest.approx(0.9, abs=0.05)


def test_what_is_measured_out_of_fold_is_no_better_than_on_new_cases():
    known = cases(3000)
    rule, crossed_CL2 = fit(**known)
    out_of_fold = coverage(known["actual_C"], crossed_CL2, known["is_male_C"])["levels"][1]["share"]
    assert out_of_fold == pytest.approx(held(rule, cases(3000, seed=1))["levels"][1]["share"], abs=0.02)


def test_residuals_are_scaled_by_the_case_where_that_is_narrower():
    known = cases(2000)
    rule, _ = fit(**known)
    assert rule.scale == "distribution"
    rule, _ = fit(**(known | {"sd_C": np.random.default_rng(9).permutation(known["sd_C"])}))
    assert rule.scale == "constant"


def test_a_small_category_takes_the_wider_of_its_parents():
    known = cases(2000)
    rare = known["is_male_C"] & (known["actual_C"] < 60)
    keep = ~rare | (np.cumsum(rare) < MIN_CASES)
    wide = known["is_male_C"] & (known["actual_C"] >= 60)
    known["months_C"] = np.where(wide, known["months_C"] + 15, known["months_C"])  # boys fare worse
    rule, _ = fit(**{name: values[keep] for name, values in known.items()})
    boys = rule.to_dict()["groups"][4]
    assert (boys["sex"], boys["residuals_of"], boys["n"]) == ("male", "band or sex", MIN_CASES - 1)
    assert (rule.reach_GL[4] > rule.reach_GL[0]).all()


def test_those_whom_predictions_pull_to_the_middle_are_held_as_often():
    known, new = cases(6000), cases(6000, seed=1)
    for one in (known, new):
        one["months_C"] = 120 + 0.8 * (one["months_C"] - 120)
    rule, _ = fit(**known)
    for group in held(rule, new)["groups"]:
        assert group["levels"][1]["share"] == pytest.approx(0.9, abs=0.05)


def test_the_prediction_lies_in_its_interval():
    known = cases(500)
    rule, _ = fit(**known)
    months = np.linspace(0, 239, 60)
    ends = rule.of(months, np.full(60, 1.0), np.arange(60) % 2 == 0)
    assert (ends[..., 0] <= months[:, None]).all()
    assert (ends[..., 1] >= months[:, None]).all()


def test_a_few_cases_give_the_whole_range():
    rule, _ = fit(**cases(8))
    ends = rule.of(np.array([100.0]), np.array([5.0]), np.array([True]))
    np.testing.assert_array_equal(ends[0, 1:], [[0, 239], [0, 239]])


def test_a_higher_level_holds_the_lower_one():
    known = cases(500)
    rule, _ = fit(**known)
    ends = rule.of(known["months_C"], known["sd_C"], known["is_male_C"])
    assert (np.diff(ends[..., 0], axis=1) <= 0).all()
    assert (np.diff(ends[..., 1], axis=1) >= 0).all()
    assert ends.min() >= 0
    assert ends.max() <= 239


def test_the_json_form_comes_back():
    rule, _ = fit(**cases(30))
    again = Intervals.from_dict(rule.to_dict())
    assert again.to_dict() == rule.to_dict()
    assert np.isinf(again.reach_GL).tolist() == np.isinf(rule.reach_GL).tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"levels": [80, 90]},
        {"scale": "magic"},
        {"groups": []},
        {"more": 1},
    ],
)
def test_intervals_that_this_release_does_not_know_are_refused(change):
    rule, _ = fit(**cases(200))
    with pytest.raises(ValueError, match=r"[Ii]nterval"):
        Intervals.from_dict(rule.to_dict() | change)


def test_a_reach_that_shrinks_with_the_level_is_refused():
    value = fit(**cases(200))[0].to_dict()
    value["groups"][0]["reach"] = [2.0, 1.0, 3.0]
    with pytest.raises(ValueError, match="grow with its level"):
        Intervals.from_dict(value)


def means_of_models(count: int, *, seed: int, num_models: int = 5) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Cases as one of the models sees them, the mean of all models, and their ambiguity."""
    rng = np.random.default_rng(seed)
    known = cases(count, seed=seed)
    shared = known["actual_C"] + 10 * rng.standard_normal(count)
    models = shared + 6 * rng.standard_normal((num_models, count))
    mean = models.mean(axis=0)
    return known | {"months_C": models[0]}, mean, float(np.square(models - mean).mean())


def test_a_mean_of_models_is_held_as_often_as_the_level_says():
    known, _, ambiguity = means_of_models(6000, seed=0)
    new, mean, _ = means_of_models(6000, seed=1)
    single, served = (fit(**known, ambiguity=of)[0] for of in (0.0, ambiguity))
    assert held(single, new | {"months_C": mean})["levels"][1]["share"] > 0.93
    for level, found in zip(LEVELS, held(served, new | {"months_C": mean})["levels"], strict=True):
        assert 100 * found["share"] == pytest.approx(level, abs=1.5)


def test_a_category_that_errs_by_its_bias_shrinks_less():
    known, _, ambiguity = means_of_models(6000, seed=0)
    is_biased = known["is_male_C"]
    known["months_C"] = np.where(is_biased, known["months_C"] + 30, known["months_C"])
    before, after = (fit(**known, ambiguity=of)[0].reach_GL[:, 1] for of in (0.0, ambiguity))
    girls, boys = (after / before)[:4], (after / before)[4:]
    assert boys.min() > 0.97
    assert girls.max() < 0.93


def test_what_is_measured_out_of_fold_is_of_single_models():
    known, _, ambiguity = means_of_models(600, seed=0)
    np.testing.assert_array_equal(fit(**known)[1], fit(**known, ambiguity=ambiguity)[1])


def test_residuals_that_happen_to_be_small_keep_an_interval():
    known = cases(200)
    exact = known | {"months_C": known["actual_C"] + 0.1}
    single, served = (fit(**exact, ambiguity=of)[0].reach_GL for of in (0.0, 50.0))
    np.testing.assert_allclose(served, math.sqrt(0.5) * single)
