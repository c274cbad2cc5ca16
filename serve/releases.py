"""Versions come and go while requests are answered: what is told to the service, and what became of it.

`Releases.add` names a version in the routing; the service loads and warms it beside the others, without traffic.
`Releases.crown` lets it answer from then on; the champion before stays loaded, so that the way back takes no longer
than the way there. `Releases.retire` takes a version down. Each is one transaction with its line in the audit trail.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from serve import tables
from serve.database import Database
from serve.routing import RoutingState, current_state, write_state

STATUSES = ("loading", "ready", "asleep", "failed")
MAX_LOADED = 8
"""Versions that are kept ready without traffic; each holds all its members in memory."""

_DECLARED = "declared"


class ReleaseError(ValueError):
    """A version that cannot be added, crowned or retired now."""


class Releases:
    """Acts of one actor on the versions of one ledger.

    Args:
        database: Of the ledger.
        actor: Who acts, as the audit trail names it.
    """

    def __init__(self, database: Database, actor: str) -> None:
        self._database, self._actor = database, actor

    def add(self, version: str) -> RoutingState:
        """Have a version loaded; one that failed before is tried again.

        Raises:
            ReleaseError: No service has run on this ledger, or too many versions are loaded.
        """
        with self._database.write() as connection:
            seen = _present(connection)
            if version not in seen.bundles() and len(seen.loaded) >= MAX_LOADED:
                raise ReleaseError(f"{MAX_LOADED} versions are kept ready without traffic. Retire one of them first.")
            connection.execute(
                sa.delete(tables.releases).where(
                    tables.releases.c.version == version, tables.releases.c.status == "failed"
                )
            )
            if version in seen.bundles():
                return seen
            wanted = replace(seen, loaded=(*seen.loaded, version))
            return self._write(connection, seen, wanted, "release.add", version, {})

    def crown(self, version: str, *, declared: str = "") -> RoutingState:
        """Let a loaded version answer from now on; the champion before stays loaded.

        Args:
            version: To be champion.
            declared: As a configuration file names it, where one asks for it: noted in the same transaction.

        Raises:
            ReleaseError: It is not ready, or an experiment runs, whose champion must stay.
        """
        with self._database.write() as connection:
            seen = _present(connection)
            if version == seen.champion:
                _declare(connection, declared)
                return seen
            if seen.experiment:
                raise ReleaseError(
                    f"Experiment {seen.experiment.name} runs, and its champion must stay. Promote its challenger, or "
                    "stop it first."
                )
            row = connection.execute(
                sa.select(tables.releases.c.status).where(tables.releases.c.version == version)
            ).scalar()
            if version not in seen.loaded or row not in ("ready", "asleep"):  # who sleeps is woken by traffic
                raise ReleaseError(f"{version} is {row or 'not loaded'}, so it cannot answer. Add it first.")
            loaded = (*(each for each in seen.loaded if each != version), seen.champion)
            wanted = replace(seen, champion=version, previous=seen.champion, loaded=loaded)
            _declare(connection, declared)
            return self._write(connection, seen, wanted, "release.champion", version, {})

    def retire(self, version: str, *, reason: str = "") -> RoutingState:
        """Have a version taken down.

        Raises:
            ReleaseError: It answers requests, or is not loaded.
        """
        with self._database.write() as connection:
            seen = _present(connection)
            if version == seen.champion:
                raise ReleaseError(f"{version} is the champion. Let another version answer first: serve add --champion")
            if seen.experiment and version == seen.experiment.challenger:
                raise ReleaseError(f"{version} is under test in {seen.experiment.name}. Stop or roll that back first.")
            if version not in seen.loaded:
                raise ReleaseError(f"{version[:80]} is not loaded. {_loaded(seen)}")
            wanted = replace(seen, loaded=tuple(each for each in seen.loaded if each != version))
            return self._write(connection, seen, wanted, "release.retire", version, {"why": reason} if reason else {})

    def declared(self) -> str | None:
        """What a configuration file declared last, and got; None before the first."""
        with self._database.read() as connection:
            return connection.execute(
                sa.select(tables.settings.c.value).where(tables.settings.c.name == _DECLARED)
            ).scalar()

    def declare(self, name: str) -> None:
        """Note what a configuration file declares, where there is nothing to be done about it."""
        with self._database.write() as connection:
            _declare(connection, name)

    def tell(self, version: str, status: str, description: Mapping[str, Any] | None, reason: str = "") -> None:
        """Note what became of a version; without a description the one that was noted before stays."""
        assert status in STATUSES
        table = tables.releases
        row: dict[str, Any] = {"status": status, "changed_s": time.time(), "reason": reason[:500]}
        if description is not None:
            row["description"] = dict(description)
        with self._database.write() as connection:
            if not connection.execute(sa.update(table).where(table.c.version == version).values(row)).rowcount:
                connection.execute(sa.insert(table), {"version": version, "description": {}, **row})

    def forget(self, version: str) -> None:
        """Note that a version is not there any more."""
        with self._database.write() as connection:
            connection.execute(sa.delete(tables.releases).where(tables.releases.c.version == version))

    def row(self, version: str) -> dict[str, Any] | None:
        """What became of a version; None before the service saw it, and after it took it down."""
        with self._database.read() as connection:
            return next((row for row in read_releases(connection) if row["version"] == version), None)

    def _write(
        self,
        connection: sa.Connection,
        seen: RoutingState,
        wanted: RoutingState,
        act: str,
        version: str,
        data: Mapping[str, Any],
    ) -> RoutingState:
        detail = {"release": version, "data": dict(data)}
        return write_state(connection, seen, wanted, actor=self._actor, act=act, detail=detail)


def read_releases(connection: sa.Connection) -> list[dict[str, Any]]:
    """Every version that the service holds or failed to load: version, status, changed_s, reason, description."""
    table = tables.releases
    return [row._asdict() for row in connection.execute(sa.select(table).order_by(table.c.changed_s.desc()))]


def _declare(connection: sa.Connection, name: str) -> None:
    table = tables.settings
    if not name:
        return
    changed = connection.execute(sa.update(table).where(table.c.name == _DECLARED).values(value=name))
    if not changed.rowcount:
        connection.execute(sa.insert(table), {"name": _DECLARED, "value": name})


def _present(connection: sa.Connection) -> RoutingState:
    if (state := current_state(connection)) is None:
        raise ReleaseError("No service has run on this ledger yet. Start one: python -m serve REGISTRY")
    return state


def _loaded(state: RoutingState) -> str:
    roles = ", ".join(f"{version} ({state.role_of(version)})" for version in state.bundles())
    return f"Loaded are {roles}."
