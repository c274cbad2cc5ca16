"""What the gateway stores, to whom it opens, and that no challenger ever harms the champion's answer. No Ray."""

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from starlette.testclient import TestClient

from preprocessing.radiograph import RadiographError
from serve import arms, books, experiment_report, page_experiment, reports, versions
from serve.books import Books
from serve.database import Database, LedgerDownError
from serve.entries import Answered, Entry
from serve.experiment import Experiment, Policy
from serve.experiment_policy import Judge
from serve.experiment_report import report
from serve.gateway import Gateway
from serve.keys import Keys
from serve.lifecycle import Lifecycle, experiment_named
from serve.observations import Observed, observe
from serve.parameters import MAX_JSON_BYTES
from serve.problems import Problem
from serve.protocol import Outcome, Query
from serve.routing import Routing
from serve.spool import spool_of
from tests.hostile_uploads import PNG, SCORE
from tests.ledger_fixtures import answered
from tests.postgres_server import PostgresServer

A, B = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb"


HEATMAP = b"\x89PNG of colours"


class Version:
    """A bundle version that answers a number, or as told."""

    def __init__(self, name: str, months: float) -> None:
        self.name, self.months = name, months
        self.failure: Exception | None = None
        self.pause_s = 0.0
        self.hangs = self.fails_once = False
        self.asked = 0

    async def score(self, query: Query) -> Outcome:
        self.asked += 1
        await asyncio.sleep(self.pause_s)
        if failure := self.failure:
            self.failure = None if self.fails_once else failure
            raise failure
        answer = {"bone_age_months": self.months, "version": self.name}
        if not query.explain:
            return Outcome(answer)
        return Outcome({**answer, "heatmap": {"view": "full"}}, heatmap=HEATMAP)

    async def version(self) -> str:
        if self.failure and not isinstance(self.failure, RadiographError):  # who refuses an image answers
            raise self.failure
        if self.hangs:
            await asyncio.sleep(60)
        return self.name


class Site:
    """A gateway with two versions and a ledger."""

    def __init__(self, folder: Path, *, is_open: bool = True, url: str = "") -> None:
        self.url = url or f"sqlite:///{folder}/ledger.db"
        self.database = Database(self.url)
        Routing(self.database).begin(A)
        self.versions = {A: Version(A, 100.0), B: Version(B, 90.0)}
        self.lifecycle = Lifecycle(self.database, "me")
        self.keys = Keys(self.database, "me")
        self.books = Books(self.url, folder / "spool", is_open=is_open)
        self.gateway = Gateway(self.versions.__getitem__, [], self.books)
        self.client = TestClient(self.gateway.app(), raise_server_exceptions=False)

    def score(self, **changes: Any) -> Any:
        subject = changes.pop("subject", None)
        path = SCORE + (f"&subject={subject}" if subject else "")
        return self.client.post(path, content=changes.pop("content", PNG), **changes)

    def start(self, mode: str = "shadow", *, is_answering: bool = True, **changes: Any) -> None:
        """Start an experiment, and wait until the gateway has found its challenger, if that answers at all."""
        self.lifecycle.start("e", B, mode=mode, **changes)
        self.books.refresh()
        if is_answering:
            wait_for(lambda: B in seen_by(self.gateway).ready)

    def experiment(self) -> Experiment:
        """The one that the gateway follows."""
        assert self.books.state.experiment is not None
        return self.books.state.experiment

    def challenged(self) -> str:
        """A subject whom the challenger scores: of requests without one, the champion draws its share."""
        return next(name for name in map(str, range(99)) if self.experiment().arm_of(name) == "challenger")

    def found(self) -> dict[str, Any]:
        return report(self.database, self.experiment())


def seen_by(gateway: Gateway) -> versions.Versions:
    """Which versions a gateway has found to answer, and to sleep."""
    return gateway._arms._versions


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "LOOK_S", 0.03)


