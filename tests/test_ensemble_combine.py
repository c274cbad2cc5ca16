"""From a study to a bundle: complete trials only, honest evidence, the same version twice."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from ensemble.bundle import Bundle, BundleError
from ensemble.combine import CombineError, combine
from preprocessing.cohort import Cohort
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("combine")
    make_study(root / "study", make_cohort(root / "cohort"))
    return root


@pytest.fixture
def study(folders, tmp_path):
    """A copy that a test may harm."""
    shutil.copytree(folders / "study", tmp_path / "study")
    return tmp_path / "study"


def test_the_same_study_gives_the_same_version_twice(folders, tmp_path):
    versions = {combine(folders / "study").write(tmp_path / name) for name in ("first", "second")}
    assert len(versions) == 1


def test_stopped_failed_and_running_trials_are_no_candidates(folders, tmp_path):
    states = ("stopped", "complete", "failed", "running")
    combination = combine(make_study(tmp_path / "mixed", folders / "cohort", states=states))
    assert [trial.number for trial in combination.trials] == [1]
    assert combination.weights_T.tolist() == [1]


def test_no_complete_trial_is_refused_with_the_count_of_the_others(folders, tmp_path):
    study = make_study(tmp_path / "none", folders / "cohort", states=("stopped", "stopped", "failed"))
    with pytest.raises(CombineError, match=r"0 complete, 2 stopped, 1 failed, 0 running.*the test says so"):
        combine(study)


def test_an_unfinished_study_is_told_to_resume(folders, tmp_path):
    study = make_study(tmp_path / "early", folders / "cohort", states=("stopped", "running"))
    with pytest.raises(CombineError, match="python -m search resume"):
        combine(study)


def test_the_limit_of_members_is_kept(folders):
    assert np.count_nonzero(combine(folders / "study", max_members=2).weights_T) <= 2


def test_the_training_median_leaves_the_locked_test_out(folders):
    cases = Cohort.load(folders / "cohort").cases
    expected = cases.loc[~cases["is_test"], "bone_age_months"].median()
    assert combine(folders / "study").training_median_months == expected


def test_the_evidence_holds_every_candidate_and_both_estimates(folders):
    combination = combine(folders / "study")
    evidence = combination.evidence
    assert [row["trial"] for row in evidence["candidates"]] == [0, 1, 2]
    assert "Optimistic" in evidence["ensemble_oof_mae_months"]["note"]
    assert evidence["bias_corrected_mae_months"]["value"] > evidence["ensemble_oof_mae_months"]["value"]
    assert evidence["num_cases"] == 24


def test_the_effective_size_lies_between_one_and_all_members(folders):
    combination = combine(folders / "study")
    assert 1 <= combination.evidence["effective_members"] <= np.count_nonzero(combination.weights_T)


def test_no_time_stamp_is_part_of_the_content(folders, tmp_path):
    combine(folders / "study").write(tmp_path / "bundle")
    text = json.dumps(Bundle.load(tmp_path / "bundle").manifest)
    assert "time" not in text.lower()


def test_weights_that_changed_since_training_are_refused(study, tmp_path):
    for path in study.rglob("fold_1.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(BundleError, match="sha256"):
        combine(study).write(tmp_path / "bundle")


def test_a_trial_on_other_cases_is_refused(study):
    path = study / "trials" / "0001" / "oof.parquet"
    pd.read_parquet(path).assign(fold=lambda table: 1 - table["fold"]).to_parquet(path, index=False)
    with pytest.raises(CombineError, match="trial 1 differs"):
        combine(study)


def test_the_table_names_every_candidate(folders):
    lines = combine(folders / "study").table()
    assert sum("test_resnet" in line for line in lines) == 3
    assert any("BBC-CV" in line for line in lines)
