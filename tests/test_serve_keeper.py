"""The keeper brings what runs into line with the routing; Serve and the bundles are stood in for here."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ReplicaState

from serve import applications, keeper
from serve.capacity import Capacity
from serve.database import Database, LedgerDownError
from serve.keeper import Keeper
from serve.lifecycle import Lifecycle, experiment_named
from serve.releases import Releases
from serve.routing import Routing, RoutingState

A, B, C = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb", "ens-cccccccccccc"


@dataclass
class Serve:
    """What Ray Serve would hold."""

    status_of: dict[str, str] = field(default_factory=lambda: {"gateway": "RUNNING", A: "RUNNING"})
    comes_up: str = "RUNNING"
    num_running: int = 0
    """Replicas of each tier that answer."""

    def status(self) -> Any:
        tier = SimpleNamespace(replica_states={ReplicaState.RUNNING: self.num_running}, message="")
        rows = {
            name: SimpleNamespace(status=status, deployments={"Ensemble": tier}, message=f"{name} says why")
            for name, status in self.status_of.items()
        }
        return SimpleNamespace(applications=rows)

    def run_many(self, targets: Iterable[Any], *, wait_for_applications_running: bool) -> None:
        self.status_of |= {target.name: self.comes_up for target in targets}

    def delete(self, name: str) -> None:
        del self.status_of[name]


class Bundles:
    """A registry that has every version but C."""

    def __init__(self, path: Path) -> None:
        self.path, self.alias = path, A

    def aliases(self) -> dict[str, str]:
        return {"champion": self.alias}

    def set_alias(self, name: str, version: str) -> None:
        self.alias = version

    def resolve(self, version: str) -> Any:
        if version == C:
            raise ValueError("a byte of it has changed")
        return SimpleNamespace(version=version, recipe=SimpleNamespace(hash="r", to_dict=dict), members=[1, 2])


class Site:
    """A keeper at work."""

    def __init__(self, folder: Path, serve: Serve) -> None:
        self.serve, self.bundles = serve, Bundles(folder)
        self.database = Database(f"sqlite:///{folder}/ledger.db")
        Routing(self.database).begin(A)
        self.lifecycle, self.releases = Lifecycle(self.database, "me"), Releases(self.database, "me")
        self.said: list[str] = []
        capacity = Capacity.of({"CPU": 2})
        self.keeper = Keeper(self.bundles, self.database, capacity, self.said.append)  # type: ignore[arg-type]

    def state(self) -> RoutingState:
        state = Routing(self.database).current()
        assert state is not None
        return state

    def status(self, version: str) -> str | None:
        row = self.releases.row(version)
        return row["status"] if row else None


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    serve = Serve()
    monkeypatch.setattr(keeper, "serve", serve)
    monkeypatch.setattr(applications, "serve", serve)
    monkeypatch.setattr(keeper, "version_application", lambda *_: None)
    monkeypatch.setattr(keeper, "SURPLUS_S", 0.0)
    return Site(tmp_path, serve)


def test_a_challenger_is_loaded_and_taken_down_after_its_experiment(site: Site) -> None:
    site.lifecycle.start("e", B)
    site.keeper.follow()
    assert (site.serve.status_of[B], site.status(A), site.status(B)) == ("RUNNING", "ready", "ready")
    site.lifecycle.stop("e", {})
    site.keeper.follow()
    site.keeper.follow()
    assert (B in site.serve.status_of, site.status(B)) == (False, None)


def test_nothing_is_taken_down_before_what_replaces_it_runs(site: Site) -> None:
    site.serve.comes_up = "DEPLOYING"
    site.lifecycle.start("e", B)
    site.lifecycle.promote("e", {})
    for _ in range(3):
        site.keeper.follow()
    assert (site.serve.status_of[A], site.status(B), site.bundles.alias) == ("RUNNING", "loading", B)
    site.serve.status_of[B] = "RUNNING"
    site.keeper.follow()
    site.keeper.follow()
    assert (A in site.serve.status_of, site.status(B)) == (False, "ready")


@pytest.mark.parametrize(("challenger", "why"), [(B, "ens-bbbbbbbbbbbb says why"), (C, "a byte of it has changed")])
def test_a_challenger_that_cannot_be_loaded_leaves_its_experiment(site: Site, challenger: str, why: str) -> None:
    site.serve.comes_up = "DEPLOY_FAILED"
    site.lifecycle.start("e", challenger)
    site.keeper.follow()
    assert site.state().experiment is None
    assert experiment_named(site.database, "e")["outcome"] == "rolled back"
    row = site.releases.row(challenger)
    assert row is not None
    assert (row["status"], row["reason"]) == ("failed", why)
    assert challenger not in site.serve.status_of


def test_a_challenger_that_does_not_come_back_leaves_its_experiment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.lifecycle.start("e", B)
    site.keeper.follow()
    site.serve.status_of[B] = "UNHEALTHY"
    site.keeper.follow()
    assert site.state().experiment is not None  # Serve starts it again
    monkeypatch.setattr(keeper, "AWAY_S", -1.0)
    site.keeper.follow()
    assert site.state().experiment is None


def test_a_challenger_that_has_lost_one_of_two_replicas_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "AWAY_S", -1.0)
    site.lifecycle.start("e", B)
    site.keeper.follow()
    site.serve.status_of[B], site.serve.num_running = "UNHEALTHY", 1
    site.keeper.follow()
    assert site.state().experiment is not None
    assert site.status(B) == "ready"


def test_an_added_version_that_fails_is_tried_again_when_asked(site: Site) -> None:
    site.serve.comes_up = "DEPLOY_FAILED"
    site.releases.add(B)
    site.keeper.follow()
    assert (site.status(B), site.state().loaded) == ("failed", ())
    site.serve.comes_up = "RUNNING"
    site.releases.add(B)
    site.keeper.follow()
    assert site.status(B) == "ready"


def test_a_champion_that_is_lost_stays_champion(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "AWAY_S", -1.0)
    site.serve.status_of[A] = "UNHEALTHY"
    site.keeper.follow()
    assert (site.status(A), site.state().champion, site.serve.status_of[A]) == ("failed", A, "UNHEALTHY")
    site.serve.status_of[A] = "RUNNING"
    site.keeper.follow()
    assert site.status(A) == "ready"


def test_another_keeper_takes_over_what_runs(site: Site, tmp_path: Path) -> None:
    site.releases.add(B)
    site.keeper.follow()
    another = Site(tmp_path, site.serve)
    another.keeper.follow()
    assert (another.said, another.status(B)) == ([], "ready")
    row = another.releases.row(B)
    assert row is not None
    assert row["description"]["members"] == 2


def test_an_outage_is_told_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise LedgerDownError("away")

    monkeypatch.setattr(Database, "read", away)
    for _ in range(3):
        site.keeper.follow()
    assert site.said == ["away"]
