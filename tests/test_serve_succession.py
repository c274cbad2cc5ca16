"""Who answers when a service starts: the later of two acts, on the ledger and on the registry."""

import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ensemble import changes
from ensemble.bundle import MARKER
from ensemble.registry import Registry
from serve.database import Database
from serve.ledger import Ledger
from serve.lifecycle import Lifecycle
from serve.releases import Releases
from serve.routing import Routing
from serve.succession import BY_SERVICE, Given, start

A, B, C = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb", "ens-cccccccccccc"
PROMOTED_S = 1000.0


@pytest.fixture
def database(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A ledger of which A was the first champion; B is since second 1000."""
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: 1.0)
        Routing(ledger.database).begin(A)
        clock.setattr(time, "time", lambda: PROMOTED_S)
        crown(ledger.database, B)
    return ledger.database


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """One that has A, B and C, of which nothing but the names is read."""
    for version in (A, B, C):
        folder = tmp_path / "registry" / "bundles" / version
        folder.mkdir(parents=True)
        (folder / MARKER).write_text("{}")
    return Registry(tmp_path / "registry")


@pytest.fixture
def agreed(sqlite_ledger: Ledger, registry: Registry) -> Database:
    """A ledger that has A as its champion, as the registry does."""
    registry.set_alias("champion", A)
    Routing(sqlite_ledger.database).begin(A)
    return sqlite_ledger.database


def crown(database: Database, version: str) -> None:
    releases = Releases(database, "me")
    releases.add(version)
    releases.tell(version, "ready", {})
    releases.crown(version)


def at(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def acts(database: Database) -> list[dict[str, Any]]:
    return Routing(database).history()


def champion(database: Database) -> str:
    state = Routing(database).current()
    assert state is not None
    return state.champion


def test_the_later_act_holds(database: Database) -> None:
    state, why = start(database, Given(A, at(PROMOTED_S - 1)))
    assert (state.champion, acts(database)[-1]["act"]) == (B, "routing.stay")
    assert why.startswith(f"{B} answers: it became the ledger's champion at 1970-01-01 00:16:40Z, after {A}")
    assert acts(database)[-1]["detail"]["data"]["why"] == why
    state, why = start(database, Given(A, at(PROMOTED_S + 1)))
    assert (state.champion, state.previous, state.loaded) == (A, B, ())
    assert (acts(database)[-1]["act"], acts(database)[-1]["detail"]["data"]["why"]) == ("routing.start", why)


def test_a_version_that_is_named_at_the_start_is_the_latest_act(database: Database) -> None:
    assert start(database, Given(C, at(math.inf)))[0].champion == C


def test_where_both_agree_nothing_is_written(database: Database) -> None:
    before = len(acts(database))
    assert start(database, Given(B, at(math.inf)))[1] == ""
    assert len(acts(database)) == before


def test_what_was_promoted_elsewhere_during_an_outage_is_later_than_the_start_in_it(database: Database) -> None:
    assert start(database, Given(A, at(math.inf)), began_s=PROMOTED_S - 1)[0].champion == B
    assert start(database, Given(A, at(math.inf)), began_s=PROMOTED_S + 1)[0].champion == A


def test_an_experiment_keeps_its_champion_and_that_is_written_down(database: Database) -> None:
    Lifecycle(database, "me").start("e", C)
    state, why = start(database, Given(A, at(math.inf)))
    assert (state.champion, acts(database)[-1]["act"]) == (B, "routing.stay")
    assert why.startswith(f"{B} stays champion: experiment e runs.")


def test_a_start_of_an_experiment_is_no_promotion(database: Database) -> None:
    lifecycle = Lifecycle(database, "me")
    lifecycle.start("e", C)
    lifecycle.stop("e", {})
    assert start(database, Given(A, at(PROMOTED_S + 1)))[0].champion == A


def test_a_person_who_promotes_while_no_service_runs_is_heard(
    agreed: Database, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as clock:
        clock.setattr(changes, "datetime", Later)
        registry.set_alias("champion", B)
        registry.set_alias("stable", A)
    assert start(agreed, Given.of(registry, "champion"))[0].champion == B


def test_a_promotion_that_the_registry_was_not_told_of_survives_a_start(
    agreed: Database, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: PROMOTED_S + 1e10)
        crown(agreed, B)
    assert start(agreed, Given.of(registry, "champion"))[0].champion == B
    assert start(agreed, Given.of(registry, A))[0].champion == A  # by its name


def test_where_a_service_moved_the_registrys_champion_nobody_decided_anything(
    sqlite_ledger: Ledger, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    Routing(sqlite_ledger.database).begin(A)
    with monkeypatch.context() as clock:
        clock.setattr(changes, "datetime", Later)
        registry.set_alias("champion", B, note=BY_SERVICE)
    assert start(sqlite_ledger.database, Given.of(registry, "champion"))[0].champion == A


class Later:
    """A clock that is an hour ahead."""

    @staticmethod
    def now(zone: Any) -> Any:
        return datetime.now(zone) + timedelta(hours=1)
