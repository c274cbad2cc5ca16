"""A gateway starts while the database is away: it goes by what was read last, and nothing that it accepts is lost."""

import asyncio
import contextlib
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve import books, database, recorder
from serve.books import Books
from serve.database import Database, LedgerDownError
from serve.keys import Keys
from serve.ledger import Ledger
from serve.remembered import Remembered
from serve.routing import Routing
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
    assert second.caller(f"Bearer {key}", "score").roles == {"score"}
    assert (second.state.champion, second.ledger.pseudonym("child")) == ("ens-a", pseudonym)
    asyncio.run(second.store(answered(request_id="in the outage")))
    assert not second.status().is_up
    away[0] = False
    end = time.monotonic() + 20
    while not second.status().is_up:
        assert time.monotonic() < end
        time.sleep(0.01)
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
    assert stat.S_IMODE((tmp_path / "spool" / "last.json").stat().st_mode) == 0o600
    assert Remembered(tmp_path / "spool", "one").read() == {"pepper": "00"}
    assert Remembered(tmp_path / "spool", "two").read() is None
    (tmp_path / "spool" / "last.json").write_text("{")
    assert Remembered(tmp_path / "spool", "one").read() is None


def test_a_database_that_comes_later_is_migrated_then(tmp_path: Path, away: list[bool]) -> None:
    away[0] = True
    with pytest.raises(LedgerDownError):
        Database(f"sqlite:///{tmp_path}/ledger.db")
    late = Database(f"sqlite:///{tmp_path}/ledger.db", must_answer=False)
    away[0] = False
    with contextlib.closing(late):
        assert len(Ledger(late).pepper) == 64
