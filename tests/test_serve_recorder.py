"""While the database is away nothing accepted is lost, and when it is back all of it is there, in order."""

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc

from serve import recorder, tables
from serve.database import Database, LedgerDownError
from serve.entries import Answered, Entry, Explained, Shadowed
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
        self.takes_s = 0.0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def write(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        self.may_answer.wait(60)
        time.sleep(self.takes_s * bool(entries))
        if self.is_away:
            raise LedgerDownError("away")
        if any(isinstance(entry, Answered) and entry.id == self.poison for entry in entries):
            raise ValueError("refused")
        self._ledger.write(entries)

    def try_writing(self) -> None:
        self.write([])


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
    (aside,) = (tmp_path / "spool").glob("*.refused")
    assert bad.id in aside.read_text()


def test_an_answer_is_not_there_without_what_belongs_to_it(running: Recorder, sqlite_ledger: Ledger) -> None:
    one, other = answered(request_id="bad"), answered(request_id="good")
    lost = Shadowed(prediction_id="of no prediction", version="b", bone_age_months=1.0, answer={}, latency_ms=1.0)
    futures = [running.record(one, lost), running.record(other, Explained(prediction_id=other.id, png=b"map"))]
    assert isinstance(futures[0].exception(20), exc.IntegrityError)
    safe(futures[1:])
    assert stored(sqlite_ledger) == ["good"]
    assert sqlite_ledger.heatmap(other.id) == b"map"


def test_who_waits_is_told_by_the_thread_that_writes(running: Recorder, away: Away) -> None:
    away.may_answer.clear()
    told_by: list[str] = []
    future = running.record(answered())
    future.add_done_callback(lambda _: told_by.append(threading.current_thread().name))
    away.may_answer.set()
    safe([future])
    assert [name.rpartition("_")[0] for name in told_by] == ["ledger-writer"]


def test_an_entry_that_no_spool_can_hold_harms_no_other(running: Recorder, away: Away, sqlite_ledger: Ledger) -> None:
    away.is_away = True
    away.may_answer.clear()  # so that all of them come in one batch
    futures = [running.record(answered(request_id="first"))]
    for name, months in (("a", 100.0), ("bad", float("nan")), ("b", 100.0)):
        futures.append(running.record(answered(request_id=name, bone_age_months=months)))
    away.may_answer.set()
    assert isinstance(futures[2].exception(20), ValueError)
    safe([futures[0], futures[1], futures[3]])
    away.is_away = False
    wait_for(lambda: running.status().is_up)
    assert stored(sqlite_ledger) == ["first", "a", "b"]


def test_a_ledger_that_can_only_be_read_takes_nothing_and_refuses_nothing(
    running: Recorder, sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def refuse(connection: object, cursor: object, statement: str, *_: object) -> None:
        """As a standby does: it begins and commits, and what changes a row is no `OperationalError`."""
        if not statement.startswith(("BEGIN", "SELECT")):
            refused.append(statement)
            raise exc.InternalError(statement, {}, Exception("cannot execute in a read-only transaction"))

    monkeypatch.setattr(running, "_ledger", sqlite_ledger)
    event.listen(sqlite_ledger.database._engine, "before_cursor_execute", refuse)
    safe([running.record(answered(request_id=str(i))) for i in range(3)])
    wait_for(lambda: len(refused) >= 5)  # it has been asked again and again
    assert (running.is_up, running.status().refused) == (False, 0)
    event.remove(sqlite_ledger.database._engine, "before_cursor_execute", refuse)
    wait_for(lambda: running.status().is_up)
    assert stored(sqlite_ledger) == ["0", "1", "2"]


@pytest.mark.parametrize("is_still_refused", [True, False])
@pytest.mark.parametrize("name", ["0-1.refused", "refused"])
def test_what_lay_aside_is_tried_again_by_the_next_process(
    tmp_path: Path, away: Away, sqlite_ledger: Ledger, is_still_refused: bool, name: str
) -> None:
    folder, bad = tmp_path / "spool", answered(request_id="bad")
    before = Spool(folder)
    before.set_aside(bad)
    before.set_aside(answered(request_id="good"))
    assert not Spool(folder)  # its process still lives
    (aside,) = folder.iterdir()
    aside.rename(folder / name)  # as releases before named it
    del before
    away.poison = bad.id if is_still_refused else None
    one = Recorder(away, Spool(folder))  # type: ignore[arg-type]
    wait_for(lambda: one.status().is_up)
    one.close()
    assert one.status().refused == is_still_refused
    assert stored(sqlite_ledger) == (["good"] if is_still_refused else ["bad", "good"])
    assert len(list(folder.glob("*.refused"))) == len(list(folder.iterdir())) == is_still_refused


def test_a_database_that_hangs_is_away_and_comes_back(
    running: Recorder, away: Away, sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "HANG_S", 0.05)
    away.may_answer.clear()
    safe([running.record(answered(request_id=str(i))) for i in range(3)])
    assert not running.is_up
    away.may_answer.set()
    wait_for(lambda: running.status().is_up)
    assert stored(sqlite_ledger) == ["0", "1", "2"]


def test_a_database_that_is_always_late_gets_each_entry_once(
    running: Recorder, away: Away, sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "HANG_S", 0.05)
    monkeypatch.setattr(recorder, "MAX_BATCH", 2)
    away.takes_s = 0.15
    safe([running.record(answered(request_id=str(i))) for i in range(5)])
    wait_for(lambda: stored(sqlite_ledger) == ["0", "1", "2", "3", "4"])
    wait_for(lambda: running.status().spooled_bytes == 0)


def test_a_caller_who_goes_away_meanwhile_stops_nothing(running: Recorder, away: Away, sqlite_ledger: Ledger) -> None:
    async def given_up() -> None:
        away.may_answer.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.wrap_future(running.record(answered(request_id="gone")))
        away.may_answer.set()

    asyncio.run(given_up())
    safe([running.record(answered(request_id="next"))])
    assert stored(sqlite_ledger) == ["gone", "next"]


def test_a_spool_that_cannot_be_made_refuses_until_it_can(
    running: Recorder, away: Away, sqlite_ledger: Ledger, tmp_path: Path
) -> None:
    away.is_away = True
    (tmp_path / "spool").rmdir()
    with pytest.raises(SpoolFullError, match="cannot be written"):
        running.record(answered(request_id="refused")).result(20)
    assert running.status().is_full
    (tmp_path / "spool").mkdir()
    safe([running.record(answered(request_id="spooled"))])
    away.is_away = False
    wait_for(lambda: running.status().is_up)
    assert stored(sqlite_ledger) == ["spooled"]


def test_a_spooled_line_that_cannot_be_read_lies_aside(tmp_path: Path, away: Away, sqlite_ledger: Ledger) -> None:
    folder = tmp_path / "spool"
    left = Spool(folder)
    left.append([answered(request_id="before")])
    (path,) = folder.iterdir()
    with path.open("ab") as file:
        file.write(b'{"kind": "of another release"}\n\xff\n')
    left.append([answered(request_id="after")])
    del left
    one = Recorder(away, Spool(folder))  # type: ignore[arg-type]
    wait_for(lambda: one.status().is_up)
    one.close()
    assert stored(sqlite_ledger) == ["before", "after"]
    assert one.status().refused == 2
    (aside,) = folder.glob("*.refused")
    assert aside.read_bytes() == b'{"kind": "of another release"}\n\xff\n'


def test_what_another_process_leaves_later_is_taken_over(
    tmp_path: Path, away: Away, sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "ADOPT_S", 0.02)
    old = Spool(tmp_path)
    old.append([answered(request_id="left")])
    new = Recorder(away, Spool(tmp_path))  # type: ignore[arg-type]
    assert new.status().spooled_bytes == 0
    del old
    wait_for(lambda: stored(sqlite_ledger) == ["left"])
    new.close()


def test_a_fault_that_nobody_foresaw_does_not_end_the_thread(
    running: Recorder, sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = running._work
    monkeypatch.setattr(running, "_work", lambda doubt, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        running.record(answered(request_id="failed")).result(20)
    monkeypatch.setattr(running, "_work", work)
    safe([running.record(answered(request_id="recorded"))])
    assert stored(sqlite_ledger) == ["recorded"]


def test_the_spool_is_its_owners_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([answered()])
    spool.set_aside(answered())
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "spool").iterdir()} == {0o600}
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


@pytest.mark.postgres
@pytest.mark.slow
def test_a_postgres_that_stands_still_loses_nothing(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "HANG_S", 0.5)
    ledger = Ledger(Database(postgres_server.new_database("stands_still")))
    one = Recorder(ledger, Spool(tmp_path / "spool"))
    safe([one.record(answered(request_id="0"))])
    with postgres_server.standing_still():
        safe([one.record(answered(request_id=str(i))) for i in range(1, 5)])
        assert not one.status().is_up
    wait_for(lambda: one.status().is_up)
    one.close()
    assert stored(ledger) == ["0", "1", "2", "3", "4"]
    ledger.database.close()


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


@pytest.mark.postgres
@pytest.mark.slow
def test_a_postgres_that_can_only_be_read_loses_nothing(postgres_server: PostgresServer, tmp_path: Path) -> None:
    ledger = Ledger(Database(postgres_server.new_database("only_read")))
    admin = sa.create_engine(postgres_server.url, isolation_level="AUTOCOMMIT")
    one = Recorder(ledger, Spool(tmp_path / "spool"))
    safe([one.record(answered(request_id="0"))])
    with admin.connect() as connection:  # as a standby is that takes over, or a server whose disk is full
        connection.execute(sa.text("ALTER DATABASE only_read SET default_transaction_read_only = on"))
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'only_read'")
        )
        safe([one.record(answered(request_id=str(i))) for i in range(1, 5)])
        time.sleep(0.5)  # it is asked again and again
        assert (one.is_up, one.status().refused) == (False, 0)
        connection.execute(sa.text("ALTER DATABASE only_read RESET default_transaction_read_only"))
    wait_for(lambda: one.status().is_up)
    one.close()
    assert stored(ledger) == ["0", "1", "2", "3", "4"]
    ledger.database.close()
    admin.dispose()
