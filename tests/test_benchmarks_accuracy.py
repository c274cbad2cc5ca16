"""What the accuracy benchmark compares, and what it does not."""

from pathlib import Path

import pytest

from benchmarks.accuracy import difference, over_tuning
from preprocessing.cohort import Cohort
from preprocessing.storage import read_json, write_json
from search.trial import trial_folder
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort.load(make_cohort(tmp_path / "cohort", num_cases=40))


def test_the_best_is_compared_with_the_first_starting_point(cohort: Cohort, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", tmp_path / "cohort", states=("complete", "complete"))
    check = over_tuning(study, cohort)
    assert check["first"]["trial"] == 0
    assert check["best_minus_first"] == pytest.approx(check["best_by_cv"]["mae"] - check["first"]["mae"])


@pytest.mark.parametrize(
    ("stopped_at", "said"), [("screen", "was stopped by its short training"), ("race", "was stopped by the race")]
)
def test_no_other_trial_stands_in_for_a_first_one_that_was_stopped(
    stopped_at: str, said: str, cohort: Cohort, tmp_path: Path
) -> None:
    study = make_study(tmp_path / "study", tmp_path / "cohort", states=("stopped", "complete", "complete"))
    outcome = trial_folder(study, 0) / "outcome.json"
    write_json(outcome, read_json(outcome) | {"stopped_at": stopped_at})
    check = over_tuning(study, cohort)
    assert set(check) == {"best_by_cv", "not_compared"}
    assert difference(check).endswith(f"not compared: the first starting point {said}")
