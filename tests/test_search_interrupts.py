"""Signals while a search runs: kept where an exception would do harm, and heeded everywhere else."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from preprocessing import environment
from search import __main__ as commands
from search import study as studies
from search.interrupts import heeded, postponed, ray_running
from tests.test_search_faults import SPACE, Search

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def handlers() -> list[object]:
    return [signal.getsignal(each) for each in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_and_the_handlers_before_are_put_back(number: signal.Signals) -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt), heeded():
        signal.raise_signal(number)
    assert handlers() == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_postponed_signal_interrupts_once_what_it_met_is_over(number: signal.Signals) -> None:
    before, done = handlers(), list[str]()

    def work() -> None:
        with postponed():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    assert handlers() == before


def test_a_signal_goes_to_whoever_takes_sigint_and_not_after_that_is_over() -> None:
    taken: list[int] = []
    with heeded():
        with heeded():
            signal.signal(signal.SIGINT, lambda number, frame: taken.append(number))  # as Tune does
            signal.raise_signal(signal.SIGTERM)
        assert taken == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_while_ray_starts_waits_for_it_and_ends_it_again() -> None:
    said: list[str] = []

    def start() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        said.append("started")

    with pytest.raises(KeyboardInterrupt), ray_running(start, lambda: said.append("ended"), is_own=True):
        said.append("used")
    assert said == ["started", "ended"]


def test_a_handler_that_is_taken_while_ray_starts_is_put_back() -> None:
    is_taken, may_end = threading.Event(), threading.Event()

    def start() -> None:
        is_taken.wait(5)
        may_end.wait(5)

    def steal() -> None:  # handlers are set in the main thread alone: a signal of another kind brings us there
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        is_taken.set()

    before = signal.signal(signal.SIGUSR2, lambda number, frame: steal())
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2)).start()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    threading.Timer(0.4, may_end.set).start()
    try:
        with pytest.raises(KeyboardInterrupt), ray_running(start, lambda: None, is_own=True):
            pass
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_cluster_that_does_not_answer_is_not_waited_for_after_a_signal() -> None:
    hangs, said = threading.Event(), list[str]()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ray_running(lambda: hangs.wait(30), lambda: said.append("!"), is_own=False):
        pass
    hangs.set()
    assert time.monotonic() - began < 10
    assert not said


def test_a_ray_that_does_not_start_says_why() -> None:
    def start() -> None:
        raise ConnectionError("no such cluster")

    with pytest.raises(ConnectionError, match="no such cluster"), ray_running(start, lambda: None, is_own=True):
        pass


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("moment", "sentence"),
    [
        ("create", "interrupted. Nothing was begun: run the same command again."),
        ("run", "interrupted. Go on with: python -m search resume {study}"),
    ],
)
def test_a_signal_outside_of_the_trials_ends_with_a_sentence_and_status_130(
    moment: str,
    sentence: str,
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(environment, "prepare", lambda own_ray: None)  # it is for a process of its own
    monkeypatch.setattr(studies, "create", lambda cohort, study, **options: study)
    monkeypatch.setattr(studies, moment, lambda *arguments, **options: signal.raise_signal(number))
    study = tmp_path / "study"
    assert commands.main(["run", "cohort", str(study)]) == 130
    assert sentence.format(study=study) in capsys.readouterr().err


def torch_is_being_loaded(process: psutil.Process, study: Path) -> bool:
    return any("libtorch" in place.path for place in process.memory_maps())


def study_is_created(process: psutil.Process, study: Path) -> bool:
    return (study / "study.json").exists()


def ray_starts(process: psutil.Process, study: Path) -> bool:
    return any(child.name() == "gcs_server" for child in process.children(recursive=True))


def ray_is_there(process: psutil.Process, study: Path) -> bool:
    return any(child.name() == "raylet" for child in process.children(recursive=True))


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "later", "number"),
    [
        (torch_is_being_loaded, 0.0, signal.SIGTERM),
        (study_is_created, 0.0, signal.SIGINT),
        (ray_starts, 0.0, signal.SIGTERM),
        (ray_is_there, 0.0, signal.SIGTERM),
        (ray_is_there, 1.5, signal.SIGTERM),
    ],
)
def test_a_search_that_gets_a_signal_before_its_first_fold_says_how_to_go_on(
    moment: Callable[[psutil.Process, Path], bool],
    later: float,
    number: signal.Signals,
    cohort_folder: Path,
    tmp_path: Path,
) -> None:
    study = tmp_path / "study"
    driver = Search("run", cohort_folder, study, "--space", SPACE, "--trials", 1, "--concurrent", 1, TINY_IMAGES="800")
    process = psutil.Process(driver.process.pid)
    while not moment(process, study):
        assert driver.process.poll() is None, driver.wait(-1)
        time.sleep(0.01)
    time.sleep(later)
    children = process.children(recursive=True)
    driver.process.send_signal(number)
    said = driver.wait(130)
    assert "Nothing was begun" in said or f"python -m search resume {study}" in said
    assert ("Nothing was begun" in said) == (not (study / "study.json").exists())
    assert not psutil.wait_procs(children, timeout=30)[1]
