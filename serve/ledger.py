"""The ledger: what was answered, what a challenger would have answered, what failed, and the readings that came later.

Everything a gateway writes is an entry (`serve.entries`); one that is there already is left alone.
"""

import functools
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from serve import tables
from serve.database import Database, LedgerError
from serve.entries import Answered, Entry, Explained, Failed, Shadowed

_READINGS_LOCK = 0x43617271  # any number but that of `serve.database`: advisory locks are numbered
MAX_MONTHS = 239.0
"""Of a reading: the last month that a distribution reaches."""
_TABLES: dict[type, sa.Table] = {
    Answered: tables.predictions,
    Shadowed: tables.shadows,
    Failed: tables.failures,
    Explained: tables.heatmaps,
}


def fingerprint(image_sha256: str, parameters: Mapping[str, Any]) -> str:
    """SHA-256 of an image, by its own in hex digits, and of the parameters it was sent with, plain JSON values."""
    digest = hashlib.sha256(bytes.fromhex(image_sha256))
    digest.update(json.dumps(parameters, sort_keys=True).encode())
    return digest.hexdigest()


class Ledger:
    """Reads and writes predictions and what belongs to them.

    Args:
        database: May be away only if the next is given.
        pepper: The ledger's own secret, in hex digits, where it is known.
    """

    def __init__(self, database: Database, pepper: str = "") -> None:
        self.database = database
        self.pepper = pepper or _pepper(database)

    @property
    def mark(self) -> str:
        """Tells the ledger from others by whatever URL it is reached: 12 hex digits of its secret's SHA-256."""
        return hashlib.sha256(bytes.fromhex(self.pepper)).hexdigest()[:12]

    def pseudonym(self, subject: str) -> str:
        """What stands in the ledger for a subject: 32 hex digits of an HMAC-SHA256 under the ledger's own secret."""
        return hmac.new(bytes.fromhex(self.pepper), subject.encode(), hashlib.sha256).hexdigest()[:32]

    def write(self, entries: Iterable[Entry]) -> None:
        """Write all entries in one transaction; those that are there already stay as they are.

        A prediction whose idempotency key another one took meanwhile is kept without the key: it was answered.

        Raises:
            LedgerDownError: The database does not answer; nothing was written.
        """
        entries = list(entries)
        with self.database.write() as connection:
            for kind in _TABLES:  # predictions first: shadows and heat maps refer to them
                if rows := [dict(vars(entry)) for entry in entries if isinstance(entry, kind)]:
                    _insert(connection, kind, rows)

    def try_writing(self) -> None:
        """Change nothing, as a transaction that could: a database that is only read from would begin and commit too.

        Raises:
            LedgerDownError: Nothing can be written at the moment.
        """
        table = tables.settings
        with self.database.write() as connection:
            connection.execute(sa.update(table).where(table.c.name == "pepper").values(value=table.c.value))

    def prediction(self, prediction_id: str) -> dict[str, Any] | None:
        """A prediction with its references and its shadow, or None."""
        with self.database.read() as connection:
            row = connection.execute(
                sa.select(tables.predictions).where(tables.predictions.c.id == prediction_id)
            ).one_or_none()
            if row is None:
                return None
            shadow = connection.execute(
                sa.select(tables.shadows).where(tables.shadows.c.prediction_id == prediction_id)
            ).one_or_none()
            return {
                **row._asdict(),
                "references": _references(connection, prediction_id),
                "shadow": shadow._asdict() if shadow else None,
            }

    def heatmap(self, prediction_id: str) -> bytes | None:
        """The PNG of a prediction's heat map, or None."""
        table = tables.heatmaps
        with self.database.read() as connection:
            png: bytes | None = connection.execute(
                sa.select(table.c.png).where(table.c.prediction_id == prediction_id)
            ).scalar()
        return png

    def repeated(self, key_id: str, idempotency_key: str) -> dict[str, Any] | None:
        """The prediction that was answered under an idempotency key of this caller, or None."""
        table = tables.predictions
        query = sa.select(table).where(table.c.key_id == key_id, table.c.idempotency_key == idempotency_key)
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        return row._asdict() if row else None

    def add_reference(self, prediction_id: str, months: float, *, reader: str = "", key_id: str = "") -> bool:
        """Add a reading of a prediction's radiograph; the latest of each reader counts.

        Args:
            prediction_id: Of the prediction.
            months: Bone age that was read, 0 to 239.
            reader: A code for who read, no name; empty where there is one reader only.
            key_id: Of the caller.

        Returns:
            False where the reader's latest reading is this one already.

        Raises:
            LedgerError: There is no such prediction, or the reading is out of range.
        """
        if not 0 <= months <= MAX_MONTHS:
            raise LedgerError(f"A reading lies within 0..{MAX_MONTHS:g} months, got {months:g}.")
        with self.database.write() as connection:
            _take_turns(connection)
            known = sa.select(tables.predictions.c.id).where(tables.predictions.c.id == prediction_id)
            if connection.execute(known).one_or_none() is None:
                raise LedgerError(f"There is no prediction {prediction_id[:40]!a}.")
            before = [row for row in _references(connection, prediction_id) if row["reader"] == reader]
            if before and before[-1]["bone_age_months"] == months:
                return False
            row = {
                "prediction_id": prediction_id,
                "created_s": time.time(),
                "key_id": key_id,
                "reader": reader,
                "bone_age_months": float(months),
            }
            connection.execute(sa.insert(tables.reference_readings), row)
        return True


def _pepper(database: Database) -> str:
    with database.read() as connection:
        query = sa.select(tables.settings.c.value).where(tables.settings.c.name == "pepper")
        return str(connection.execute(query).scalar_one())


def _insert(connection: sa.Connection, kind: type, rows: list[dict[str, Any]]) -> None:
    statement = _insert_of(kind, connection.dialect.name)
    num_written = connection.execute(statement, rows if len(rows) > 1 else rows[0]).rowcount  # one is faster alone
    if kind is not Answered or num_written == len(rows):
        return
    table = tables.predictions
    ids = sa.select(table.c.id).where(table.c.id.in_([row["id"] for row in rows]))
    there = set(connection.execute(ids).scalars())
    for row in rows:
        if row["id"] not in there:
            connection.execute(sa.insert(table), {**row, "idempotency_key": None})


@functools.cache
def _insert_of(kind: type, dialect: str) -> sa.Insert:
    """Made once: to build it takes half as long as the insert itself."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    statement: sa.Insert = insert(_TABLES[kind]).on_conflict_do_nothing()  # type: ignore[attr-defined]
    return statement.execution_options(preserve_rowcount=True)


def _take_turns(connection: sa.Connection) -> None:
    """Let one transaction at a time number readings, so that whoever has seen a number has seen all before it.

    PostgreSQL numbers rows before they are committed, and SQLite has one writer anyway. An advisory lock: one on the
    table would wait for VACUUM and CREATE INDEX, and needs more rights than INSERT.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_READINGS_LOCK)))


def _references(connection: sa.Connection, prediction_id: str) -> list[dict[str, Any]]:
    table = tables.reference_readings
    query = sa.select(table.c.created_s, table.c.reader, table.c.bone_age_months)
    rows = connection.execute(query.where(table.c.prediction_id == prediction_id).order_by(table.c.id))
    return [row._asdict() for row in rows]
