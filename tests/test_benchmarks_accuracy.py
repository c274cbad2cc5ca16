"""What the accuracy benchmark compares, and that the README's commands of such benchmarks can be repeated."""

import re
from pathlib import Path

import pytest

from benchmarks.accuracy import PUBLISHED, over_tuning, reserve_s
from preprocessing.cohort import Cohort
from search.trial import finished_trials
from tests.conftest import ROOT
from tests.ensemble_fixtures import make_cohort, make_study

README = (ROOT / "README.md").read_text()


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


def test_more_time_is_kept_back_for_a_large_cohort_a_busy_machine_and_a_large_pool() -> None:
    assert reserve_s(4, 313) > 60 * (94 - 90) + 120, "less than the largest run needed after its search's deadline"
    assert reserve_s(8, 32) > reserve_s(4, 32)


@pytest.mark.parametrize(
    ("name", "options"),
    [("accuracy", ["--data", "--minutes"]), ("racing", ["--data", "--out"]), ("stock", ["--data", "--out"])],
)
def test_the_readme_names_all_that_its_commands_need(name: str, options: list[str]) -> None:
    commands = re.findall(rf"`python -m benchmarks\.{name}\s([^`]*)`", README)
    assert commands
    assert [command for command in commands if not all(option in command for option in options)] == []


def test_the_readme_states_what_others_published_as_the_benchmark_does() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ((?:RMSE|MAE|MAD) [^|]+) \|$", README, re.MULTILINE))
    figures = {name: figure.split(" on ")[0] for name, figure in PUBLISHED}
    assert {name: figure.split(", ")[0] for name, figure in rows.items() if name.startswith("Chen")} == {
        name: figure for name, figure in figures.items() if name.startswith("Chen")
    }
    assert figures["Chen, VGG-16 fine-tuned"] == f"RMSE {12 * 1.11:.1f} months"
    assert figures["Chen, GoogLeNet fine-tuned"] == f"RMSE {12 * 1.25:.1f} months"
