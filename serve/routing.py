"""The one routing state that every gateway follows: who is champion, and which experiment runs.

A state is never changed: the next version is written, by compare-and-swap, and the highest one holds. A gateway reads
one immutable state per request, so that nobody meets half a change.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from serve import tables
from serve.database import Database, note
from serve.experiment import Experiment


class RoutingConflictError(RuntimeError):
    """Somebody else changed the routing meanwhile; look at it again."""


@dataclass(frozen=True, kw_only=True)
class RoutingState:
    """Who answers."""

    version: int
    """Counts the changes; 0 before the first."""
    champion: str
    """Bundle version that answers."""
    previous: str | None = None
    """Champion before the last promotion."""
    experiment: Experiment | None = None
    loaded: tuple[str, ...] = ()
    """Versions that are kept ready beside these and get no traffic."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        experiment = self.experiment.to_dict() if self.experiment else None
        return {**asdict(self), "experiment": experiment, "loaded": list(self.loaded)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RoutingState":
        """The state that `to_dict` wrote."""
        experiment = values["experiment"]
        read = {"experiment": Experiment.from_dict(experiment) if experiment else None}
        return cls(**{**values, **read, "loaded": tuple(values.get("loaded", ()))})  # older states have none

    def bundles(self) -> tuple[str, ...]:
        """Versions that must be able to score, each once; the champion first."""
        challenger = [self.experiment.challenger] if self.experiment else []
        return tuple(dict.fromkeys((self.champion, *challenger, *self.loaded)))

    def role_of(self, version: str) -> str:
        """``champion``, ``challenger`` or ``loaded``."""
        if version == self.champion:
            return "champion"
        return "challenger" if self.experiment and version == self.experiment.challenger else "loaded"


class Routing:
    """The states of one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def current(self) -> RoutingState | None:
        """The state that holds; None before the first service started on this ledger."""
        with self._database.read() as connection:
            return current_state(connection)

    def begin(self, champion: str) -> RoutingState:
        """The state that holds; on a new ledger the given champion answers from now on."""
        if state := self.current():
            return state
        try:
            first = RoutingState(version=0, champion=champion)
            return self.change(first, first, actor="service", act="routing.begin", detail={})
        except RoutingConflictError:  # another service began at the same moment
            state = self.current()
            assert state is not None
            return state

    def change(
        self, seen: RoutingState, wanted: RoutingState, *, actor: str, act: str, detail: Mapping[str, Any]
    ) -> RoutingState:
        """Write the next state, with its line in the audit trail.

        Raises:
            RoutingConflictError: The state is not the one that was seen any more.
        """
        with self._database.write() as connection:
            return write_state(connection, seen, wanted, actor=actor, act=act, detail=detail)

    def history(self) -> list[dict[str, Any]]:
        """Every act on this ledger with its data, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id))
            return [row._asdict() for row in rows]


def current_state(connection: sa.Connection) -> RoutingState | None:
    """The state with the highest version."""
    table = tables.routing
    found = connection.execute(sa.select(table.c.state).order_by(table.c.version.desc()).limit(1)).scalar()
    return None if found is None else RoutingState.from_dict(found)


def write_state(
    connection: sa.Connection,
    seen: RoutingState,
    wanted: RoutingState,
    *,
    actor: str,
    act: str,
    detail: Mapping[str, Any],
) -> RoutingState:
    """`Routing.change`, inside a transaction that does more."""
    state = replace(wanted, version=seen.version + 1)
    row = {"version": state.version, "created_s": time.time(), "state": state.to_dict()}
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(tables.routing), row)  # a version exists once: the second writer fails here
    except IntegrityError:
        raise RoutingConflictError(
            f"The routing was at version {seen.version} and has moved on. Look at it again, then repeat."
        ) from None
    note(connection, actor, act, {"from": seen.version, "to": state.version, "state": row["state"], **detail})
    return state
