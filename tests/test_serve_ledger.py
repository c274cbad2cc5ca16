"""The ledger on both databases: what is written is there, once, and whoever comes later finds it."""

import json
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import exc

from serve import tables
from serve.database import Database, LedgerDownError, LedgerError
from serve.entries import Answered, Explained, Failed, Shadowed, from_json, to_json
from serve.ledger import Ledger, _take_turns, fingerprint
from tests.ledger_fixtures import answered


def test_migrations_make_the_tables_that_the_code_uses(ledger: Ledger) -> None:
    with ledger.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_a_prediction_is_there_after_it_was_written(ledger: Ledger) -> None:
    one = answered()
    ledger.write([one])
    found = ledger.prediction(one.id)
    assert found is not None
    assert Answered(**{name: found[name] for name in one.__dataclass_fields__}) == one
    assert ledger.prediction("0") is None


def test_what_is_written_twice_is_there_once(ledger: Ledger) -> None:
    one = answered()
    shadow = Shadowed(prediction_id=one.id, version="ens-b", bone_age_months=1.0, answer={}, latency_ms=1.0)
    failed = Failed(request_id="r", version="ens-b", code="timeout")
    for _ in range(2):
        ledger.write([shadow, failed, one])  # in any order: predictions are written first
    with ledger.database.read() as connection:
        for table in (tables.predictions, tables.shadows, tables.failures):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 1
    found = ledger.prediction(one.id)
    assert found is not None
    assert found["shadow"]["bone_age_months"] == 1.0


def test_the_first_answer_under_an_idempotency_key_stays_the_first(ledger: Ledger) -> None:
    first, second = (answered(idempotency_key="k", key_id="a") for _ in range(2))
    others = [answered(idempotency_key="k", key_id="b"), answered()]
    ledger.write([first])
    ledger.write([second, *others])
    repeated = ledger.repeated("a", "k")
    assert repeated is not None
    assert repeated["id"] == first.id
    assert ledger.prediction(second.id) is not None  # it was answered, so it is kept


def test_many_more_rows_than_one_statement_takes(ledger: Ledger) -> None:
    entries = [answered() for _ in range(1201)]
    ledger.write(entries)
    assert ledger.prediction(entries[-1].id) is not None


def test_the_latest_reading_of_each_reader_is_kept_once(ledger: Ledger) -> None:
    one = answered()
    ledger.write([one])
    assert ledger.add_reference(one.id, 90.0)
    assert not ledger.add_reference(one.id, 90.0)
    assert ledger.add_reference(one.id, 92.0)
    assert ledger.add_reference(one.id, 90.0, reader="b")
    found = ledger.prediction(one.id)
    assert found is not None
    assert [(row["reader"], row["bone_age_months"]) for row in found["references"]] == [("", 90), ("", 92), ("b", 90)]


def test_readings_are_numbered_in_the_order_in_which_they_are_stored(ledger: Ledger) -> None:
    first, second = answered(), answered()
    ledger.write([first, second])
    with ledger.database.write() as connection:
        _take_turns(connection)
        row = {"prediction_id": first.id, "created_s": 1.0, "key_id": "", "reader": "", "bone_age_months": 90.0}
        connection.execute(sa.insert(tables.reference_readings), row)
        other = threading.Thread(target=ledger.add_reference, args=(second.id, 50.0))
        other.start()
        other.join(0.3)
        assert other.is_alive()  # or its number could be seen before the first one's
    other.join()
    with ledger.database.read() as connection:
        table = tables.reference_readings
        rows = connection.execute(sa.select(table.c.prediction_id).order_by(table.c.id)).scalars().all()
    assert rows == [first.id, second.id]


@pytest.mark.parametrize("months", [-1.0, 239.5, float("nan"), float("inf")])
def test_a_reading_out_of_range_is_refused(sqlite_ledger: Ledger, months: float) -> None:
    one = answered()
    sqlite_ledger.write([one])
    with pytest.raises(LedgerError, match="A reading lies within"):
        sqlite_ledger.add_reference(one.id, months)


def test_a_reading_of_nothing_is_refused(sqlite_ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="There is no prediction"):
        sqlite_ledger.add_reference("0", 90.0)


