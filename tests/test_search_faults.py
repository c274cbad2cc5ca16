"""Searches that are killed for real, and what is left of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest

from ensemble.combine import combine
from search.journal import open_journal
from search.trial import all_outcomes, finished_trials
from tests.conftest import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = "tests.spaces_of_tests:tiny"


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "search", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(condition: object, process: subprocess.Popen[str], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finish(process: subprocess.Popen[str]) -> str:
    errors = process.communicate(timeout=240)[1]
    assert process.returncode == 0, errors
    return errors


def fold_files(study: Path) -> dict[str, int]:
    """Finished folds, each with the time at which its marker was written."""
    return {str(path.relative_to(study)): path.stat().st_mtime_ns for path in study.glob("trials/*/fold_*.json")}


def assert_accounted_for_once(study: Path, num_trials: int) -> None:
    """Every trial stands once in Optuna, once in Tune's result, once on disk, and they agree."""
    states = {"complete": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
    disk = {outcome["number"]: states[outcome["state"]] for outcome in all_outcomes(study)}
    (name,) = optuna.get_all_study_names(open_journal(study))
    journal = optuna.load_study(study_name=name, storage=open_journal(study)).get_trials(deepcopy=False)
    tune = [json.loads(path.read_text())["number"] for path in study.glob("tune/trial_*/params.json")]
    assert {trial.number: trial.state.name for trial in journal} == disk
    assert Counter(tune) == Counter(range(num_trials))
    assert sorted(disk) == list(range(num_trials))


def test_driver_killed_in_mid_search_resumes_without_training_a_finished_fold_again(
    cohort_folder: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    driver = start("run", cohort_folder, study, "--space", SPACE, "--trials", 4, "--concurrent", 1, TINY_IMAGES="240")
    wait_for(lambda: len(fold_files(study)) >= 4, driver)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    psutil.wait_procs(children, timeout=60)
    before = fold_files(study)
    finish(start("resume", study, "--concurrent", 1, TINY_IMAGES="240"))
    assert_accounted_for_once(study, 4)
    after = fold_files(study)
    assert {file: after[file] for file in before} == before


def test_worker_killed_in_mid_trial_goes_on_after_its_last_finished_fold(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    driver = start("run", cohort_folder, study, "--space", SPACE, "--trials", 3, "--concurrent", 1, TINY_IMAGES="240")
    wait_for(lambda: len(fold_files(study)) >= 1, driver)
    workers = [
        process
        for process in psutil.Process(driver.pid).children(recursive=True)
        if "ImplicitFunc" in "".join(process.cmdline()) or "ImplicitFunc" in process.name()
    ]
    assert workers
    before = fold_files(study)
    workers[0].kill()
    finish(driver)
    assert_accounted_for_once(study, 3)
    after = fold_files(study)
    assert {file: after[file] for file in before} == before
    assert len(finished_trials(study)) >= 2


def test_terminated_search_stops_cleanly_and_resumes(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    driver = start("run", cohort_folder, study, "--space", SPACE, "--trials", 3, "--concurrent", 1, TINY_IMAGES="240")
    wait_for(lambda: len(fold_files(study)) >= 1, driver)
    driver.terminate()
    errors = driver.communicate(timeout=60)[1]
    assert driver.returncode == 130
    assert "resume" in errors
    finish(start("resume", study, "--concurrent", 1))
    assert_accounted_for_once(study, 3)


def test_trial_with_nan_loss_is_failed_with_its_reason_and_the_rest_goes_on(
    cohort_folder: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    finish(start("run", cohort_folder, study, "--space", "tests.spaces_of_tests:with_nan", "--trials", 3))
    assert_accounted_for_once(study, 3)
    states = {outcome["number"]: outcome["state"] for outcome in all_outcomes(study)}
    assert states[1] == "failed"
    assert "loss" in next(o["reason"] for o in all_outcomes(study) if o["number"] == 1)
    assert Counter(states.values())["failed"] == 1


def test_same_seed_on_one_worker_gives_the_same_trials_tables_and_weights(cohort_folder: Path, tmp_path: Path) -> None:
    studies = [tmp_path / "first", tmp_path / "second"]
    for study in studies:
        finish(start("run", cohort_folder, study, "--space", SPACE, "--trials", 3, "--concurrent", 1, "--seed", 7))
    first, second = (finished_trials(study) for study in studies)
    assert [trial.config for trial in first] == [trial.config for trial in second]
    assert [trial.fold_hashes for trial in first] == [trial.fold_hashes for trial in second]
    for a, b in zip(first, second, strict=True):
        assert a.oof["predicted_months"].equals(b.oof["predicted_months"])
    assert np.array_equal(*(combine(study).weights_T for study in studies))
