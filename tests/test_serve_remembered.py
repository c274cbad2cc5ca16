"""A gateway starts while the database is away: it goes by what was read last, and nothing that it accepts is lost."""

import asyncio
import contextlib
import math
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from benchmarks.sample import publish_sample
from benchmarks.service import running_service
from ensemble.registry import Registry
from serve import books, database, recorder
from serve.admin import ledger_url, spool_folder
from serve.books import Books
from serve.database import Database, LedgerDownError
from serve.keys import Keys
from serve.ledger import Ledger
from serve.outset import Outset
from serve.remembered import Remembered
from serve.routing import Routing
from serve.succession import Given
from tests.hostile_uploads import PNG, SCORE
from tests.ledger_fixtures import answered


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Holds True while no database answers."""
    is_away, transaction = [False], Database._transaction

    def guarded(self: Database, begin: str) -> Any:
        if is_away[0]:
            raise LedgerDownError("away")
        return transaction(self, begin)

    monkeypatch.setattr(database.Database, "_transaction", guarded)
    monkeypatch.setattr(recorder, "RETRY_S", 0.02)
    monkeypatch.setattr(books, "FOLLOW_S", 0.02)
    yield is_away
    is_away[0] = False


def test_a_gateway_that_starts_in_an_outage_goes_by_what_it_remembers(tmp_path: Path, away: list[bool]) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    outside = Database(url)
    Routing(outside).begin("ens-a")
    key = Keys(outside, "me").add("ris", ["score"])
    first = Books(url, tmp_path / "spool", is_open=False)
    pseudonym = first.ledger.pseudonym("child")
    first.close()
    away[0] = True
    second = Books(url, tmp_path / "spool", is_open=False)
    request = Request({"type": "http", "headers": [(b"authorization", f"Bearer {key}".encode())]})
    assert second.caller(request, "score").roles == {"score"}
    assert (second.state.champion, second.ledger.pseudonym("child")) == ("ens-a", pseudonym)
    asyncio.run(second.store(answered(request_id="in the outage")))
    assert not second.status().is_up
    away[0] = False
    wait_until(second, is_up=True)
    with outside.read() as connection:
        assert connection.exec_driver_sql("SELECT request_id FROM predictions").scalars().all() == ["in the outage"]
    second.close()


def test_one_that_remembers_nothing_waits_for_the_database(tmp_path: Path, away: list[bool]) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    Routing(Database(url)).begin("ens-a")
    away[0] = True
    with pytest.raises(LedgerDownError):
        Books(url, tmp_path / "spool", is_open=True, wait_s=0.1)


def test_what_is_remembered_is_its_owners_alone_and_of_one_ledger(tmp_path: Path) -> None:
    Remembered(tmp_path / "spool", "one").write({"pepper": "00"})
    (file,) = (tmp_path / "spool").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Remembered(tmp_path / "spool", "two").read() is None
    Remembered(tmp_path / "spool", "two").write({"pepper": "11"})
    assert Remembered(tmp_path / "spool", "one").read() == {"pepper": "00"}
    file.write_text("{")
    assert Remembered(tmp_path / "spool", "one").read() is None


def test_what_a_release_before_remembered_holds_until_it_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "last.json").write_text('{"ledger": "one", "values": {"pepper": "00"}}')
    assert Remembered(tmp_path, "one").read() == {"pepper": "00"}
    assert Remembered(tmp_path, "two").read() is None
    Remembered(tmp_path, "one").write({"pepper": "11"})
    assert Remembered(tmp_path, "one").read() == {"pepper": "11"}


def test_a_database_that_comes_later_is_migrated_then(tmp_path: Path, away: list[bool]) -> None:
    away[0] = True
    with pytest.raises(LedgerDownError):
        Database(f"sqlite:///{tmp_path}/ledger.db")
    late = Database(f"sqlite:///{tmp_path}/ledger.db", must_answer=False)
    away[0] = False
    with contextlib.closing(late):
        assert len(Ledger(late).pepper) == 64


def test_a_gateway_says_so_before_anybody_asks_for_an_answer(tmp_path: Path, away: list[bool]) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    Routing(Database(url)).begin("ens-a")
    running = Books(url, tmp_path / "spool", is_open=True)
    for is_away in (True, False):
        away[0] = is_away
        wait_until(running, is_up=not is_away)
    running.close()


def test_a_service_begins_with_the_champion_it_is_given_or_with_what_was_read_last(
    tmp_path: Path, away: list[bool]
) -> None:
    url, spool = f"sqlite:///{tmp_path}/ledger.db", tmp_path / "spool"
    a, b = (Given(version, lambda: math.inf) for version in ("ens-a", "ens-b"))
    found = Outset.read(Database(url), spool, a)
    assert (found.state.champion, found.has_keys, found.outage) == ("ens-a", False, "")
    Books(url, spool, is_open=True).close()
    away[0] = True
    found = Outset.read(Database(url, must_answer=False), spool, b)
    assert (found.state.champion, found.has_keys, found.outage) == ("ens-a", False, "away")
    with pytest.raises(LedgerDownError, match="remembers nothing"):
        Outset.read(Database(url, must_answer=False), tmp_path / "another", b)


@pytest.mark.ray
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_service_starts_answers_and_catches_up_though_its_database_is_away(tmp_path: Path) -> None:
    publish_sample(tmp_path)
    registry = tmp_path / "registry"
    url = ledger_url(registry, None)
    Routing(Database(url)).begin(Registry(registry).version_of("champion"))
    Books(url, spool_folder(registry), is_open=True).close()
    file = Path(url.removeprefix("sqlite:///"))
    file.rename(tmp_path / "aside")
    file.mkdir()  # which no SQLite opens
    with (
        running_service(registry, start_within_s=400) as service,
        httpx2.Client(base_url=service.url, timeout=60, trust_env=False) as client,
    ):
        assert client.get("/readyz").json()["ledger"]["status"] == "spooling"
        answer = client.post(SCORE, content=PNG)
        assert answer.status_code == 200
        file.rmdir()
        (tmp_path / "aside").rename(file)
        end = time.monotonic() + 60
        while client.get("/readyz").json()["ledger"]["status"] != "up":
            assert time.monotonic() < end
            time.sleep(0.1)
        assert client.get(f"/v1/predictions/{answer.json()['prediction_id']}").json()["answer"] == answer.json()


def wait_until(running: Books, *, is_up: bool) -> None:
    end = time.monotonic() + 20
    while running.status().is_up != is_up:
        assert time.monotonic() < end
        time.sleep(0.01)
