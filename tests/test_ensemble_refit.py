"""Refitted members: one model of all folds, trained once, served with the weights that stand for it."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file

from ensemble.__main__ import main
from ensemble.bundle import Bundle
from ensemble.combine import CombineError, combine
from ensemble.predictor import Predictor
from preprocessing.cohort import Cohort
from preprocessing.storage import read_json, write_json
from search.refit import refit
from search.train import TrainingError
from search.trial import finished_trials
from tests.ensemble_fixtures import make_brief_study, make_cohort


@pytest.fixture
def folders(tmp_path):
    """A study whose trials train for a moment, and are not held to the errors that the fixture invents."""
    for trial in (make_brief_study(tmp_path) / "trials").iterdir():
        write_json(trial / "outcome.json", read_json(trial / "outcome.json") | {"mae_months": 100.0})
    return tmp_path


def test_a_refit_learns_from_every_case_outside_the_locked_test(folders):
    cohort = Cohort.load(folders / "cohort")
    (trial, _) = finished_trials(folders / "study")
    record = refit(trial, cohort)
    assert record["num_cases"] == 24
    assert record["history"][-1]["final"]
    assert load_file(trial.folder / "refit.safetensors").keys() == load_file(trial.folder / "fold_0.safetensors").keys()
    assert not list(trial.folder.glob("*.checkpoint"))


def test_what_is_there_is_not_trained_again(folders, monkeypatch):
    cohort, (trial, _) = Cohort.load(folders / "cohort"), finished_trials(folders / "study")
    first = refit(trial, cohort)
    monkeypatch.setattr("search.refit.train_fold", None)
    assert refit(trial, cohort) == first


def test_a_refit_that_learnt_less_than_the_fold_models_is_refused(folders):
    (trial, _) = finished_trials(folders / "study")
    with pytest.raises(TrainingError, match=r"trial 0: \d+\.\d+ against 0\.50 months.*fold models"):
        refit(replace(trial, mae_months=0.5), Cohort.load(folders / "cohort"))
    assert not (trial.folder / "refit.json").exists()


def test_refitted_members_are_served_as_one_model_each(folders, capsys):
    words = ["build", str(folders / "study"), str(folders / "registry"), "--method", "equal"]
    assert main([*words, "--refit", "--cohort", str(folders / "cohort")]) == 0
    assert "cases that it learns from" in capsys.readouterr().err
    (folder,) = (folders / "registry" / "bundles").iterdir()
    bundle = Bundle.load(folder)
    assert [(member.fitted, len(member.files)) for member in bundle.members] == [("refit", 1)] * 2
    assert "once more on all folds" in bundle.manifest["evidence"]["weights_note"]
    cohort = Cohort.load(folders / "cohort")
    assert len(Predictor(bundle).predict(cohort.pixels[:2], cohort.cases["is_male"].to_numpy()[:2])) == 2


def test_only_fold_models_are_weighed_by_what_their_mean_takes_away(folders):
    evidence = [combine(folders / "study", method="greedy", fitted=way).evidence for way in ("folds", "refit")]
    assert ["average of its fold models" in each["weights_note"] for each in evidence] == [True, False]


def test_a_bundle_of_members_that_are_not_refitted_is_refused(folders, tmp_path):
    combination = combine(folders / "study", fitted="refit")
    with pytest.raises(CombineError, match="no refitted model yet"):
        combination.write(tmp_path / "bundle")


def test_another_cohort_is_refused(folders):
    other = Cohort.load(make_cohort(folders / "other", seed=1))
    with pytest.raises(CombineError, match="cohort that the search used"):
        combine(folders / "study", fitted="refit").refit(other)
