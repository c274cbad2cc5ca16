"""Keys of callers: who may score, read, or administer. Only a hash of each is kept.

A key reads ``carpal_ID_SECRET``. The secret has 256 random bits, so one SHA-256 of it is as good as a slow hash, which
exists for passwords that people choose. A key is rotated by a second one that opens while the first still does.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from serve import tables
from serve.database import Database, note

ROLES = ("score", "read", "admin")
"""``score``: ask for bone ages and add readings; ``read``: see what is stored; ``admin``: everything."""
MAX_PER_MINUTE = 1_000_000
MAX_AFTER_S = 366 * 24 * 3600.0
"""That a key may open still when its end is set."""
_TOKEN = re.compile(r"carpal_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"no key").hexdigest()


class KeyRefusedError(ValueError):
    """A key that cannot be made or changed as asked."""


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    key_id: str
    """Empty on an open service."""
    roles: frozenset[str]
    per_minute: int | None = None
    """Images that it may send to each gateway, of which a service has one unless given more; None where nobody said."""

    @property
    def actor(self) -> str:
        """As the audit trail names it."""
        return self.key_id or "open"

    def may(self, role: str) -> bool:
        """Whether the caller has a role; an administrator has all."""
        return role in self.roles or "admin" in self.roles


ANYBODY = Caller("", frozenset(ROLES))
"""Every caller of a service that was told to be open."""


class KeyRing:
    """The keys as they stood when they were read; immutable."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = {row["id"]: row for row in rows}

    def __len__(self) -> int:
        return len(self._rows)

    def caller(self, token: str) -> Caller | None:
        """Whose key it is; None for a key that is malformed, unknown, wrong or past its end.

        The comparison takes the same time wherever the secrets differ, and whether or not the id exists.
        """
        match = _TOKEN.fullmatch(token)
        key_id, secret = match.groups() if match else ("", "")
        row = self._rows.get(key_id)
        is_right = hmac.compare_digest(_digest(secret), row["digest"] if row else _NOBODY)
        if row is None or not is_right or (row["ends_s"] is not None and row["ends_s"] <= time.time()):
            return None
        return Caller(key_id, frozenset(row["roles"].split(",")), row.get("per_minute"))


class Keys:
    """The keys of one ledger; every change is in the audit trail."""

    def __init__(self, database: Database, actor: str) -> None:
        self._database, self._actor = database, actor

    def ring(self) -> KeyRing:
        """All keys, for checking callers."""
        return KeyRing(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """Every key there was, oldest first: id, name, roles, digest, when it was made and when it ends."""
        with self._database.read() as connection:
            return read_keys(connection)

    def add(self, name: str, roles: Iterable[str], *, per_minute: int | None = None) -> str:
        """Make a key.

        Args:
            name: For people: which system has it.
            roles: Of `ROLES`.
            per_minute: Images that it may send; None for any number.

        Returns:
            The key, which cannot be shown again.

        Raises:
            KeyRefusedError: There is no such role, the name is unusable, or no image may be sent.
        """
        chosen = sorted(set(roles))
        if not chosen or not set(chosen) <= set(ROLES):
            raise KeyRefusedError(f"A key has one or more of the roles {', '.join(ROLES)}, got {', '.join(chosen)!r}.")
        if not (name.isprintable() and 0 < len(name) <= 64):
            raise KeyRefusedError(f"A key's name has 1 to 64 printable letters, got {name[:80]!a}.")
        if per_minute is not None and not 1 <= per_minute <= MAX_PER_MINUTE:
            raise KeyRefusedError(f"A key sends 1 to {MAX_PER_MINUTE:,} images a minute, got {per_minute}.")
        with self._database.write() as connection:
            return self._insert(connection, name, ",".join(chosen), per_minute, "key.add")

    def end(self, key_id: str, *, after_s: float = 0.0) -> None:
        """Let a key open no longer; every gateway follows within two seconds.

        Raises:
            KeyRefusedError: There is no such key, or the time is none.
        """
        with self._database.write() as connection:
            self._end(connection, key_id, after_s)
            note(connection, self._actor, "key.end", {"key": key_id, "after_s": after_s})

    def rotate(self, key_id: str, *, overlap_s: float) -> str:
        """Make a second key with the same name, roles and rate; the first opens for the overlap still.

        Returns:
            The new key.

        Raises:
            KeyRefusedError: There is no such key, it has ended, or the overlap is no time.
        """
        with self._database.write() as connection:
            row = self._end(connection, key_id, overlap_s)
            if row["ends_s"] is not None and row["ends_s"] <= time.time():  # a second one would open what was closed
                raise KeyRefusedError(f"Key {key_id} has ended and opens nothing. Make one: python -m serve keys add")
            return self._insert(connection, row["name"], row["roles"], row["per_minute"], "key.rotate", key_id)

    def _insert(
        self, connection: sa.Connection, name: str, roles: str, per_minute: int | None, act: str, instead_of: str = ""
    ) -> str:
        key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        said = {"name": name, "roles": roles, "per_minute": per_minute}
        row = {"id": key_id, **said, "digest": _digest(secret), "created_s": time.time()}
        connection.execute(sa.insert(tables.keys), row)
        note(connection, self._actor, act, {"new": key_id, **said, "instead_of": instead_of})
        return f"carpal_{key_id}_{secret}"

    def _end(self, connection: sa.Connection, key_id: str, after_s: float) -> dict[str, Any]:
        """The key as it was before."""
        if not 0 <= after_s <= MAX_AFTER_S:  # NaN is neither, and SQLite stores it as no end at all
            most = f"{MAX_AFTER_S / 3600:,.0f}"
            raise KeyRefusedError(
                f"A key opens for 0 to {most} hours still, got {after_s / 3600:g}. Choose such a time."
            )
        table = tables.keys
        row = connection.execute(sa.select(table).where(table.c.id == key_id)).one_or_none()
        if row is None:
            raise KeyRefusedError(f"There is no key {key_id[:40]!a}. See: python -m serve keys list")
        ends_s = min(time.time() + after_s, row.ends_s if row.ends_s is not None else float("inf"))
        connection.execute(sa.update(table).where(table.c.id == key_id).values(ends_s=ends_s))
        return dict(row._asdict())


def read_keys(connection: sa.Connection) -> list[dict[str, Any]]:
    """`Keys.rows`, inside a transaction that reads more."""
    return [row._asdict() for row in connection.execute(sa.select(tables.keys).order_by(tables.keys.c.created_s))]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
