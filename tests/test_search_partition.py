"""The second partition: other folds of the same cases, for the survivors alone, each once, whatever is killed."""

import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from preprocessing.cohort import Cohort
from preprocessing.storage import read_json
from search.board import Board
from search.control import StudyControl, Task, result_of
from search.leaderboard import second_partition
from search.partition import on_second_partition, repartition
from search.racing import Race, make_rules
from search.report import report
from search.sampler import Sampler
from search.space import TrialConfig
from search.study import StudyError, create
from search.train import Measurement
from search.trial import (
    FoldReport,
    all_outcomes,
    clear_ended,
    finished_trials,
    partition_folder,
    run_fold,
    run_trial,
    trial_folder,
)
from tests.ensemble_fixtures import make_cohort, make_study
from tests.test_search_faults import SPACE, Search, assert_accounted_for_once


def control(folder: Path, num_trials: int = 3) -> StudyControl:
    sampler = Sampler(folder, name="study", space=SPACE, seed=3, num_trials=num_trials)
    return StudyControl(sampler, Race(make_rules("none", False, 2)), num_folds=2, num_second=2)


def report_of(fold: int, mae: float) -> dict[str, object]:
    return result_of(FoldReport(fold, Measurement(17.0, 80, 1.0, mae, final=True), (), True, False))


def finish_trials(referee: StudyControl, maes: tuple[float, ...] = (12.0, 10.0, 11.0)) -> None:
    for mae in maes:
        task = referee.next()
        assert task is not None
        for fold in range(2):
            referee.on_result(task.number, report_of(fold, mae))
        referee.on_end(task.number, crashed=False)


def finish(referee: StudyControl, task: Task, mae: float) -> None:
    assert task.fold is not None
    referee.on_result(task.number, report_of(task.fold, mae), fold=task.fold, is_second=True)
    referee.on_end(task.number, crashed=False, fold=task.fold, is_second=True)


def handed_out(referee: StudyControl) -> list[Task]:
    found = []
    while task := referee.next():
        found.append(task)
    return found


def test_it_has_other_folds_as_large_of_the_same_cases_and_keeps_groups_and_the_locked_test(cohort: Cohort) -> None:
    other = repartition(cohort, seed=1)
    before, after = cohort.cases, other.cases
    assert (before["is_test"] == after["is_test"]).all()
    assert (after.loc[after["is_test"], "fold"] == -1).all()
    assert (before["fold"] != after["fold"]).any()
    sizes = after.loc[~after["is_test"], "fold"].value_counts()
    assert set(sizes.index) == set(range(cohort.num_folds))
    assert sizes.max() - sizes.min() <= 1
    assert after[~after["is_test"]].groupby("group")["fold"].nunique().max() == 1
    assert (repartition(cohort, seed=1).cases["fold"] == after["fold"]).all()
    assert other.hash != cohort.hash


def test_the_best_trials_are_trained_again_when_all_have_ended(tmp_path: Path) -> None:
    referee = control(tmp_path)
    finish_trials(referee)
    assert not referee.is_complete
    tasks = handed_out(referee)
    assert [(task.number, task.fold) for task in tasks] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert all(task.is_second for task in tasks)
    assert referee.may_have_more
    for task in tasks:
        finish(referee, task, 13.0)
    assert (referee.next(), referee.may_have_more, referee.is_complete) == (None, False, True)
    second = partition_folder(trial_folder(tmp_path, 1)) / "outcome.json"
    assert read_json(second)["fold_mae_months"] == [13.0, 13.0]
    assert [outcome["state"] for outcome in all_outcomes(tmp_path)] == ["complete"] * 3
    assert control(tmp_path).is_complete


def test_a_fold_that_fails_there_fails_nothing_else(tmp_path: Path) -> None:
    referee = control(tmp_path)
    finish_trials(referee)
    first, second, *others = handed_out(referee)
    assert referee.on_result(1, {"failed": "The loss became nan."}, fold=0, is_second=True)
    referee.on_end(1, crashed=False, fold=0, is_second=True)
    finish(referee, second, 13.0)
    for task in others:
        finish(referee, task, 12.0)
    assert referee.is_complete
    assert read_json(partition_folder(trial_folder(tmp_path, 1)) / "outcome.json")["state"] == "failed"
    assert [outcome["state"] for outcome in all_outcomes(tmp_path)] == ["complete"] * 3
    assert first.number == 1


def test_a_fold_left_undone_is_handed_out_again(tmp_path: Path) -> None:
    referee = control(tmp_path)
    finish_trials(referee)
    tasks = handed_out(referee)
    referee.on_end(1, crashed=False, fold=0, is_second=True)
    assert [(task.number, task.fold) for task in handed_out(referee)] == [(1, 0)]
    assert len(tasks) == 4


def test_begun_twice_it_hands_each_fold_out_once(tmp_path: Path) -> None:
    referee = control(tmp_path)
    finish_trials(referee)
    referee._begin_second_if_due()  # an assistant that is given up may close the last trial on two ways
    assert len(handed_out(referee)) == 4


