"""What the service writes down: one line a request with its id, and nothing that a caller could have put there."""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from preprocessing.recipe import Recipe
from preprocessing.standardize import Reader
from serve import log_file, logs
from serve.books import Books
from serve.database import Database
from serve.gateway import Gateway
from serve.problems import Problem
from serve.protocol import Outcome, Query
from serve.routing import Routing
from tests.dicom_files import dicom
from tests.hostile_uploads import PNG, SCORE

VERSION = "ens-0"
READER = Reader(Recipe(size=64))


class Scorer:
    """Reads the picture, and fails as told."""

    def __init__(self) -> None:
        self.failure: Exception | None = None

    async def score(self, query: Query) -> Outcome:
        if self.failure:
            raise self.failure
        months = float(READER.read(query.data).pixels.mean())
        return Outcome({"bone_age_months": months, "version": VERSION, "warnings": []}, {"model": 0.01})

    async def version(self) -> str:
        return VERSION


class Lines(logging.Handler):
    """Keeps every record of the process with all that a JSON line would show of it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)  # fills in message and exc_text
        self.records.append(dict(record.__dict__))

    def events(self, name: str) -> list[dict[str, object]]:
        return [record for record in self.records if record["message"] == name]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    level = root.level, logs.LOGGER.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logs.LOGGER.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level[0])
    logs.LOGGER.setLevel(level[1])


@pytest.fixture
def scorer() -> Scorer:
    return Scorer()


@pytest.fixture
def client(scorer: Scorer, tmp_path: Path) -> Iterator[TestClient]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    Routing(Database(url)).begin(VERSION)
    books = Books(url, tmp_path / "spool", is_open=True)
    with TestClient(Gateway(lambda version: scorer, [], books).app(), raise_server_exceptions=False) as client:
        yield client
    books.close()


def test_one_line_tells_what_became_of_a_request(client: TestClient, lines: Lines) -> None:
    answer = client.post(SCORE, content=PNG, headers={"x-request-id": "ris-17"}).json()
    (line,) = lines.events("request")
    told = {name: line[name] for name in ("request_id", "method", "route", "status", "version", "arm", "model_ms")}
    assert told == {
        "request_id": "ris-17",
        "method": "POST",
        "route": "/v1/score",
        "status": 200,
        "version": VERSION,
        "arm": "none",
        "model_ms": 10.0,
    }
    assert line["prediction_id"] == answer["prediction_id"]
    client.post(SCORE, content=b"")
    assert lines.events("request")[-1]["code"] == "empty"


def test_probes_are_written_down_only_when_they_fail(client: TestClient, lines: Lines, scorer: Scorer) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    assert lines.events("request") == []


def test_nothing_about_a_person_is_written_down_whatever_comes(
    client: TestClient, lines: Lines, scorer: Scorer
) -> None:
    name, born, key = "Doe^Jane", "19870605", "carpal_01234567_" + "k" * 43
    marks = ("doe", "jane", born, "kkkk")
    patient = {"PatientName": name, "PatientBirthDate": born, "PatientID": f"Jane{born}"}
    file = dicom(np.random.default_rng(1).integers(0, 256, (90, 70)).astype(np.uint8), **patient)
    headers = {
        "authorization": f"Bearer {key}",
        "x-patient": name,
        "idempotency-key": f"Jane{born}",
        "user-agent": name,
        "referer": f"https://ris/{name}",
        "x-request-id": f"{name} {born}",
    }
    paths = [
        f"/v1/score?sex=male&subject={name}",
        f"/v1/score?sex={name}",
        f"/v1/score?sex=m&{name}={born}",
        f"/{name}",
    ]
    paths += [f"/v1/predictions/{name}", f"/v1/experiments/{name}", f"/v1/experiments/e/{name}"]
    bodies = [file, file[:-400], file[:600], b"Doe^Jane 19870605", name.encode() * 100]
    failures = [None, ValueError(f"{name} {born}"), Problem("unavailable", f"{name} {born}")]
    for failure in failures:
        scorer.failure = failure
        for path in paths:
            for body in bodies:
                client.post(path, content=body, headers=headers)
        client.post("/v1/score", files={"file": (f"{name}.dcm", file)}, data={"sex": name, name: born}, headers=headers)
        client.post("/v1/score", files={"file": (f"{name}.dcm", file)}, data={"sex": "f", "subject": name})
        client.request("JANE", f"/v1/score/{name}", headers=headers)
    assert len(lines.events("request")) > 100
    assert lines.events("failed")
    for record in lines.records:
        if str(record["name"]).startswith(("httpx", "asyncio")):
            continue  # the test's own client
        said = str(record).lower()
        assert not [mark for mark in marks if mark in said], record


def test_an_error_leaves_its_type_and_place_and_its_cause(lines: Lines) -> None:
    try:
        try:
            raise KeyError("Doe^Jane")
        except KeyError as error:
            raise ValueError("Doe^Jane") from error
    except ValueError as error:
        logs.failure(error, request_id="r")
    (line,) = lines.events("failed")
    causes = line["causes"]
    assert isinstance(causes, list)
    assert [cause["error"] for cause in causes] == ["ValueError", "KeyError"]
    assert causes[0]["where"][0].startswith("test_serve_logs.py:")
    assert "Doe" not in str(line)


def test_what_begins_inside_a_request_carries_its_id_and_what_is_beside_it_another() -> None:
    async def ask(request_id: str) -> list[str]:
        async def later() -> str:
            await asyncio.sleep(0.01)
            return logs.request_id()

        with logs.request(request_id):
            task = asyncio.create_task(later())
            return [logs.request_id(), await later(), await task]

    async def both() -> list[list[str]]:
        return list(await asyncio.gather(ask("a"), ask("b")))

    assert asyncio.run(both()) == [["a"] * 3, ["b"] * 3]
    assert logs.request_id() == ""


@contextlib.contextmanager
def serve_writes_by(handler: logging.Handler) -> Iterator[None]:
    serve_logger = logging.getLogger("ray.serve")
    before = logs.LOGGER.handlers[:], logs.LOGGER.filters[:], logs.LOGGER.propagate, logs.LOGGER.level
    serve_logger.addHandler(handler)
    try:
        yield
    finally:
        serve_logger.removeHandler(handler)
        handler.close()
        logs.LOGGER.handlers[:], logs.LOGGER.filters[:], logs.LOGGER.propagate = before[:3]
        logs.LOGGER.setLevel(before[3])


def serves_own(file: Path, max_bytes: int) -> logging.Handler:
    """As Ray Serve 2.60 makes it."""
    return MemoryHandler(1, target=RotatingFileHandler(file, maxBytes=max_bytes, backupCount=3))


def test_a_line_keeps_our_id_whatever_handler_serve_has() -> None:
    kept = Lines()
    with serve_writes_by(kept):
        logs.follow_serve("proxy", is_guess=True)
        logs.follow_serve("ensemble")
        logs.follow_serve("proxy", is_guess=True)  # as Serve calls it in a replica where there is no proxy
        with logs.request("ours"):
            logs.event("predicted", request_ids=["ours"])
    (line,) = kept.events("predicted")
    assert (line["request_id"], line["component"], line["skip_context_filter"]) == ("ours", "ensemble", True)


def test_a_line_in_the_file_that_serve_keeps_is_json_and_there_at_once(tmp_path: Path) -> None:
    with serve_writes_by(serves_own(tmp_path / "replica.log", 10_000)):
        logs.follow_serve("gateway")
        before = time.time()
        with logs.request("ours"):
            logs.event("request", status=200, ms=1.5)
        (line,) = map(json.loads, (tmp_path / "replica.log").read_text().splitlines())
    assert before <= line.pop("timestamp_ns") / 1e9 <= time.time()
    assert time.strptime(line.pop("asctime").split(",")[0], "%Y-%m-%d %H:%M:%S")
    assert line == {
        "levelname": "INFO",
        "message": "request",
        "process": os.getpid(),
        "request_id": "ours",
        "status": 200,
        "ms": 1.5,
        "component": "gateway",
    }


def test_a_file_that_is_full_is_put_aside_and_no_line_is_lost(tmp_path: Path) -> None:
    count = 3 * log_file.LINES_A_LOOK
    with serve_writes_by(serves_own(tmp_path / "replica.log", 10_000)):
        logs.follow_serve("gateway")
        for number in range(count):
            logs.event("request", number=number)
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    numbers = [json.loads(line)["number"] for file in files for line in file.read_text().splitlines()]
    assert sorted(numbers) == list(range(count))
