"""From a study to a bundle: complete trials only, honest evidence, the same version twice."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ensemble import calibration
from ensemble.bundle import Bundle, BundleError
from ensemble.combine import CombineError, combine
from ensemble.monitors import read_monitors
from ensemble.scores import few_line
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
    assert [member.trial.number for member in combination.candidates.trials] == [1]
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
    with pytest.raises(CombineError, match="trials/0001 differs"):
        combine(study)


def test_studies_on_one_cohort_are_combined_and_told_apart(folders, tmp_path):
    second = make_study(tmp_path / "second", folders / "cohort", seed=5)
    combination = combine(folders / "study", second, method="equal")
    combination.write(tmp_path / "bundle")
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert {member["study"] for member in manifest["members"]} == {"study", "second"}
    assert [study["name"] for study in manifest["provenance"]["studies"]] == ["study", "second"]
    assert any(row.split()[0] == "1-0" for row in combination.table()[1:])


def test_a_second_partition_even_an_unfinished_one_tells_the_error_as_served(folders, study, tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble.noise.MIN_CASES", 5)
    again = make_study(tmp_path / "again", folders / "cohort", seed=5)
    for number in (0, 2):
        target = study / "trials" / f"{number:04d}" / "partition_1"
        target.mkdir()
        for suffix in ("json", "parquet"):
            shutil.copy(again / "trials" / f"{number:04d}" / f"fold_0.{suffix}", target)
    combination = combine(study)
    evidence = combination.evidence
    measured = evidence["as_served"]
    num_first_fold = int((combination.candidates.cases["fold"] == 0).sum())
    assert (measured["candidates_measured"], measured["cases_measured"]) == (2, num_first_fold)
    assert evidence["as_served_mae_months"]["value"] < evidence["bias_corrected_mae_months"]["value"]
    assert "A second partition tells that noise." in evidence["weights_note"]
    combination.write(tmp_path / "bundle")
    assert "as served mae months" in (tmp_path / "bundle" / "card.md").read_text()
    assert "members as means of their fold models" in (tmp_path / "bundle" / "report.html").read_text()


def test_without_a_second_partition_no_error_as_served_is_stated(study):
    evidence = combine(study).evidence
    assert not [name for name in evidence if name.startswith("as_served")]
    assert "--partitions 2" in evidence["weights_note"]


def test_the_trials_that_the_search_stopped_are_counted(folders, tmp_path):
    study = make_study(tmp_path / "study", folders / "cohort", states=("complete", "stopped", "complete", "stopped"))
    assert combine(study).evidence["trials_stopped"] == 2


def test_members_that_are_refitted_are_served_with_their_noise(folders, study, tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble.noise.MIN_CASES", 5)
    shutil.copytree(study / "trials" / "0000", study / "trials" / "0001" / "partition_1")
    assert "as_served" not in combine(study, fitted="refit").evidence
    assert "as_served" in combine(study).evidence


def test_studies_on_different_cohorts_are_refused_and_both_named(folders, tmp_path):
    other = make_study(tmp_path / "other", make_cohort(tmp_path / "cohort", seed=1))
    with pytest.raises(CombineError, match=r"same cohort.*/study \(study\).*/other \(other\)"):
        combine(folders / "study", other)


def test_a_study_that_is_named_twice_is_refused(folders):
    with pytest.raises(CombineError, match="named once"):
        combine(folders / "study", folders / "study")


def test_the_bundle_says_what_it_said_of_each_case_out_of_fold(folders, tmp_path):
    combination = combine(folders / "study", method="equal", rule="mean")
    combination.write(tmp_path / "bundle")
    rows = pd.read_parquet(Bundle.load(tmp_path / "bundle").file("evidence/oof.parquet"))
    assert len(rows) == 24
    error = (rows["predicted_months"] - rows["bone_age_months"]).abs().mean()
    assert error == pytest.approx(combination.evidence["ensemble_oof_mae_months"]["value"], abs=1e-3)
    of_members = rows[[f"member_0_{number:04d}_months" for number in range(3)]]
    np.testing.assert_allclose(of_members.mean(axis=1), rows["predicted_months"], atol=1e-3)


@pytest.mark.parametrize(("num_refused", "num_cases"), [(3, 33), (0, 30), (None, None)])
def test_the_share_of_refusals_is_that_of_all_pictures_that_were_read(folders, tmp_path, num_refused, num_cases):
    cohort = replace(Cohort.load(folders / "cohort"), num_refused=num_refused)
    replace(combine(folders / "study"), cohort=cohort).write(tmp_path)
    monitors = read_monitors(Bundle.load(tmp_path))
    assert monitors["brightness"]["num_cases"] == 24  # outside the locked test
    assert ("outcome" in monitors) == (num_cases is not None)
    if num_cases:
        assert monitors["outcome"]["num_cases"] == num_cases
        assert monitors["outcome"]["shares"][1] == pytest.approx((num_refused + 0.5) / (num_cases + 1))


def test_the_fast_profile_is_calibrated_on_its_own_member(folders, tmp_path):
    combination = combine(folders / "study", method="equal", rule="mean")
    combination.write(tmp_path / "bundle")
    fast = Bundle.load(tmp_path / "bundle").manifest["profiles"]["fast"]
    member = int(np.argmax(fast["weights"]))
    said = combination.out_of_fold_of(member)
    np.testing.assert_allclose(said["months_C"], combination.out_of_fold["member_months_MC"][member])
    assert fast["calibration"] == calibration.fit(said)


def test_every_method_has_its_corrected_score_beside_the_best_single(folders):
    evidence = combine(folders / "study").evidence
    assert set(evidence["bias_corrected_by_method"]) == {"greedy", "least_squares", "equal", "single"}
    assert evidence["method_asked"] == "auto"
    assert evidence["oracle"]["gap"] > 0
    assert set(combine(folders / "study", method="equal").evidence["bias_corrected_by_method"]) == {"equal", "single"}


@pytest.mark.parametrize(
    ("weights", "about", "sentence"),
    [
        ([1], {}, "1 member, fewer than the usual 4: only 1 trial is complete"),
        (
            [0.5, 0.5, 0],
            {},
            "only 3 trials are complete, and the other one is far behind, a near copy or of no help",
        ),
        (
            [0.5, 0.5, 0, 0],
            {},
            "2 members, fewer than the usual 4: the other 2 trials are each far behind, a near copy or",
        ),
        ([1, 0, 0, 0], {"budget": {}}, "a near copy, beyond the budget or of no help to lower the error"),
        ([0.25] * 4, {}, ""),
        ([1, 0, 0, 0], {"method_asked": "single"}, ""),
        ([0.5, 0.5, 0, 0], {"max_members": 2}, ""),
    ],
)
def test_few_members_by_default_are_explained(weights, about, sentence):
    said = few_line(np.array(weights), {"method_asked": "auto", "max_members": 8} | about)
    assert sentence in said
    assert bool(said) == bool(sentence)


def test_the_table_says_why_members_are_few_and_the_evidence_stays_as_it_was(folders):
    combination = combine(folders / "study")
    assert sum("fewer than the usual 4: only 3 trials are complete" in line for line in combination.table()) == 1
    assert "usual" not in json.dumps(combination.evidence)


def test_the_corrected_score_says_that_the_noise_is_estimated_once(folders):
    note = combine(folders / "study").evidence["bias_corrected_mae_months"]["note"]
    assert "the noise of training" in note
    assert "once, on all cases, and not again in each draw" in note


def test_the_table_names_every_candidate(folders):
    lines = combine(folders / "study").table()
    assert sum("test_resnet" in line for line in lines) == 3
    assert any("BBC-CV" in line for line in lines)
