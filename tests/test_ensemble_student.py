"""A student: taught by the ensemble's out-of-fold distributions, served by the fast profile where it errs less."""

from dataclasses import replace

import numpy as np
import pytest

from ensemble.__main__ import main
from ensemble.bundle import Bundle
from ensemble.card import render
from ensemble.combine import combine
from ensemble.predictor import Predictor
from ensemble.student import distilled
from preprocessing.cohort import Cohort
from tests.ensemble_fixtures import make_brief_study


@pytest.fixture
def folders(tmp_path):
    """A study whose trials train for a moment."""
    make_brief_study(tmp_path)
    return tmp_path


def test_a_student_that_errs_less_is_one_more_member_of_the_fast_profile_alone(folders, monkeypatch):
    cohort = Cohort.load(folders / "cohort")
    taught = distilled(combine(folders / "study", method="equal"), cohort)
    said = taught.student.trial.oof
    said["predicted_months"] = said["bone_age_months"] + 0.1  # a good one, which no moment of training gives
    monkeypatch.setattr("search.distill.train_fold", None)
    distilled(combine(folders / "study", method="equal"), cohort)  # trained already
    version = taught.write(folders / "bundle")
    bundle = Bundle.load(folders / "bundle")
    assert [member.weight for member in bundle.members] == [0.5, 0.5, 0.0]
    assert bundle.members[2].study.endswith(", distilled")
    assert bundle.manifest["provenance"]["trials"][2]["study"] == bundle.members[2].study
    predictor = Predictor(bundle)
    pixels, is_male = cohort.pixels[:3], cohort.cases["is_male"].to_numpy()[:3]
    full, fast = predictor.predict(pixels, is_male), predictor.predict(pixels, is_male, profile="fast")
    assert [prediction.profile for prediction in fast] == ["fast"] * 3
    assert [p.bone_age_months for p in full] != [p.bone_age_months for p in fast]
    assert version in render(bundle.manifest)


def test_a_student_is_asked_with_the_views_as_the_members_are(folders, monkeypatch):
    cohort = Cohort.load(folders / "cohort")
    plain = combine(folders / "study", method="equal")
    viewed = replace(plain, views=("identity", "flip"), distributions_of_views=plain.member_distributions)
    taught = distilled(plain, cohort)
    months_C = plain.candidates.actual_C.astype(int)
    asked = []

    def said(student, cohort, fold, views, device):
        asked.append((fold, views))
        return np.eye(240)[months_C[plain.candidates.cases["fold"] == fold]]

    monkeypatch.setattr("ensemble.student.summed_of_fold", said)
    of_views = distilled(viewed, cohort)  # the same student, trained already
    assert asked == [(fold, ("flip",)) for fold in range(cohort.num_folds)]
    of_picture = taught.out_of_fold_of(2)["months_C"]
    np.testing.assert_allclose(of_views.out_of_fold_of(2)["months_C"], (of_picture + months_C) / 2)
    errors = [of.profiles()["fast"]["evidence"]["distilled"]["distilled_oof_mae_months"] for of in (of_views, taught)]
    assert errors[0] < 0.6 * errors[1]


def test_build_says_what_became_of_the_student(folders, capsys):
    words = ["build", str(folders / "study"), str(folders / "registry"), "--method", "equal", "--distill"]
    assert main(words) == 2
    assert "--cohort" in capsys.readouterr().err
    assert main([*words, "--cohort", str(folders / "cohort"), "--refit"]) == 2
    assert "fold models" in capsys.readouterr().err
    assert main([*words, "--cohort", str(folders / "cohort")]) == 0
    captured = capsys.readouterr()
    assert "left out" in captured.out
    assert "distilling fold 1" in captured.err
