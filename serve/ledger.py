"""The ledger: what was answered, what a challenger would have answered, what failed, and the readings that came later.

Everything a gateway writes is an `Entry`, a row with its table, so that the same rows go into the database or, while
that is away, into a spool, and from there into the database; an entry that is there already is left alone.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from serve import tables
from serve.database import Database, LedgerError

MAX_MONTHS = 239.0
"""Of a reading: the last month that a distribution reaches."""
ID_PATTERN = re.compile(r"[0-9a-f]{32}")


def new_id() -> str:
    """32 hex digits that begin with the time, so that neighbours in time are neighbours in the index."""
    return f"{time.time_ns() // 1000:014x}{secrets.token_hex(9)}"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A prediction, as it is stored before it is answered."""

    id: str = field(default_factory=new_id)
    created_s: float = field(default_factory=time.time)
    request_id: str
    key_id: str
    """Key that asked; empty on an open service."""
    idempotency_key: str | None = None
    fingerprint: str
    """`fingerprint` of what was asked."""
    subject: str | None
    """`Ledger.pseudonym` of the subject, where one was given."""
    sex: str | None
    """``male`` or ``female``, or None where it is unknown."""
    version: str
    bone_age_months: float
    answer: Mapping[str, Any]
    """The whole answer, as sent."""
    latency_ms: float
    routing_version: int
    experiment: str | None = None
    arm: str | None = None
    """``champion`` or ``challenger``: who answered, inside an experiment."""
    share: float | None = None
    """Probability with which the experiment gave this subject its arm."""


@dataclass(frozen=True, kw_only=True)
class Shadowed:
    """What a challenger says about a prediction that the champion answered."""

    prediction_id: str
    created_s: float = field(default_factory=time.time)
    version: str
    bone_age_months: float
    answer: Mapping[str, Any]
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A version that could not answer for a fit image."""

    id: str = field(default_factory=new_id)
    created_s: float = field(default_factory=time.time)
    request_id: str
    version: str
    code: str
    experiment: str | None = None
    arm: str | None = None


@dataclass(frozen=True, kw_only=True)
class Explained:
    """The heat map of a prediction."""

    prediction_id: str
    created_s: float = field(default_factory=time.time)
    png: bytes


Entry = Answered | Shadowed | Failed | Explained
_TABLES: dict[type, sa.Table] = {
    Answered: tables.predictions,
    Shadowed: tables.shadows,
    Failed: tables.failures,
    Explained: tables.heatmaps,
}
_KINDS: dict[str, type] = {"answered": Answered, "shadowed": Shadowed, "failed": Failed, "explained": Explained}


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry as plain JSON values."""
    (kind,) = (name for name, of in _KINDS.items() if isinstance(entry, of))
    values = asdict(entry)
    if isinstance(entry, Explained):
        values["png"] = base64.b64encode(entry.png).decode("ascii")
    return {"kind": kind, **values}


def from_json(value: Mapping[str, Any]) -> Entry:
    """The entry that `to_json` wrote.

    Raises:
        LedgerError: It is none.
    """
    try:
        fields = dict(value)
        kind = _KINDS[fields.pop("kind")]
        if kind is Explained:
            fields["png"] = base64.b64decode(fields["png"], validate=True)
        entry: Entry = kind(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"A spooled entry cannot be read ({error}). Was it written by another release?") from None
    return entry


def fingerprint(data: bytes, parameters: Mapping[str, Any]) -> str:
    """SHA-256 of an image and of the parameters it was sent with, plain JSON values."""
    digest = hashlib.sha256(hashlib.sha256(data).digest())
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
    table = _TABLES[kind]
    id_column = next(iter(table.primary_key))
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).on_conflict_do_nothing().returning(id_column)  # type: ignore[attr-defined]
    written = set(connection.execute(statement, rows).scalars())
    if kind is not Answered or len(written) == len(rows):
        return
    left = [row for row in rows if row["id"] not in written]
    there = set(connection.execute(sa.select(id_column).where(id_column.in_([row["id"] for row in left]))).scalars())
    for row in left:
        if row["id"] not in there:
            connection.execute(sa.insert(table), {**row, "idempotency_key": None})


def _references(connection: sa.Connection, prediction_id: str) -> list[dict[str, Any]]:
    table = tables.reference_readings
    query = sa.select(table.c.created_s, table.c.reader, table.c.bone_age_months)
    rows = connection.execute(query.where(table.c.prediction_id == prediction_id).order_by(table.c.id))
    return [row._asdict() for row in rows]
