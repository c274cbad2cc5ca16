"""The fast profile: the best member that is a fraction of the work, with figures of its own."""

import numpy as np
import pytest

from ensemble.profiles import profiles

MEAN = {"rule": "mean", "trim": 0.0}


def errors(*scales: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, np.array(scales)[:, None], (len(scales), 400))


def test_the_best_of_the_small_members_is_fast():
    entry = profiles(np.array([0.5, 0.3, 0.2]), errors(6, 7, 9), np.array([80.0, 10.0, 10.0]), MEAN)
    assert entry["full"] == {"weights": [0.5, 0.3, 0.2], "members": 3}
    assert entry["fast"]["weights"] == [0, 1, 0]
    assert entry["fast"]["evidence"]["operations_share"] == pytest.approx(0.1)


def test_its_figures_are_paired_with_the_full_profile():
    evidence = profiles(np.full(2, 0.5), errors(6, 7), np.ones(2), MEAN)["fast"]["evidence"]
    low, high = evidence["less_full_ci95"]
    assert 0 < low < evidence["less_full_months"] < high
    assert 0 < evidence["within_6_months_of_full"] < 1


@pytest.mark.parametrize("operations", [[1.0], [9.0, 9.0, 9.0, 90.0]])
def test_an_ensemble_of_one_has_no_fast_profile_and_a_heavy_member_is_none(operations):
    num = len(operations)
    scales = np.arange(num, 0, -1.0)  # the heavy member is the best
    entry = profiles(np.full(num, 1 / num), errors(*scales), np.array(operations), MEAN)
    assert entry.get("fast", {"weights": [0.0]})["weights"][-1] == 0
    assert ("fast" in entry) == (num > 1)


@pytest.mark.parametrize(("scale", "is_kept"), [(5, True), (9, False)])
def test_a_student_takes_the_place_of_the_member_that_it_stands_for_where_it_errs_less(scale, is_kept):
    (student,) = errors(scale)
    entry = profiles(np.array([0.6, 0.4]), errors(6, 7), np.array([10.0, 2.0]), MEAN, student)
    evidence = entry["fast"]["evidence"]
    assert evidence["distilled"]["kept"] is is_kept
    assert entry["fast"]["weights"] == ([0, 0, 1] if is_kept else [0, 1])
    assert entry["full"] == {"weights": [0.6, 0.4, 0.0] if is_kept else [0.6, 0.4], "members": 2}
    least = min(evidence["distilled"]["member_oof_mae_months"], evidence["distilled"]["distilled_oof_mae_months"])
    assert evidence["oof_mae_months"] == least


def test_a_student_that_errs_less_by_chance_is_left_out():
    error_MC = errors(6, 7)
    student_C = error_MC[1].copy()
    student_C[:10] *= 0.5
    student_C[10:20] *= 1.3  # a little better on average, and no more
    distilled = profiles(np.array([0.6, 0.4]), error_MC, np.array([10.0, 2.0]), MEAN, student_C)["fast"]["evidence"][
        "distilled"
    ]
    assert distilled["distilled_less_member_months"] < 0 < distilled["distilled_less_member_ci95"][1]
    assert not distilled["kept"]
