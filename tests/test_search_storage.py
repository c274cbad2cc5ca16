"""Optuna's record in databases and journals: what is kept, shared, and left open by a kill."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import optuna
import pytest

from preprocessing.storage import StorageError, as_path, write_json
from search import study as studies
from search.control import StudyControl
from search.journal import FILE, ObjectJournal, open_storage, open_to_look, url_without_password
from search.sampler import Outcome, Sampler
from search.study import create, run
from search.trial import all_outcomes, trial_folder
from search.tuning import Compute, Job, StudyError
from tests.conftest import ROOT
from tests.postgres_server import PostgresServer
from tests.test_search_control import begin, control, play

SPACE = "tests.spaces_of_tests:tiny"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of a private PostgreSQL server."""
    server = PostgresServer()
    yield server.url
    server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database."""
    return f"sqlite:///{tmp_path}/optuna.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


def states(folder: Path, url: str, name: str) -> list[str]:
    study = optuna.load_study(study_name=name, storage=open_storage(folder, url))
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def test_a_study_in_a_database_goes_on_where_it_was_killed(tmp_path: Path, url: str) -> None:
    referee = control(tmp_path, name="a", storage=url, num_trials=4)
    play(referee, begin(referee), [10.0, 11.0, 12.0])
    unfinished, told_on_disk = begin(referee), begin(referee)
    write_json(trial_folder(tmp_path, told_on_disk) / "outcome.json", Outcome("complete", (9.0, 9.0, 9.0)).to_dict())
    restarted = control(tmp_path, name="a", storage=url, num_trials=4)
    assert states(tmp_path, url, "a") == ["COMPLETE", "RUNNING", "COMPLETE"]
    assert [begin(restarted) for _ in range(4)] == [0, told_on_disk, unfinished, 3]


def test_studies_of_one_database_do_not_meet(tmp_path: Path, url: str) -> None:
    first = control(tmp_path / "b", name="b", storage=url)
    play(first, begin(first), [10.0, 11.0, 12.0])
    begin(control(tmp_path / "c", name="c", storage=url))
    assert states(tmp_path, url, "b") == ["COMPLETE"]
    assert states(tmp_path, url, "c") == ["RUNNING"]


def test_a_lost_record_is_not_begun_anew_over_trials_on_disk(tmp_path: Path) -> None:
    referee = control(tmp_path)
    play(referee, begin(referee), [10.0, 11.0, 12.0])
    (tmp_path / FILE).unlink()
    with pytest.raises(ValueError, match=r"holds the trials \[0\]"):
        control(tmp_path)


def test_a_password_is_not_written_down() -> None:
    url, password = url_without_password("postgresql+psycopg://carpal:secret@db/optuna")
    assert (url, password) == ("postgresql+psycopg://carpal@db/optuna", "secret")


@pytest.mark.parametrize("url", ["no url", "sqlite://"])
def test_what_is_no_database_is_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="--storage"):
        url_without_password(url)


def test_a_database_out_of_reach_is_a_sentence_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened") as caught:
        open_storage(tmp_path, f"postgresql+psycopg://carpal:secret@/x?host={tmp_path}")
    assert "secret" not in str(caught.value)


def test_the_dashboard_reads_a_journal_and_cannot_write_to_it(tmp_path: Path) -> None:
    Sampler(tmp_path, name="s", space=SPACE, seed=0, num_trials=1).ask()
    storage = open_to_look(tmp_path)
    study = optuna.load_study(study_name="s", storage=storage)
    assert len(study.trials) == 1
    with pytest.raises(PermissionError):
        optuna.delete_study(study_name="s", storage=storage)


def test_the_dashboard_shows_the_study(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    Sampler(tmp_path, name="s", space=SPACE, seed=0, num_trials=1).ask()
    answers: list[str] = []
    app = dashboard.wsgi(open_to_look(tmp_path))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "SERVER_NAME": "x", "wsgi.input": None}
    body = b"".join(app(environ, lambda status, headers, error=None: answers.append(status)))
    assert answers == ["200 OK"]
    assert b'"s"' in body


def test_the_dashboard_s_command_answers_on_this_machine_alone_until_it_is_ended(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    Sampler(tmp_path, name="s", space=SPACE, seed=0, num_trials=1).ask()
    write_json(tmp_path / "study.json", {"format": "carpal-study-1", "storage": ""})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "search", "dashboard", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            assert b'"s"' in _when_it_answers(f"http://127.0.0.1:{port}/api/studies", running)
        finally:
            running.terminate()
        assert running.wait(30) == -signal.SIGTERM


def _when_it_answers(url: str, running: "subprocess.Popen[bytes]") -> bytes:
    direct, end = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + 60
    while True:
        assert running.poll() is None
        try:
            with direct.open(url, timeout=10) as answer:
                return bytes(answer.read())
        except URLError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_second_driver_on_an_object_store_is_refused_and_overwrites_nothing() -> None:
    folder = as_path("memory://two/drivers/optuna.journal")
    first, second = ObjectJournal(folder), ObjectJournal(folder)
    first.append_logs([{"a": 1}])
    with pytest.raises(StorageError, match="Another process writes to the study's journal"):
        second.append_logs([{"b": 2}])
    assert list(ObjectJournal(folder).read_logs(0)) == [{"a": 1}]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own, which it may stop."""
    server = PostgresServer()
    yield server
    with contextlib.suppress(subprocess.CalledProcessError):  # it runs, unless the test has failed
        server.start()
    server.remove()


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.parametrize("is_told", [True, False], ids=["halted by it", "away in the end alone"])
def test_a_database_that_dies_ends_the_run_with_a_sentence_and_resume_goes_on(
    cohort_folder: Path, tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    study = str(tmp_path / "study")
    options: dict[str, Any] = {"num_trials": 1, "pool_size": 1, "seed": 0, "screen": False}
    create(str(cohort_folder), study, space=SPACE, storage=server.url, **options)

    def dies(job: Job, compute: Compute, control: StudyControl) -> None:
        play(control, begin(control), [10.0, 11.0, 12.0])
        server.stop()
        if is_told:
            control.halt("The disk is full.")

    monkeypatch.setattr(studies, "fit", dies)
    with pytest.raises(StudyError, match=r"(The disk is full|cannot be kept \(OperationalError.*)\. Mend .* resume /"):
        run(study, Compute())
    server.start()
    monkeypatch.setattr(studies, "fit", lambda job, compute, control: play(control, begin(control), [10.0, 11.0, 12.0]))
    assert run(study, Compute()) == "complete"
    assert [outcome["state"] for outcome in all_outcomes(study)] == ["complete"]


@pytest.mark.parametrize("line", [b"garbage", b"\xff\xfe", b"17", b"{}"])
@pytest.mark.parametrize("opened", [open_storage, open_to_look])
def test_a_broken_line_of_the_journal_is_named(opened: Callable[[Path], object], line: bytes, tmp_path: Path) -> None:
    Sampler(tmp_path, name="s", space=SPACE, seed=0, num_trials=1).ask()
    lines = (tmp_path / FILE).read_bytes().splitlines()
    (tmp_path / FILE).write_bytes(b"\n".join([*lines[:2], line, *lines[3:], b""]))
    with pytest.raises(StorageError, match=rf"{tmp_path}/{FILE}, line 3: .* Restore the file from a backup"):
        opened(tmp_path)
