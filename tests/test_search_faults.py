"""Searches that are killed for real, and what is left of them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
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


class Search:
    """``python -m search`` in a process of its own; what it says goes to a file, which no orphan keeps open."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (open as long as the process runs)
        command = [sys.executable, "-m", "search", *map(str, arguments)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stderr=self._said)

    def wait(self, returncode: int = 0) -> str:
        """Wait for its end and return what it said."""
        found = self.process.wait(timeout=240)
        self._said.seek(0)
        said = self._said.read()
        assert found == returncode, said
        return said

    def wait_for_folds(self, study: Path, count: int) -> None:
        """Wait until so many folds are finished, while it runs."""
        deadline = time.monotonic() + 240
        while len(fold_files(study)) < count:
            assert self.process.poll() is None, self.wait(-1)
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def wait_for_failure(self) -> str:
        """Wait for its end, which is none of success, and return what it said."""
        assert self.process.wait(timeout=240) in (1, 2)
        return self.wait(self.process.returncode)

    def child(self, name: str) -> psutil.Process:
        """A process of its own Ray, by name."""
        (found,) = [child for child, known_as, _ in self._children() if known_as == name]
        return found

    def workers(self) -> list[psutil.Process]:
        """Its processes that train."""
        found = [child for child, _, command in self._children() if "ImplicitFunc" in command]
        assert found
        return found

    def _children(self) -> list[tuple[psutil.Process, str, str]]:
        """Its own and theirs, each with its name and command, less those that end just now."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found.append((child, child.name(), "".join(child.cmdline())))
        return found


def fold_files(study: Path) -> dict[str, int]:
    """Finished folds, each with the time at which its marker was written."""
    return {str(path.relative_to(study)): path.stat().st_mtime_ns for path in study.glob("trials/*/fold_?.json")}


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


@pytest.mark.faults
def test_driver_killed_in_mid_search_resumes_without_training_a_finished_fold_again(
    cohort_folder: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    driver = Search("run", cohort_folder, study, "--space", SPACE, "--trials", 4, "--concurrent", 1, TINY_IMAGES="240")
    driver.wait_for_folds(study, 4)
    workers = driver.workers()
    driver.process.kill()
    driver.wait(-signal.SIGKILL)
    psutil.wait_procs(workers, timeout=60)  # they end with their driver; until then they may write
    before = fold_files(study)
    Search("resume", study, "--concurrent", 1, TINY_IMAGES="240").wait()
    assert_accounted_for_once(study, 4)
    after = fold_files(study)
    assert {file: after[file] for file in before} == before


@pytest.mark.faults
def test_worker_killed_in_mid_trial_goes_on_after_its_last_finished_fold(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    driver = Search("run", cohort_folder, study, "--space", SPACE, "--trials", 3, "--concurrent", 1, TINY_IMAGES="240")
    driver.wait_for_folds(study, 1)
    before = fold_files(study)
    with contextlib.suppress(psutil.NoSuchProcess):  # between two trials it ends by itself
        driver.workers()[0].kill()
    driver.wait()
    assert_accounted_for_once(study, 3)
    after = fold_files(study)
    assert {file: after[file] for file in before} == before
    assert len(finished_trials(study)) >= 2


@pytest.mark.faults
def test_interrupted_and_terminated_searches_stop_cleanly_and_resume(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    driver = Search("run", cohort_folder, study, "--space", SPACE, "--trials", 3, "--concurrent", 1, TINY_IMAGES="240")
    driver.wait_for_folds(study, 1)
    driver.process.send_signal(signal.SIGINT)
    assert "resume" in driver.wait(130)
    driver = Search("resume", study, "--concurrent", 1, TINY_IMAGES="240")
    driver.wait_for_folds(study, len(fold_files(study)) + 1)
    driver.process.terminate()
    assert "resume" in driver.wait(130)
    Search("resume", study, "--concurrent", 1).wait()
    assert_accounted_for_once(study, 3)


@pytest.mark.faults
def test_ray_killed_under_a_search_ends_it_and_resume_finishes(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    quick = {"TINY_IMAGES": "240", "RAY_gcs_rpc_server_reconnect_timeout_s": "2"}
    driver = Search("run", cohort_folder, study, "--space", SPACE, "--trials", 3, "--concurrent", 1, **quick)
    driver.wait_for_folds(study, 1)
    workers = driver.workers()
    driver.child("gcs_server").kill()
    assert driver.process.wait(timeout=240) != 0
    psutil.wait_procs(workers, timeout=60)
    before = fold_files(study)
    driver = Search("resume", study, "--concurrent", 1, **quick)
    driver.wait_for_folds(study, len(before) + 1)
    workers = driver.workers()
    driver.child("raylet").kill()
    assert driver.process.wait(timeout=240) != 0
    psutil.wait_procs(workers, timeout=60)
    Search("resume", study, "--concurrent", 1).wait()
    assert_accounted_for_once(study, 3)
    after = fold_files(study)
    assert {file: after[file] for file in before} == before


@pytest.mark.faults
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_halts_the_search_and_blames_no_trial(cohort_folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], check=True)
    try:
        study, ballast = disk / "study", disk / "ballast"
        arguments = ("run", cohort_folder, study, "--space", SPACE, "--trials", 3, "--concurrent", 1)
        driver = Search(*arguments, TINY_IMAGES="240")
        driver.wait_for_folds(study, 1)
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        said = driver.wait_for_failure()
        assert "No space left" in said
        assert "resume" in said
        assert {outcome["state"] for outcome in all_outcomes(study)} <= {"complete", "stopped", "running"}
        ballast.unlink()
        Search("resume", study, "--concurrent", 1).wait()
        assert_accounted_for_once(study, 3)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.faults
def test_a_vanished_cohort_halts_the_search_and_resume_finishes_when_it_is_back(
    cohort_folder: Path, tmp_path: Path
) -> None:
    study, cohort, away = tmp_path / "study", tmp_path / "cohort", tmp_path / "away"
    shutil.copytree(cohort_folder, cohort)
    driver = Search("run", cohort, study, "--space", SPACE, "--trials", 3, "--concurrent", 1, TINY_IMAGES="240")
    driver.wait_for_folds(study, 1)
    cohort.rename(away)
    assert "cohort.json" in driver.wait(2)
    assert "no cohort.json" in Search("resume", study).wait(2)
    away.rename(cohort)
    Search("resume", study, "--concurrent", 1).wait()
    assert_accounted_for_once(study, 3)


@pytest.mark.faults
@pytest.mark.parametrize("images", [2_672, 240], ids=["measured first", "not measured"])
def test_workers_killed_for_want_of_memory_give_way_to_one_that_takes_smaller_parts(
    images: int, cohort_folder: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    space = "tests.spaces_of_tests:short_of_memory"
    Search("run", cohort_folder, study, "--space", space, "--trials", 1, TINY_IMAGES=str(images)).wait()
    assert_accounted_for_once(study, 1)
    runs = [json.loads(Path(study, file).read_text())["run"] for file in fold_files(study)]
    assert [run["accumulate"] for run in runs] == [4] * 3
    (measured,) = study.glob("trials/*/precision.json") if images > 1000 else [None]
    assert measured is None or json.loads(measured.read_text())["cpu"]["parts"] == 4
    assert not list(study.glob("trials/*/*.attempt.json"))


def test_trial_with_nan_loss_is_failed_with_its_reason_and_the_rest_goes_on(
    cohort_folder: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    Search("run", cohort_folder, study, "--space", "tests.spaces_of_tests:with_nan", "--trials", 3).wait()
    assert_accounted_for_once(study, 3)
    states = {outcome["number"]: outcome["state"] for outcome in all_outcomes(study)}
    assert states[1] == "failed"
    assert "loss" in next(o["reason"] for o in all_outcomes(study) if o["number"] == 1)
    assert Counter(states.values())["failed"] == 1


@pytest.mark.faults
def test_a_mistake_in_a_network_of_one_s_own_is_named_with_its_place(cohort_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    Search("run", cohort_folder, study, "--space", "tests.spaces_of_tests:with_a_mistake", "--trials", 1).wait()
    assert_accounted_for_once(study, 1)
    (outcome,) = all_outcomes(study)
    assert "KeyError: 'stem'" in outcome["reason"]
    assert "spaces_of_tests.py:" in outcome["reason"]


def test_same_seed_on_one_worker_gives_the_same_trials_tables_and_weights(cohort_folder: Path, tmp_path: Path) -> None:
    studies = [tmp_path / "first", tmp_path / "second"]
    for study in studies:
        Search("run", cohort_folder, study, "--space", SPACE, "--trials", 3, "--concurrent", 1, "--seed", 7).wait()
    first, second = (finished_trials(study) for study in studies)
    assert [trial.config for trial in first] == [trial.config for trial in second]
    assert [trial.fold_hashes for trial in first] == [trial.fold_hashes for trial in second]
    for a, b in zip(first, second, strict=True):
        assert a.oof["predicted_months"].equals(b.oof["predicted_months"])
    weights, again = (combine(study).weights_T for study in studies)
    assert np.array_equal(weights, again)
    told = [json.loads(line) for path in studies[0].glob("tune/trial_*/result.json") for line in path.open()]
    assert {line["trial_id"] for line in told} > {told[0]["trial_id"]}
    assert len({line["pid"] for line in told}) == 1  # one worker indeed: Ray's actors are used again
