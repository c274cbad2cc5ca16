"""Real searches whose workers share the folds of trials, undisturbed and killed."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from preprocessing.cohort import Cohort
from search.trial import finished_trials, read_fold, run_trial, trial_folder
from tests.test_search_faults import SPACE, Search, assert_accounted_for_once, fold_files

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def machine(cpus: int, images: int) -> dict[str, str]:
    """Environment of a search: what Ray takes this machine for, and how long a fold is."""
    return {"RAY_OVERRIDE_RESOURCES": f'{{"CPU": {cpus}}}', "TINY_IMAGES": str(images), "OMP_NUM_THREADS": "1"}


def wait_for(driver: Search, path: Path) -> None:
    """Wait until a file is there, while the search runs."""
    deadline = time.monotonic() + 240
    while not path.exists():
        assert driver.process.poll() is None, driver.wait(-1)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begin_with_assistant(cohort_folder: Path, study: Path) -> tuple[Search, psutil.Process, psutil.Process]:
    """A search of one trial, its own worker and the one that assists with the last fold, in the middle of it.

    They may be the same: a worker that has ended its trial before another one has started is the assistant.
    """
    driver = Search(
        *("run", cohort_folder, study, "--space", SPACE, "--trials", 1, "--concurrent", 2), **machine(2, 800)
    )
    wait_for(driver, trial_folder(study, 0) / "fold_0.attempt.json")
    (own,) = driver.workers()
    wait_for(driver, trial_folder(study, 0) / "fold_2.attempt.json")
    others = [worker for worker in driver.workers() if worker.pid != own.pid]
    return driver, own, others[0] if others else own


def test_folds_of_one_trial_in_several_workers_leave_what_one_worker_leaves(
    cohort: Cohort, cohort_folder: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    arguments = ("run", cohort_folder, study, "--space", SPACE, "--trials", 2, "--pool", 2, "--concurrent", 3)
    Search(*arguments, **machine(3, 240)).wait()
    assert_accounted_for_once(study, 2)
    assisted = sorted(path.name for path in study.glob("tune/assistant_*"))
    assert "assistant_0000_fold_2" in assisted or "assistant_0001_fold_2" in assisted
    for trial in finished_trials(study):
        alone = tmp_path / str(trial.number)
        run_trial(alone, trial.config, cohort)
        hashes = [(read_fold(alone, fold) or {})["weights_sha256"] for fold in range(3)]
        assert list(trial.fold_hashes) == hashes


@pytest.mark.faults
def test_a_killed_assistant_is_started_again_and_the_trial_ends_once(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    driver, _, assistant = begin_with_assistant(cohort_folder, study)
    assistant.kill()
    driver.wait()
    assert (study / "tune" / "assistant_0000_fold_2" / "error.txt").exists()
    assert_accounted_for_once(study, 1)
    assert [trial.number for trial in finished_trials(study)] == [0]


@pytest.mark.faults
def test_a_killed_own_worker_leaves_its_assistant_at_work(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    driver, own, _ = begin_with_assistant(cohort_folder, study)
    own.kill()
    driver.wait()
    assert_accounted_for_once(study, 1)
    assert len(finished_trials(study)) == 1


@pytest.mark.faults
def test_a_killed_driver_leaves_no_claim_and_resume_trains_what_is_missing(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    driver, *workers = begin_with_assistant(cohort_folder, study)
    driver.process.kill()
    driver.wait(-signal.SIGKILL)
    psutil.wait_procs(workers, timeout=60)
    before = fold_files(study)
    Search("resume", study, "--concurrent", 1, **machine(1, 800)).wait()
    assert_accounted_for_once(study, 1)
    after = fold_files(study)
    assert {file: after[file] for file in before} == before
    assert len(after) == 3
