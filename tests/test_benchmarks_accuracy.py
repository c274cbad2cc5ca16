"""What the accuracy benchmark compares."""

from pathlib import Path

import pytest

from benchmarks.accuracy import over_tuning
from preprocessing.cohort import Cohort
from search.trial import finished_trials
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort.load(make_cohort(tmp_path / "cohort", num_cases=40))


def test_the_best_is_compared_with_the_first_starting_point(cohort: Cohort, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", tmp_path / "cohort", states=("complete", "complete"))
    check = over_tuning(study, study, cohort)
    assert check["first"]["trial"] == 0
    assert check["best_minus_first"] == pytest.approx(check["best_by_cv"]["mae"] - check["first"]["mae"])


def test_a_first_starting_point_that_was_stopped_is_compared_as_it_was_trained_afterwards(
    cohort: Cohort, tmp_path: Path
) -> None:
    study = make_study(tmp_path / "study", tmp_path / "cohort", states=("stopped", "complete", "complete"))
    first = make_study(tmp_path / "first", tmp_path / "cohort", states=("complete",), seed=1)
    check = over_tuning(study, first, cohort)
    assert check["best_by_cv"]["trial"] in (1, 2)
    assert check["first"]["oof_mae"] == finished_trials(first)[0].mae_months