def test_the_board_leaves_it_out_of_its_account(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w+") as stream:
        referee = control(tmp_path)
        referee.say = board = Board(3, 2, stream=stream)
        finish_trials(referee)
        for task in handed_out(referee):
            finish(referee, task, 13.0)
        board.close({"complete": 3})
        stream.seek(0)
        said = stream.read()
    assert "6 folds trained, 0 saved" in said
    assert "second partition, fold 2/2: 13.0 months; 13.00 over all" in said


@pytest.mark.slow
def test_it_lies_beside_the_first_and_a_worker_killed_before_the_table_is_made_up_for(
    cohort: Cohort, tmp_path: Path
) -> None:
    config = TrialConfig(backbone="test_resnet", sex_features=4, batch_size=8, max_images_seen=40)
    folder, other = tmp_path / "0000", repartition(cohort, seed=0)
    run_trial(folder, config, cohort)
    second = partition_folder(folder)
    for fold in (2, 0, 1):
        run_fold(second, on_second_partition(config), other, fold, numerics_of=folder)
    (second / "oof.parquet").unlink()
    run_fold(second, on_second_partition(config), other, 0, numerics_of=folder)
    assert (second / "oof.parquet").exists()
    assert not (second / "precision.json").exists()
    assert read_json(second / "fold_0.json")["weights_sha256"] != read_json(folder / "fold_0.json")["weights_sha256"]


def test_checkpoints_of_an_unfinished_second_partition_are_kept(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, 0)
    (folder / "partition_1").mkdir(parents=True)
    (folder / "outcome.json").write_text("{}")
    (folder / "partition_1" / "fold_0.checkpoint").write_bytes(b"x")
    clear_ended(tmp_path)
    assert (folder / "partition_1" / "fold_0.checkpoint").exists()
    (folder / "partition_1" / "outcome.json").write_text("{}")
    clear_ended(tmp_path)
    assert not (folder / "partition_1" / "fold_0.checkpoint").exists()


@pytest.mark.slow
def test_the_report_tells_how_much_the_first_partition_flatters(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort", num_cases=40))
    assert "second_partition" not in report(study).tables
    for number in (0, 1):
        folder = trial_folder(study, number)
        table = pd.read_parquet(folder / "oof.parquet")
        error = table["predicted_months"] - table["bone_age_months"]
        second = partition_folder(folder)
        second.mkdir()
        table.assign(predicted_months=table["bone_age_months"] + 1.5 * error).to_parquet(second / "oof.parquet")
        (second / "outcome.json").write_text('{"state": "complete"}')
    found = report(study)
    table = found.tables["second_partition"]
    assert sorted(table["number"]) == [0, 1]
    assert np.allclose(table["second_months"], 1.5 * table["first_months"])
    assert ((table["second_low"] < table["second_months"]) & (table["second_months"] < table["second_high"])).all()
    assert "flatters" in found.html
    means = second_partition(finished_trials(study))[1]
    assert means["flattery_months"] == pytest.approx(0.5 * means["first_months"])


@pytest.mark.faults
@pytest.mark.ray
def test_a_search_killed_in_its_second_partition_resumes_there(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    arguments = ("run", cohort_folder, study, "--space", SPACE, "--trials", 2, "--pool", 1, "--partitions", 2)
    driver = Search(*arguments, "--concurrent", 1, TINY_IMAGES="800")
    deadline = time.monotonic() + 240
    while not list(study.glob("trials/*/partition_1/fold_?.json")):
        assert driver.process.poll() is None, driver.wait(-1)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = driver.workers()
    driver.process.kill()
    driver.wait(-signal.SIGKILL)
    psutil.wait_procs(workers, timeout=60)
    before = {path: path.stat().st_mtime_ns for path in study.glob("trials/**/fold_?.json")}
    Search("resume", study, "--concurrent", 1, TINY_IMAGES="800").wait()
    assert_accounted_for_once(study, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    best, other = sorted(finished_trials(study), key=lambda trial: trial.mae_months)
    assert other.second_oof is None
    assert best.second_oof is not None
    assert best.second_oof["case_id"].equals(best.oof["case_id"])


@pytest.mark.faults
@pytest.mark.ray
def test_a_study_that_was_begun_without_gets_its_second_partition_when_resumed(
    cohort_folder: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    Search("run", cohort_folder, study, "--space", SPACE, "--trials", 1, "--pool", 1, "--concurrent", 1).wait()
    assert finished_trials(study)[0].second_oof is None
    before = (study / "study.json").read_bytes()
    Search("resume", study, "--partitions", 2, "--concurrent", 1).wait()
    assert finished_trials(study)[0].second_oof is not None
    assert (study / "study.json").read_bytes() == before


def test_a_third_partition_is_refused(cohort_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="--partitions must be 1 or 2, got 3"):
        create(
            str(cohort_folder),
            str(tmp_path / "s"),
            space=SPACE,
            num_trials=1,
            pool_size=1,
            seed=0,
            partitions=3,
        )