@contextlib.contextmanager
def running(site: Site) -> Iterator[Site]:
    with site.client:
        wait_for(lambda: A in seen_by(site.gateway).ready)
        yield site
    site.books.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(Site(tmp_path)) as one:
        yield one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For tests that start no experiment."""
    with running(Site(tmp_path_factory.mktemp("shared"))) as one:
        yield one


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Site(tmp_path_factory.mktemp("closed"), is_open=False)) as one:
        yield one


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_answer_is_in_the_ledger_before_it_is_given(site: Site) -> None:
    answer = site.score(subject="Doe^Jane").json()
    found = site.client.get(f"/v1/predictions/{answer['prediction_id']}").json()
    assert found["answer"] == answer
    assert (found["sex"], found["references"], found["shadow"]) == ("male", [], None)
    assert b"Doe" not in Path(site.url.removeprefix("sqlite:///")).read_bytes()


def test_an_answer_names_the_image_that_was_read(site: Site) -> None:
    assert site.score().json()["image_sha256"] == hashlib.sha256(PNG).hexdigest()


def test_a_heat_map_is_kept_beside_its_prediction(site: Site) -> None:
    plain, answer = site.score().json(), site.client.post(SCORE + "&explain=true", content=PNG).json()
    assert answer["heatmap"] == {"view": "full", "href": f"/v1/predictions/{answer['prediction_id']}/heatmap.png"}
    found = site.client.get(answer["heatmap"]["href"])
    assert (found.content, found.headers["content-type"]) == (HEATMAP, "image/png")
    missing = site.client.get(f"/v1/predictions/{plain['prediction_id']}/heatmap.png")
    assert (missing.status_code, missing.json()["code"]) == (404, "heatmap_unknown")


def test_who_asked_for_a_heat_map_sees_it_and_nobody_else_without_the_role(closed: Site) -> None:
    mine, other, reader = (
        {"authorization": f"Bearer {closed.keys.add('x', [role])}"} for role in ("score", "score", "read")
    )
    closed.books.refresh()
    answer = closed.client.post(SCORE + "&explain=true", content=PNG, headers=mine).json()
    seen = [closed.client.get(answer["heatmap"]["href"], headers=key).status_code for key in (mine, other, reader)]
    assert seen == [200, 403, 200]


def test_a_shadow_is_asked_for_no_heat_map(site: Site) -> None:
    site.start()
    answer = site.client.post(SCORE + "&explain=true", content=PNG).json()
    path = f"/v1/predictions/{answer['prediction_id']}"
    wait_for(lambda: site.client.get(path).json()["shadow"] is not None)
    assert "heatmap" not in site.client.get(path).json()["shadow"]


def test_a_reading_joins_its_prediction_once(site: Site) -> None:
    path = f"/v1/predictions/{site.score().json()['prediction_id']}"
    reading = {"bone_age_months": 96, "reader": "b"}
    assert [site.client.post(f"{path}/reference", json=reading).status_code for _ in range(2)] == [201, 200]
    (kept,) = site.client.get(path).json()["references"]
    assert (kept["bone_age_months"], kept["reader"]) == (96.0, "b")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body_malformed"),
        (b"[1]", "body_malformed"),
        (b"{", "body_malformed"),
        (b'{"bone_age_months": "90"}', "body_malformed"),
        (b'{"bone_age_months": true}', "body_malformed"),
        (b'{"bone_age_months": NaN}', "body_malformed"),
        (b'{"bone_age_months": 90, "name": "x"}', "body_malformed"),
        (b"[" * 60_000, "body_malformed"),
        (b'{"bone_age_months": 240}', "reference_malformed"),
        (b'{"bone_age_months": -1}', "reference_malformed"),
        (b'{"bone_age_months": 1e999}', "reference_malformed"),
        (b'{"bone_age_months": 90, "reader": "\\u0000"}', "reference_malformed"),
    ],
)
def test_a_malformed_reading_is_a_problem(shared: Site, body: bytes, code: str) -> None:
    path = f"/v1/predictions/{shared.score().json()['prediction_id']}/reference"
    answer = shared.client.post(path, content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize("path", ["/v1/predictions/x/reference", "/v1/experiments", "/v1/versions"])
def test_json_that_is_too_large_is_a_problem(shared: Site, path: str) -> None:
    answer = shared.client.post(path, content=b"[" + b" " * MAX_JSON_BYTES)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("name", ["0" * 32, "x", "%00", "0" * 5000])
def test_an_unknown_prediction_is_a_problem(shared: Site, name: str) -> None:
    assert shared.client.get(f"/v1/predictions/{name}").json()["code"] == "prediction_unknown"
    body = {"bone_age_months": 1}
    assert shared.client.post(f"/v1/predictions/{name}/reference", json=body).json()["code"] == "prediction_unknown"


@pytest.mark.parametrize("subject", ["%00", "", "x" * 129, "a&subject=b"])
def test_a_malformed_subject_is_a_problem(shared: Site, subject: str) -> None:
    assert shared.client.post(f"{SCORE}&subject={subject}", content=PNG).json()["code"] == "subject_malformed"


def test_a_repeated_request_gets_the_first_answer(site: Site) -> None:
    headers = {"idempotency-key": "k"}
    first, again = site.score(headers=headers), site.score(headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert site.versions[A].asked == 1
    other = site.score(headers=headers, content=PNG + b"\0")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert site.score(headers={"idempotency-key": "a b"}).json()["code"] == "idempotency_malformed"


def test_of_the_same_request_sent_at_once_one_is_scored(site: Site) -> None:
    site.versions[A].pause_s = 0.2
    found: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(site.score(headers={"idempotency-key": "k"}).json()["prediction_id"])
        )
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found)), site.versions[A].asked) == (5, 1, 1)


ROUTES = [
    ("POST", SCORE, "score"),
    ("POST", "/v1/predictions/x/reference", "score"),
    ("GET", "/v1/predictions/x", "read"),
    ("POST", "/v1/score/batch", "score"),
    ("GET", "/v1/versions", "read"),
    ("GET", "/v1/experiments", "read"),
    ("GET", "/v1/experiments/e", "read"),
    ("POST", "/v1/experiments", "admin"),
    ("POST", "/v1/experiments/e/stop", "admin"),
]


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
def test_every_route_asks_for_a_key_with_its_role(closed: Site, method: str, path: str, role: str) -> None:
    def ask(authorization: str | None) -> tuple[int, str]:
        headers = {"authorization": authorization} if authorization else {}
        answer = closed.client.request(method, path, content=b"", headers=headers)
        return answer.status_code, answer.json().get("code", "")

    others = [other for other in ("score", "read") if other != role]
    wrong, right = closed.keys.add("other", others), closed.keys.add("right", [role])
    closed.books.refresh()
    assert ask(None) == ask(f"Basic {right}") == (401, "key_missing")
    assert ask("Bearer carpal") == (401, "key_wrong")
    assert ask(f"Bearer {wrong}") == (403, "role_missing")
    assert ask(f"Bearer {right}")[0] not in (401, 403)


def test_a_key_sends_as_many_images_as_it_may(closed: Site) -> None:
    token = {"authorization": f"Bearer {closed.keys.add('ris', ['score'], per_minute=3)}"}
    closed.books.refresh()
    answers = [closed.score(headers=token) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].json()["code"] == "rate_limited"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20  # what is left of a third of a minute


def test_a_key_that_ends_closes_without_a_restart(closed: Site) -> None:
    key = closed.keys.add("ris", ["score"])
    wait_for(lambda: closed.score(headers={"authorization": f"Bearer {key}"}).status_code == 200)
    closed.keys.end(key.split("_")[1])
    wait_for(lambda: closed.score(headers={"authorization": f"Bearer {key}"}).status_code == 401)
    assert closed.client.get("/healthz").status_code == 200


def test_a_shadow_is_stored_beside_the_champions_answer(site: Site) -> None:
    site.start()
    answer = site.score().json()
    assert answer["version"] == A
    path = f"/v1/predictions/{answer['prediction_id']}"
    wait_for(lambda: site.client.get(path).json()["shadow"] is not None)
    assert site.client.get(path).json()["shadow"]["bone_age_months"] == 90.0
    site.client.post(f"{path}/reference", json={"bone_age_months": 92})
    assert site.found()["difference"]["mean_months"] == pytest.approx(8 - 2)


def test_a_slow_or_dead_shadow_is_not_felt(site: Site) -> None:
    site.start()
    site.versions[B].pause_s = 60.0
    begin = time.monotonic()
    assert site.score().status_code == 200
    assert time.monotonic() - begin < 20
    site.versions[B].pause_s, site.versions[B].failure = 0.0, RuntimeError("broken")
    assert all(site.score().status_code == 200 for _ in range(3))
    wait_for(lambda: site.found()["arms"]["challenger"]["failed"] >= 1)
    wait_for(lambda: B not in seen_by(site.gateway).ready)  # it is asked no longer, and the slow shadow given up
    assert site.found()["arms"]["champion"]["failed"] == 0


def test_a_challenger_that_hangs_keeps_nobody_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "READY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(arms, "CHALLENGER_TIMEOUT_S", 60.0)
    site.start("split", shares=(0.99,))
    site.versions[B].pause_s, site.versions[B].hangs = 60.0, True
    subject = site.challenged()
    begin = time.monotonic()
    assert site.score(subject=subject).json()["version"] == A
    assert time.monotonic() - begin < 20  # neither the pause nor the time-out of a challenger
    assert [site.score(subject=subject).json()["version"] for _ in range(3)] == [A] * 3
    assert site.found()["arms"]["challenger"]["failed"] == 1
    site.versions[B].pause_s, site.versions[B].hangs = 0.0, False
    wait_for(lambda: site.score().json()["version"] == B)


def test_a_champion_lost_under_a_request_is_asked_once_more(site: Site) -> None:
    site.versions[A].failure = Problem("unavailable", "Its replica died.")
    site.versions[A].fails_once = True
    assert (site.score().status_code, site.versions[A].asked) == (200, 2)


def test_no_shadow_begins_while_the_champion_is_busy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.start()
    monkeypatch.setattr(arms, "BUSY", 0)
    path = f"/v1/predictions/{site.score().json()['prediction_id']}"
    time.sleep(0.3)
    assert (site.versions[B].asked, site.client.get(path).json()["shadow"]) == (0, None)
    monkeypatch.setattr(arms, "BUSY", 1)
    wait_for(lambda: site.client.get(path).json()["shadow"] is not None)


def test_a_split_gives_each_subject_one_version(site: Site) -> None:
    site.start("split")
    subjects = [f"s{i}" for i in range(30)]
    first, second = ([site.score(subject=subject).json()["version"] for subject in subjects] for _ in range(2))
    assert first == second
    assert set(first) == {A, B}
    found = site.found()
    assert (found["predictions"], found["ratio"]["subjects"]) == (60, 30)
    assert found["ratio"]["challenger"] == first.count(B)


def test_a_challenger_that_fails_is_replaced_and_recovers(site: Site) -> None:
    site.start("split", shares=(0.99,))
    site.versions[B].failure = Problem("unavailable", "It is gone.")
    subject = site.challenged()
    assert [site.score(subject=subject).json()["version"] for _ in range(5)] == [A] * 5
    found = site.found()
    assert found["predictions"] == 0  # what the champion answered in its place counts for nobody
    assert 1 <= found["arms"]["challenger"]["failed"] <= 5
    site.versions[B].failure = None
    wait_for(lambda: site.score().json()["version"] == B)


def test_an_image_that_only_the_challenger_refuses_is_answered_and_ends_its_experiment(site: Site) -> None:
    site.start("split", shares=(0.99,), policy=Policy(window=3, min_window=3))
    site.versions[B].failure = RadiographError("not_a_hand", "No hand is in the picture.")
    subject = site.challenged()
    assert [site.score(subject=subject).json()["version"] for _ in range(3)] == [A] * 3
    assert site.found()["arms"]["challenger"]["failed"] == 3
    Judge(site.database).act()
    assert experiment_named(site.database, "e")["outcome"] == "rolled back"


def test_an_image_that_both_versions_refuse_counts_against_neither(site: Site) -> None:
    site.start("split", shares=(0.99,))
    site.versions[A].failure = RadiographError("blank", "Nothing is in the picture.")
    site.versions[B].failure = RadiographError("not_a_hand", "No hand is in the picture.")
    answer = site.score(subject=site.challenged())
    assert (answer.status_code, answer.json()["code"]) == (422, "blank")  # in the champion's words
    assert [site.found()["arms"][arm]["failed"] for arm in ("champion", "challenger")] == [0, 0]


def test_an_image_that_only_the_shadow_refuses_counts_against_it(site: Site) -> None:
    site.start()
    site.versions[B].failure = RadiographError("not_a_hand", "No hand is in the picture.")
    assert site.score().status_code == 200
    wait_for(lambda: site.found()["arms"]["challenger"]["failed"] == 1)


def test_what_cannot_be_written_beside_an_answer_is_logged_and_harms_no_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = site.books.ledger.write

    def refuse(entries: list[Entry]) -> None:
        if not all(isinstance(entry, Answered) for entry in entries):
            raise IntegrityError("INSERT", {}, Exception("it refers to nothing"))
        write(entries)

    def failures() -> list[str]:
        return [record.doing for record in caplog.records if record.message == "failed"]

    monkeypatch.setattr(site.books.ledger, "write", refuse)
    site.start()
    assert site.score().status_code == 200
    wait_for(lambda: failures() == ["a shadow"])
    site.lifecycle.stop("e", {})
    site.lifecycle.start("f", B, mode="split", shares=(0.99,))
    site.books.refresh()
    site.versions[B].failure = RadiographError("not_a_hand", "No hand is in the picture.")
    assert site.score(subject=site.challenged()).json()["version"] == A
    assert failures() == ["a shadow", "writing down what an arm failed"]


def test_a_report_is_read_beside_the_event_loop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def observed(*arguments: Any) -> Observed:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        read.append(1)
        return observe(*arguments)

    for module in (experiment_report, page_experiment):
        monkeypatch.setattr(module, "observe", observed)
    site.start()
    site.score()
    for path in ("/v1/experiments/e", "/page/experiments?name=e"):
        assert site.client.get(path).status_code == 200
    assert site.client.post("/v1/experiments/e/stop", json={}).status_code == 200
    assert len(read) == 3


def test_reports_that_wait_stop_neither_scoring_nor_a_rollback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MOST", 1)
    began, may_go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> Observed:
        began.set()
        assert may_go_on.wait(60)
        return observe(*arguments)

    with running(Site(tmp_path)) as site:
        site.start()
        monkeypatch.setattr(experiment_report, "observe", slowly)
        first = threading.Thread(target=site.client.get, args=("/v1/experiments/e",))
        first.start()
        assert began.wait(60)
        for path in ("/v1/experiments/e", "/page/experiments"):
            refused = site.client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert site.score().status_code == 200
        assert site.client.post("/v1/experiments/e/rollback").status_code == 200
        assert "Other reports" in Routing(site.database).history()[-1]["detail"]["data"]["no_report"]
        may_go_on.set()
        first.join()


def test_an_act_that_stands_is_answered_so_though_the_ledger_goes_away_after_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.start()
    with monkeypatch.context() as down:
        down.setattr(site.books, "refresh", _away)
        answer = site.client.post("/v1/experiments/e/stop")
    assert (answer.status_code, answer.json()["experiment"]) == (200, None)
    assert experiment_named(site.database, "e")["outcome"] == "stopped"


def test_the_page_reads_the_last_acts_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(page_experiment.LATEST_ACTS + 3):
        site.keys.add(f"key {number}", ["read"])
    monkeypatch.delattr(Routing, "history")  # which reads all
    shown = page_experiment.overview(site.books, None)["history"]
    assert [row["detail"]["name"] for row in shown] == [f"key {number}" for number in range(14, 2, -1)]


def test_a_promotion_takes_effect_when_the_new_champion_answers(site: Site) -> None:
    site.versions[B].failure = RuntimeError("still loading")
    site.start(is_answering=False)
    site.lifecycle.promote("e", {})
    site.books.refresh()
    assert [site.score().json()["version"] for _ in range(3)] == [A] * 3
    site.versions[B].failure = None
    wait_for(lambda: site.score().json()["version"] == B)


def test_a_change_reaches_the_gateway_by_itself_within_two_seconds(site: Site) -> None:
    Lifecycle(site.database, "another process").start("e", B)
    assert books.FOLLOW_S <= 1  # and as much again for a busy machine
    wait_for(lambda: site.books.state.experiment is not None)


def test_what_was_read_before_a_change_does_not_undo_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read, has_read, may_go_on = site.books._read, threading.Event(), threading.Event()

    def slowly() -> books.Snapshot:
        found = read()
        has_read.set()
        assert may_go_on.wait(20)
        return found

    with monkeypatch.context() as slow:
        slow.setattr(site.books, "_read", slowly)
        assert has_read.wait(20)  # by the thread that follows
    site.lifecycle.start("e", B)
    refreshing = threading.Thread(target=site.books.refresh)
    refreshing.start()
    refreshing.join(0.2)
    may_go_on.set()
    refreshing.join()
    time.sleep(0.1)
    assert site.books.state.experiment is not None


def test_an_experiment_over_http_from_its_start_to_its_rollback(site: Site) -> None:
    started = site.client.post("/v1/experiments", json={"name": "e", "challenger": B, "policy": {"alpha": 0.01}})
    assert (started.status_code, started.json()["experiment"]["mode"]) == (201, "shadow")
    again = site.client.post("/v1/experiments", json={"name": "f", "challenger": B})
    assert (again.status_code, again.json()["code"]) == (409, "experiment_refused")
    found = site.client.get("/v1/experiments/e").json()
    assert (found["policy"]["act"], found["outcome"]) == ("go on", None)
    assert site.client.post("/v1/experiments/e/promote").json()["champion"] == B
    assert site.client.post("/v1/experiments/e/rollback").json()["champion"] == A
    listed = site.client.get("/v1/experiments").json()
    assert (listed["routing"]["champion"], listed["experiments"][0]["outcome"]) == (A, "rolled back")


def test_the_report_that_an_act_by_hand_is_kept_with_has_the_share_that_holds(site: Site) -> None:
    site.start("split", is_answering=False)
    assert site.client.post("/v1/experiments/e/share", json={"share": 0.25}).status_code == 200
    assert site.client.post("/v1/experiments/e/stop").status_code == 200
    kept = Routing(site.database).history()[-1]["detail"]["data"]["report"]
    assert kept["experiment"]["shares"] == [0.25]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("", {"name": "e"}, "body_malformed"),
        ("", {"name": "e", "challenger": "../x"}, "experiment_refused"),
        ("", {"name": "E", "challenger": B}, "experiment_refused"),
        ("", {"name": "e", "challenger": B, "mode": "bandit"}, "experiment_refused"),
        ("", {"name": "e", "challenger": B, "shares": ["x"]}, "experiment_refused"),
        ("", {"name": "e", "challenger": B, "shares": [[1]]}, "experiment_refused"),
        ("", {"name": "e", "challenger": B, "policy": {"window": 1e999}}, "experiment_refused"),
        ("", {"name": "e", "challenger": B, "policy": {"gain_months": 1e999}}, "experiment_refused"),
        ("/none/stop", {}, "experiment_unknown"),
        ("/%00/stop", {}, "experiment_unknown"),
        ("/none/explode", {}, "not_found"),
        ("/none/share", {}, "body_malformed"),
    ],
)
def test_a_wrong_act_is_a_problem(shared: Site, path: str, body: dict[str, Any], code: str) -> None:
    content = str(body).replace("'", '"').replace("inf", "1e999").encode()
    assert shared.client.post(f"/v1/experiments{path}", content=content).json()["code"] == code


def test_while_the_database_is_away_answers_go_on_and_all_arrive(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.recorder.RETRY_S", 0.02)
    monkeypatch.setattr("serve.books.PATIENCE_S", 0.2)
    write, repeated = site.books.ledger.write, site.books.ledger.repeated

    def away(*arguments: Any) -> Any:
        raise LedgerDownError("away")

    with monkeypatch.context() as down:
        for name in ("write", "repeated", "prediction"):
            down.setattr(site.books.ledger, name, away)
        answers = [site.score(headers={"idempotency-key": str(i)}) for i in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert site.score(headers={"idempotency-key": "0"}).json() == answers[0].json()
        assert site.client.get("/readyz").json()["ledger"]["status"] == "spooling"
        path = f"/v1/predictions/{answers[0].json()['prediction_id']}"
        assert site.client.get(path).json()["code"] == "unavailable"
    assert (site.books.ledger.write, site.books.ledger.repeated) == (write, repeated)
    wait_for(lambda: site.client.get("/readyz").json()["ledger"]["status"] == "up")
    assert all(
        site.client.get(f"/v1/predictions/{answer.json()['prediction_id']}").status_code == 200 for answer in answers
    )


@pytest.mark.postgres
@pytest.mark.slow
def test_a_database_restart_under_load_fails_no_request_and_loses_none(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with running(Site(tmp_path, url=postgres_server.new_database("restarted_under_load"))) as site:
        answers: list[Any] = []
        is_over = threading.Event()

        def ask_on() -> None:
            while not is_over.is_set():
                answers.append(site.score())

        threads = [threading.Thread(target=ask_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        postgres_server.stop()
        wait_for(lambda: site.client.get("/readyz").json()["ledger"]["status"] == "spooling")
        time.sleep(1)
        postgres_server.start()
        wait_for(lambda: site.client.get("/readyz").json()["ledger"]["status"] == "up")
        time.sleep(0.5)
        is_over.set()
        for thread in threads:
            thread.join()
        wait_for(lambda: site.client.get("/readyz").json()["ledger"]["status"] == "up")  # it may have stumbled again
        assert {answer.status_code for answer in answers} == {200}
        with site.database.read() as connection:
            stored = set(connection.exec_driver_sql("SELECT id FROM predictions").scalars())
        assert {answer.json()["prediction_id"] for answer in answers} == stored
        assert len(stored) == len(answers)


def test_what_cannot_be_recorded_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.spool.MAX_BYTES", 10)
    with running(Site(tmp_path)) as site:
        monkeypatch.setattr(site.books._recorder._spool, "_max_bytes", 10)
        monkeypatch.setattr(site.books.ledger, "write", _away)
        answer = site.score()
        assert (answer.status_code, answer.json()["code"]) == (503, "not_recorded")
        assert "retry-after" in answer.headers
        assert site.client.get("/readyz").json()["code"] == "not_recorded"


def test_a_ledger_that_hangs_when_it_is_read_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.books.HANG_S", 0.1)
    monkeypatch.setattr("serve.recorder.RETRY_S", 0.02)
    may_answer = threading.Event()
    with monkeypatch.context() as hung:
        for name in ("repeated", "write"):
            hung.setattr(site.books.ledger, name, lambda *_: may_answer.wait(60) and None)
        answers = [site.score(headers={"idempotency-key": str(i)}) for i in range(2 * books.READERS)]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        assert site.client.get("/readyz").json()["ledger"]["status"] == "spooling"
        may_answer.set()
    wait_for(lambda: site.client.get("/readyz").json()["ledger"]["status"] == "up")


def test_long_readings_before_ones_own_do_not_make_the_ledger_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.books.HANG_S", 1.0)

    async def read(times: int) -> list[Any]:
        readings = (site.books.look_up(time.sleep, 0.6) for _ in range(times))
        return await asyncio.gather(*readings, return_exceptions=True)

    assert asyncio.run(read(2 * books.READERS)) == [None] * 2 * books.READERS
    in_vain = [said for said in asyncio.run(read(3 * books.READERS)) if said is not None]
    assert {str(said) for said in in_vain} == {"Other readings have taken 1 s."}
    assert site.books.status().is_up


def test_of_two_gateways_that_are_asked_the_same_at_once_both_give_the_first_answer(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers, looked = {"idempotency-key": "k"}, site.books.ledger.repeated
    (tmp_path / "other").mkdir()
    with running(Site(tmp_path / "other", url=site.url)) as other:
        first = other.score(headers=headers).json()
    found = iter([None])  # what this one saw before the other had stored its answer
    monkeypatch.setattr(site.books.ledger, "repeated", lambda *key: next(found, looked(*key)))
    second = site.score(headers=headers)
    assert second.json() == first
    assert second.headers["idempotent-replayed"] == "true"


def test_of_two_answers_under_one_key_the_ledger_knows_the_first(site: Site) -> None:
    headers = {"idempotency-key": "k"}
    first = site.score(headers=headers).json()
    site.gateway._scoring._keyed["", "k"] = {"fingerprint": "of another gateway", "answer": {}, "created_s": 0.0}
    assert site.score(headers=headers).json() == first


def test_what_another_gateway_here_has_spooled_is_not_said_to_be_unknown(site: Site, tmp_path: Path) -> None:
    others, accepted = spool_of(site.books.ledger, tmp_path / "spool"), answered()
    others.append([accepted])
    assert site.client.get(f"/v1/predictions/{accepted.id}").json()["code"] == "unavailable"


def _away(*_: Any) -> None:
    raise LedgerDownError("away")