def test_two_that_open_it_together_migrate_once(ledger_url: str) -> None:
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            Database(ledger_url).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_one_that_opens_a_new_file_while_another_process_writes_its_first_tables_waits(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    ending = threading.Timer(0.2, other.close)
    ending.start()
    Database(f"sqlite:///{tmp_path}/ledger.db").close()
    ending.join()


def test_a_pseudonym_is_the_ledgers_own(tmp_path: Path) -> None:
    first, again, other = (Ledger(Database(f"sqlite:///{tmp_path}/{name}.db")) for name in ("a", "a", "b"))
    assert first.pseudonym("Doe^Jane") == again.pseudonym("Doe^Jane") != other.pseudonym("Doe^Jane")


def test_a_ledger_of_a_newer_release_is_refused(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    with sqlite_ledger.database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match="is at step 9999"):
        Database(f"sqlite:///{tmp_path}/ledger.db")


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (exc.OperationalError, LedgerDownError),
        (exc.InternalError, LedgerDownError),  # PostgreSQL: read-only
        (exc.ProgrammingError, LedgerDownError),  # PostgreSQL: no such table, no right to it
        (exc.DatabaseError, LedgerDownError),  # SQLite: the file is damaged
        (exc.IntegrityError, exc.IntegrityError),
        (exc.DataError, exc.DataError),
    ],
)
def test_an_entry_is_at_fault_by_a_rule_or_a_value_alone(
    sqlite_ledger: Ledger, error: type[exc.DBAPIError], becomes: type[Exception]
) -> None:
    with pytest.raises(becomes), sqlite_ledger.database.write():
        raise error("INSERT", {}, Exception("as the driver says"))


def test_a_statement_that_may_itself_be_wrong_is_logged(
    sqlite_ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (exc.InternalError, exc.ProgrammingError):
        with pytest.raises(LedgerDownError), sqlite_ledger.database.read():
            raise error("SELECT", {}, Exception("as the driver says"))
    assert [record.doing for record in caplog.records if record.message == "failed"] == ["asking the ledger"]


def test_who_may_only_read_hears_that_nothing_can_be_written(ledger: Ledger) -> None:
    ledger.try_writing()
    only_read = {"sqlite": "PRAGMA query_only=ON", "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"}
    with ledger.database.write() as connection:
        connection.exec_driver_sql(only_read[connection.dialect.name])
    with pytest.raises(LedgerDownError, match=r"read-?only"):
        ledger.try_writing()
    ledger.try_writing()  # in a session of its own


@pytest.mark.parametrize("url", ["no url", "sqlite://", "mysql://x@y/z"])
def test_what_is_no_ledger_is_a_sentence(url: str) -> None:
    with pytest.raises(LedgerError, match=r"ledger"):
        Database(url)


@pytest.mark.postgres
def test_a_database_out_of_reach_is_told_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(LedgerDownError, match="does not answer") as caught:
        Database(f"postgresql+psycopg://carpal:secret@/x?host={tmp_path}")
    assert "secret" not in str(caught.value)


def test_every_entry_survives_the_way_through_json() -> None:
    one = answered(subject="s", share=0.5)
    shadow = Shadowed(prediction_id=one.id, version="b", bone_age_months=1.0, answer={"a": [1]}, latency_ms=1.0)
    heatmap = Explained(prediction_id=one.id, png=b"\x89PNG\0\xff")
    for entry in (one, shadow, heatmap, Failed(request_id="r", version="b", code="timeout")):
        json.dumps(to_json(entry))
        assert from_json(to_json(entry)) == entry
    with pytest.raises(LedgerError, match="cannot be read"):
        from_json({"kind": "answered", "strange": 1})


def test_another_image_or_parameter_is_another_fingerprint() -> None:
    prints = {fingerprint("aa", {"sex": "m"}), fingerprint("bb", {"sex": "m"}), fingerprint("aa", {"sex": "f"})}
    assert len(prints | {fingerprint("aa", {"sex": "m", "subject": "x"})}) == 4


def test_a_ledger_in_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir(mode=0o700)
    (tmp_path / "ledger/ledger.db").touch(0o644)  # as releases of before made it
    database = Database(f"sqlite:///{tmp_path}/ledger/ledger.db")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ledger").iterdir()} == {0o600}
    database.close()
