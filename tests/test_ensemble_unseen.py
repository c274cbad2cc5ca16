"""Cases that a bundle was trained on are found again in a source."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from ensemble.bundle import Bundle
from ensemble.combine import combine
from ensemble.locked import without_references
from ensemble.unseen import LOCKED_CASE, LOCKED_FILE, is_locked_test, leave_out, locked, seen
from preprocessing.cohort import Cohort
from preprocessing.source import Source, problem_table
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("unseen")
    cohort = make_cohort(root / "cohort")
    (root / "bundle").mkdir()
    combine(make_study(root / "study", cohort), max_members=1).write(root / "bundle")
    return Bundle.load(root / "bundle"), Cohort.load(cohort)


def source(cases: pd.DataFrame) -> Source:
    return Source(Path(), cases, problem_table([]))


def test_training_cases_are_found_and_the_locked_test_is_not(made):
    bundle, cohort = made
    found = seen(bundle, source(cohort.cases))
    assert found.tolist() == (~cohort.cases["is_test"]).tolist()


def test_a_folder_with_the_locked_test_is_known_and_nothing_is_learnt_from_it(made):
    bundle, cohort = made
    locked = source(cohort.cases[cohort.cases["is_test"]].reset_index(drop=True))
    assert is_locked_test(bundle, locked)
    assert len(leave_out(bundle, locked)[0].cases) == len(locked.cases)
    left, about = leave_out(bundle, locked, learns=True)
    assert (len(left.cases), about["left_out"]) == (0, len(locked.cases))
    assert set(left.problems["reason"]) == {LOCKED_CASE}
    assert "was tested on by their id, sex and bone age" in about["says"]
    strangers = source(locked.cases.assign(case_id="x"))
    assert not is_locked_test(bundle, strangers)
    assert len(leave_out(bundle, strangers, learns=True)[0].cases) == len(locked.cases)


@pytest.mark.parametrize("knows", [True, False], ids=["it knows its locked test", "it keeps none"])
def test_the_locked_cases_are_found_among_those_it_was_trained_on(made, monkeypatch, knows):
    bundle, cohort = made
    if not knows:
        monkeypatch.delitem(bundle.manifest["files"], LOCKED_FILE)
    everything = source(cohort.cases)
    assert locked(bundle, everything).tolist() == cohort.cases["is_test"].tolist()
    left, said = without_references(everything, bundle)
    assert left.cases["bone_age_months"].isna().tolist() == cohort.cases["is_test"].tolist()
    assert "6 of 30 cases are of the locked test" in said


def test_strangers_keep_their_references(made):
    bundle, cohort = made
    strangers = source(cohort.cases.assign(case_id="x"))
    assert without_references(strangers, bundle) == (strangers, "")


@pytest.mark.parametrize("change", [{"case_id": "x"}, {"bone_age_months": 1.0}], ids=["id", "bone age"])
def test_a_case_is_known_by_id_and_label(made, change):
    bundle, cohort = made
    assert not seen(bundle, source(cohort.cases.assign(**change))).any()
    assert not seen(bundle, source(cohort.cases.assign(is_male=~cohort.cases["is_male"]))).any()
