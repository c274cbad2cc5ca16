"""Who answers when a service starts: the champion of its ledger, or the version that it is given.

Both may have moved while the other was away: the ledger by a promotion that the registry could not be told of, the
registry's alias by ``python -m ensemble promote`` while no service ran. The later act holds. A version that somebody
names at the start is the latest of all, and a running experiment keeps its champion.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from serve import tables
from serve.database import Database, note
from serve.moments import moment_in_words
from serve.routing import Routing, RoutingState, current_state, write_state

if TYPE_CHECKING:
    from ensemble.registry import Registry

BY_SERVICE = {"by": "service"}
"""What a service writes beside an alias that it moves: it follows the ledger, and nobody decided anything."""


@dataclass(frozen=True)
class Given:
    """The version that a service is given."""

    version: str
    decided_s: Callable[[], float]
    """When somebody decided on it, in Unix seconds. It reads the registry's records: to be asked where the ledger says
    otherwise."""

    @classmethod
    def of(cls, registry: "Registry", name: str) -> "Given":
        """What a name means: the registry's champion since it was moved there, any other as of now.

        Raises:
            RegistryError: There is no such alias or version.
        """
        from ensemble.registry import CHAMPION  # late: it loads torch

        version = registry.version_of(name)
        return cls(version, partial(_moved_s, registry, CHAMPION, version) if name == CHAMPION else lambda: math.inf)


@dataclass(frozen=True)
class Verdict:
    """Whether a given version takes the place of the ledger's champion."""

    is_given: bool
    why: str
    """One sentence; empty where the two agree."""


def judge(connection: sa.Connection, state: RoutingState, given: Given, began_s: float = math.inf) -> Verdict:
    """Which of the two holds.

    Args:
        connection: Of the ledger.
        state: The routing that holds.
        given: Beside it.
        began_s: When the service began without its ledger, in Unix seconds: what was decided there since is later.
    """
    champion, version = state.champion, given.version
    if version == champion:
        return Verdict(False, "")
    remedy = f"python -m serve add REGISTRY {version} --champion"
    if state.experiment:
        return Verdict(
            False,
            f"{champion} stays champion: experiment {state.experiment.name} runs. Afterwards: {remedy}",
        )
    since_s, decided_s = _since_s(connection, champion), min(given.decided_s(), began_s)
    since = f"became the ledger's champion at {moment_in_words(since_s)}"
    if decided_s <= since_s:
        return Verdict(False, f"{champion} answers: it {since}, after {version} was decided on. To change it: {remedy}")
    when = "named at this start" if decided_s == math.inf else f"decided on at {moment_in_words(decided_s)}"
    return Verdict(True, f"{version} answers: it was {when}, and {champion} {since}.")


def start(database: Database, given: Given, began_s: float = math.inf) -> tuple[RoutingState, str]:
    """The routing with which a service starts, and why where ledger and given version differ; written down.

    Raises:
        RoutingConflictError: Somebody else changed the routing at the same moment.
        LedgerDownError: The database does not answer.
    """
    Routing(database).begin(given.version)
    with database.write() as connection:
        state = current_state(connection)
        assert state is not None, "the routing has begun"
        verdict = judge(connection, state, given, began_s)
        if verdict.is_given:
            loaded = tuple(each for each in state.loaded if each != given.version)
            wanted = replace(state, champion=given.version, previous=state.champion, loaded=loaded)
            detail = {"release": given.version, "data": {"why": verdict.why}}
            state = write_state(connection, state, wanted, actor="service", act="routing.start", detail=detail)
        elif verdict.why:
            note_stay(connection, given, verdict)
    return state, verdict.why


def note_stay(connection: sa.Connection, given: Given, verdict: Verdict) -> None:
    """Write into the audit trail that the ledger's champion stays, though another version was given."""
    note(connection, "service", "routing.stay", {"release": given.version, "data": {"why": verdict.why}})


def _since_s(connection: sa.Connection, champion: str) -> float:
    """Since when the ledger has its present champion, in Unix seconds."""
    table, since_s = tables.routing, -math.inf
    for row in connection.execute(sa.select(table).order_by(table.c.version.desc())):
        if row.state["champion"] != champion:
            break
        since_s = row.created_s
    return since_s


def _moved_s(registry: "Registry", alias: str, version: str) -> float:
    """When somebody let an alias point to a version, in Unix seconds; -inf where a service did, or another holds."""
    moves = [change for change in registry.history() if change["event"] == "alias" and change["alias"] == alias]
    if not moves or moves[-1]["version"] != version or BY_SERVICE.items() <= moves[-1].items():
        return -math.inf
    return datetime.fromisoformat(moves[-1]["time"]).timestamp()
