"""The HTTP surface without Ray: a scorer that answers with the picture's mean stands behind it."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from preprocessing.checks import CHECKS
from preprocessing.recipe import Recipe
from preprocessing.standardize import Reader
from serve import arms, limits
from serve.books import Books
from serve.database import Database
from serve.gateway import Gateway
from serve.problems import STATUS, Problem
from serve.protocol import Outcome, Query
from serve.routing import Routing
from tests.hostile_uploads import PNG, SCORE, UPLOADS, Upload

READER = Reader(Recipe(size=64))


class MeanScorer:
    """Answers with the mean grey level, or as told."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.pause_s = 0.0

    async def score(self, query: Query) -> Outcome:
        await asyncio.sleep(self.pause_s)
        if self.failure:
            raise self.failure
        months = float(READER.read(query.data).pixels.mean())
        return Outcome({"bone_age_months": months, **query.options(), "version": "ens-0"})

    async def version(self) -> str:
        if self.failure:
            raise self.failure
        return "ens-0"


@pytest.fixture
def scorer() -> MeanScorer:
    return MeanScorer()


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("books")
    url = f"sqlite:///{folder}/ledger.db"
    Routing(Database(url)).begin("ens-0")
    books = Books(url, folder / "spool", is_open=True)
    yield books
    books.close()


@pytest.fixture
def client(scorer: MeanScorer, books: Books) -> Iterator[TestClient]:
    app = Gateway(lambda version: scorer, [{"version": "ens-0"}], books).app()
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def check(response: Any, upload: Upload) -> None:
    """The right status and code, in the one shape."""
    assert response.status_code == upload.status, response.text
    body = response.json() if upload.method != "HEAD" else None
    assert body["request_id"] == response.headers["x-request-id"]
    if upload.code is None:
        assert 0 <= body["bone_age_months"] < 256
        return
    assert response.headers["content-type"] == "application/problem+json"
    assert body["code"] == upload.code
    assert body["status"] == upload.status == STATUS[upload.code]
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert re.fullmatch(r"[A-Z].+[.]", body["detail"], re.DOTALL), body["detail"]
    assert "hand.png" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("upload", UPLOADS, ids=lambda upload: upload.name)
def test_hostile_upload_gets_a_problem_and_a_strange_one_its_reading(client: TestClient, upload: Upload) -> None:
    check(client.request(upload.method, upload.path, headers=upload.headers, content=upload.content), upload)


def test_sex_reaches_the_scorer_from_the_form(client: TestClient) -> None:
    answer = client.post("/v1/score", files={"file": ("x.png", PNG)}, data={"sex": "F"})
    assert answer.json()["sex"] == "female"


def test_every_parameter_reaches_the_scorer(client: TestClient) -> None:
    answer = client.post("/v1/score?sex=u&chronological_age_months=126.5&profile=fast", content=PNG).json()
    said = {name: answer[name] for name in ("sex", "chronological_age_months", "profile", "explain")}
    assert said == {"sex": "unknown", "chronological_age_months": 126.5, "profile": "fast", "explain": False}


def test_body_without_a_length_is_counted_as_it_arrives(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(1024 * 1024)

    answer = client.post(SCORE, content=pieces())
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_announced_giant_is_refused_before_it_is_sent(client: TestClient) -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"expect": "100-continue", "content-length": str(10**12)}
    assert client.post(SCORE, headers=headers, content=never()).json()["code"] == "too_large"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-1.2_3", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("a b", False),
        ("a\xff", False),
    ],
)
def test_request_id_is_kept_when_well_formed(client: TestClient, given: str, kept: bool) -> None:
    answer = client.get("/healthz", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert (answer.headers["x-request-id"] == given) is kept
    assert len(answer.headers["x-request-id"]) >= 8


def test_wrong_method_names_the_right_ones(client: TestClient) -> None:
    assert client.get("/v1/score").headers["allow"] == "POST"


def test_unexpected_failure_is_logged_once_and_told_without_its_cause(
    client: TestClient, scorer: MeanScorer, caplog: pytest.LogCaptureFixture
) -> None:
    scorer.failure = RuntimeError("secret of the house")
    answer = client.post(SCORE, content=PNG)
    check(answer, Upload("", 500, "internal"))
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.__dict__["request_id"] == answer.json()["request_id"]
    assert record.__dict__["causes"][0]["error"] == "RuntimeError"
    assert "secret" not in str(record.__dict__)


def test_full_queue_says_when_to_come_again(client: TestClient, scorer: MeanScorer) -> None:
    scorer.failure = Problem("overloaded", "Every place is taken.")
    answer = client.post(SCORE, content=PNG)
    check(answer, Upload("", 503, "overloaded"))
    assert int(answer.headers["retry-after"]) >= 1


def test_full_gateway_refuses_at_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IN_FLIGHT", 0)
    check(client.post(SCORE, content=PNG), Upload("", 503, "overloaded"))


def test_slow_scorer_is_given_up(client: TestClient, scorer: MeanScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "SCORE_TIMEOUT_S", 0.05)
    scorer.pause_s = 5
    check(client.post(SCORE, content=PNG), Upload("", 504, "timeout"))


def test_alive_without_ensemble_but_not_ready(client: TestClient, scorer: MeanScorer) -> None:
    ledger = {"status": "up", "spooled_bytes": 0, "refused": 0}
    assert client.get("/readyz").json() == {"status": "ready", "version": "ens-0", "ledger": ledger}
    scorer.failure = Problem("unavailable", "It is gone.")
    assert client.get("/healthz").status_code == 200
    check(client.get("/readyz"), Upload("", 503, "unavailable"))


def test_versions_are_listed(client: TestClient) -> None:
    assert client.get("/v1/versions").json() == {"versions": [{"version": "ens-0"}]}


def test_every_refusal_of_the_gate_is_a_code_of_the_service() -> None:
    refused = {check.code for check in CHECKS if check.action == "refused"}
    assert refused <= set(STATUS)
