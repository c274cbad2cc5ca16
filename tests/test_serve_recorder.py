"""While the database is away nothing accepted is lost, and when it is back all of it is there, in order."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import sqlalchemy as sa

from serve import recorder, tables
from serve.database import Database, LedgerDownError
from serve.entries import Answered, Entry
from serve.ledger import Ledger
from serve.recorder import Recorder
from serve.spool import Spool, SpoolFullError
from tests.ledger_fixtures import answered
from tests.postgres_server import PostgresServer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "RETRY_S", 0.02)


class Away:
    """A ledger whose database goes away and comes back when told."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.is_away = False
        self.poison: str | None = None

    def write(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        if self.is_away:
            raise LedgerDownError("away")
        if any(isinstance(entry, Answered) and entry.id == self.poison for entry in entries):
            raise ValueError("refused")
        self._ledger.write(entries)


@pytest.fixture
def away(sqlite_ledger: Ledger) -> Away:
    return Away(sqlite_ledger)


@pytest.fixture
def running(away: Away, tmp_path: Path) -> Iterator[Recorder]:
    one = Recorder(away, Spool(tmp_path / "spool"))  # type: ignore[arg-type]
    yield one
    one.close()


def stored(ledger: Ledger) -> list[str]:
    with ledger.database.read() as connection:
        return list(connection.execute(sa.select(tables.predictions.c.request_id)).scalars())


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def safe(futures: "list[Future[None]]") -> None:
    for future in futures:
        future.result(20)


def test_what_is_recorded_is_in_the_ledger(running: Recorder, sqlite_ledger: Ledger) -> None:
    safe([running.record(answered(request_id=str(i))) for i in range(600)])
    assert stored(sqlite_ledger) == [str(i) for i in range(600)]
    assert running.status().is_up


def test_what_came_while_it_was_away_follows_in_order(running: Recorder, away: Away, sqlite_ledger: Ledger) -> None:
    for i in range(40):
        away.is_away = 10 <= i < 30
        safe([running.record(answered(request_id=str(i)))])
    wait_for(lambda: running.status().is_up)
    assert stored(sqlite_ledger) == [str(i) for i in range(40)]
    assert running.status().spooled_bytes == 0


def test_a_killed_process_leaves_its_spool_to_the_next(tmp_path: Path, away: Away, sqlite_ledger: Ledger) -> None:
    killed = multiprocessing.get_context("spawn").Process(target=_spool_and_die, args=(tmp_path / "spool",))
    killed.start()
    killed.join(60)
    assert killed.exitcode == 9
    one = Recorder(away, Spool(tmp_path / "spool"))  # type: ignore[arg-type]
    safe([one.record(answered(request_id="later"))])
    wait_for(lambda: one.status().is_up)
    one.close()
    assert stored(sqlite_ledger) == ["0", "1", "2", "later"]
    assert list((tmp_path / "spool").iterdir()) == []


def _spool_and_die(folder: Path) -> None:
    spool = Spool(folder)
    spool.append([answered(request_id=str(i)) for i in range(3)])
    (path,) = folder.iterdir()
    with path.open("ab") as file:
        file.write(b'{"kind": "answered", "torn')
    os._exit(9)


def test_a_spool_is_replayed_by_one_process_only(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.append([answered()])
    assert not Spool(tmp_path)


def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1000)
    one = answered()
    spool.append([one])
    with pytest.raises(SpoolFullError, match="may hold 1,000"):
        spool.append([answered(), answered()])
    assert spool.peek(9) == [one]
    spool.drop(1)
    assert spool.peek(9) == []


def test_with_the_database_away_and_the_spool_full_nothing_is_accepted(tmp_path: Path, away: Away) -> None:
    one = Recorder(away, Spool(tmp_path / "spool", max_bytes=10))  # type: ignore[arg-type]
    away.is_away = True
    with pytest.raises(SpoolFullError):
        one.record(answered()).result(20)
    away.is_away = False
    wait_for(lambda: one.status().is_up)
    safe([one.record(answered())])
    one.close()


def test_an_entry_that_is_refused_harms_no_other(
    running: Recorder, away: Away, sqlite_ledger: Ledger, tmp_path: Path
) -> None:
    bad = answered(request_id="bad")
    away.poison = bad.id
    futures = [running.record(entry) for entry in (answered(request_id="a"), bad, answered(request_id="b"))]
    assert isinstance(futures[1].exception(20), ValueError)
    safe([futures[0], futures[2]])
    away.is_away = True
    safe([running.record(entry) for entry in (bad, answered(request_id="c"))])
    away.is_away = False
    wait_for(lambda: running.status().is_up)
    assert sorted(stored(sqlite_ledger)) == ["a", "b", "c"]
    assert running.status().refused == 1
    assert bad.id in (tmp_path / "spool" / "refused").read_text()


@pytest.mark.postgres
@pytest.mark.slow
def test_a_database_that_restarts_loses_nothing(postgres_server: PostgresServer, tmp_path: Path) -> None:
    ledger = Ledger(Database(postgres_server.new_database("restarted")))
    one = Recorder(ledger, Spool(tmp_path / "spool"))
    safe([one.record(answered(request_id="0"))])
    postgres_server.stop()
    safe([one.record(answered(request_id=str(i))) for i in range(1, 5)])
    assert not one.status().is_up
    postgres_server.start()
    safe([one.record(answered(request_id="5"))])
    wait_for(lambda: one.status().is_up)
    one.close()
    assert stored(ledger) == ["0", "1", "2", "3", "4", "5"]
    ledger.database.close()
