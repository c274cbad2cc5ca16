"""The fast profile: the best member that is a fraction of the work, with figures of its own."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ensemble.bundle import OOF_FILE, Bundle
from ensemble.combine import combine
from ensemble.profiles import profiles
from ensemble.student import distilled
from preprocessing.cohort import Cohort
from tests.ensemble_fixtures import make_cohort, make_student, make_study


def errors(*scales: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, np.array(scales)[:, None], (len(scales), 400))


def entry_of(weights: list[float], error_MC: np.ndarray, operations: list[float], student_C=None) -> dict:
    """Of members that are combined by their mean."""
    weights_M = np.array(weights)
    return profiles(weights_M, error_MC, np.array(operations), weights_M @ error_MC, student_C)


def test_the_best_of_the_small_members_is_fast():
    entry = entry_of([0.5, 0.3, 0.2], errors(6, 7, 9), [80.0, 10.0, 10.0])
    assert entry["full"] == {"weights": [0.5, 0.3, 0.2], "members": 3}
    assert entry["fast"]["weights"] == [0, 1, 0]
    assert entry["fast"]["evidence"]["operations_share"] == pytest.approx(0.1)


def test_its_figures_are_paired_with_the_full_profile():
    evidence = entry_of([0.5, 0.5], errors(6, 7), [1.0, 1.0])["fast"]["evidence"]
    low, high = evidence["less_full_ci95"]
    assert 0 < low < evidence["less_full_months"] < high
    assert 0 < evidence["within_6_months_of_full"] < 1


@pytest.mark.parametrize("operations", [[1.0], [9.0, 9.0, 9.0, 90.0]])
def test_an_ensemble_of_one_has_no_fast_profile_and_a_heavy_member_is_none(operations):
    num = len(operations)
    scales = np.arange(num, 0, -1.0)  # the heavy member is the best
    entry = entry_of([1 / num] * num, errors(*scales), operations)
    assert entry.get("fast", {"weights": [0.0]})["weights"][-1] == 0
    assert ("fast" in entry) == (num > 1)


@pytest.mark.parametrize(("scale", "is_kept"), [(5, True), (9, False)])
def test_a_student_takes_the_place_of_the_member_that_it_stands_for_where_it_errs_less(scale, is_kept):
    (student,) = errors(scale)
    entry = entry_of([0.6, 0.4], errors(6, 7), [10.0, 2.0], student)
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
    distilled = entry_of([0.6, 0.4], error_MC, [10.0, 2.0], student_C)["fast"]["evidence"]["distilled"]
    assert distilled["distilled_less_member_months"] < 0 < distilled["distilled_less_member_ci95"][1]
    assert not distilled["kept"]


@pytest.fixture
def biased(tmp_path, monkeypatch):
    """Two members: one that says 15 months too much, and one that is right on average and errs more otherwise."""
    monkeypatch.setattr("tests.ensemble_fixtures.NUM_FOLDS", 3)  # of two, each holds one sex alone
    cohort = make_cohort(tmp_path / "cohort", num_cases=160)
    studies = (
        make_study(tmp_path / "biased", cohort, states=("complete",), bias=15.0),
        make_study(tmp_path / "coarse", cohort, states=("complete",), noise=11.0),
    )
    return replace(combine(*studies, method="equal"), weights_T=np.full(2, 0.5))


def test_the_member_that_errs_least_with_its_own_correction_is_fast_and_has_its_figures(biased, tmp_path):
    biased.write(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    fast = bundle.manifest["profiles"]["fast"]
    assert fast["weights"] == [1, 0]
    served = fast["calibration"]["bias"]
    assert served["correction"]
    assert fast["evidence"]["oof_mae_months"] == pytest.approx(served["evidence"]["mae_after_months"], abs=1e-3)
    cases = pd.read_parquet(bundle.file(OOF_FILE))
    full = (cases["answered_months"] - cases["bone_age_months"]).abs().mean()
    assert fast["evidence"]["less_full_months"] == pytest.approx(
        served["evidence"]["mae_after_months"] - full, abs=1e-3
    )
    assert "Its months are corrected" in bundle.file("card.md").read_text()


def test_a_student_is_of_that_member_and_must_beat_it_as_it_would_be_answered(biased, tmp_path, monkeypatch):
    student = make_student(tmp_path / "student", tmp_path / "cohort")
    taught = []
    monkeypatch.setattr(
        "ensemble.student.distill", lambda folder, *_, **__: taught.append(folder.name) or student.trial
    )
    made = distilled(biased, Cohort.load(tmp_path / "cohort"))
    assert taught == ["biased"]
    said = student.trial.oof
    said["predicted_months"] = said["bone_age_months"] + np.random.default_rng(0).normal(0, 11, len(said))
    found = made.profiles()["fast"]["evidence"]["distilled"]
    assert found["member_oof_mae_months"] < found["distilled_oof_mae_months"] < 11
    assert not found["kept"]
