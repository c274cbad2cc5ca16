"""The keeper brings what runs into line with the routing; Serve and the bundles are stood in for here."""

import contextlib
import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ReplicaState

from ensemble import bundle
from ensemble.bundle import BundleError
from serve import applications, keeper, service
from serve.capacity import Capacity
from serve.database import Database, LedgerDownError
from serve.experiment import ExperimentError
from serve.experiment_policy import Judge
from serve.keeper import Keeper
from serve.lifecycle import Lifecycle, experiment_named
from serve.outset import Outset
from serve.releases import Releases
from serve.rounds import Rounds
from serve.routing import Routing, RoutingConflictError, RoutingState
from serve.service import Service, ServiceError
from serve.succession import BY_SERVICE, Given

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


class Clock:
    """A monotonic clock that goes when it is told."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Bundles:
    """A registry that has every version but C."""

    def __init__(self, path: Path) -> None:
        self.path, self.alias = path, A

    def aliases(self) -> dict[str, str]:
        return {"champion": self.alias}

    def set_alias(self, name: str, version: str, *, note: dict[str, str]) -> None:
        assert note == BY_SERVICE
        self.alias = version

    def resolve(self, version: str) -> Any:
        if version == C:
            raise ValueError("a byte of it has changed")
        recipe, manifest = SimpleNamespace(hash="r", to_dict=dict), {"provenance": {"trials": []}}
        members = [SimpleNamespace(weight=weight) for weight in (0.75, 0.25, 0.0)]  # two, and a student
        return SimpleNamespace(
            version=version, recipe=recipe, digest="b", cohort="c", manifest=manifest, members=members
        )


class Site:
    """A keeper at work."""

    def __init__(self, folder: Path, serve: Serve) -> None:
        self.serve, self.bundles = serve, Bundles(folder)
        self.database = Database(f"sqlite:///{folder}/ledger.db")
        Routing(self.database).begin(A)
        self.lifecycle, self.releases = Lifecycle(self.database, "me"), Releases(self.database, "me")
        self.said: list[str] = []
        self.rounds = Rounds(self.said.append)
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
    site.releases.retire(A)
    for _ in range(3):
        site.keeper.follow()
    assert (site.serve.status_of[A], site.status(B), site.bundles.alias) == ("RUNNING", "loading", B)
    site.serve.status_of[B] = "RUNNING"
    site.keeper.follow()
    site.keeper.follow()
    assert (A in site.serve.status_of, site.status(B)) == (False, "ready")


def test_a_version_is_kept_for_a_while_after_what_replaces_it_has_come_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(keeper, "time", clock)
    monkeypatch.setattr(keeper, "SURPLUS_S", 30.0)
    site.serve.comes_up = "DEPLOYING"
    site.lifecycle.start("e", B)
    site.lifecycle.promote("e", {})
    site.releases.retire(A)
    site.keeper.follow()
    clock.now_s += 100.0  # a large bundle
    site.keeper.follow()
    site.serve.status_of[B] = "RUNNING"
    for later_s, is_there in ((0.0, True), (29.0, True), (2.0, False)):
        clock.now_s += later_s
        site.keeper.follow()
        assert (A in site.serve.status_of) is is_there


def test_the_registrys_champion_is_put_back_aloud_where_somebody_moves_it(site: Site) -> None:
    site.keeper.follow()
    site.bundles.alias = C
    site.keeper.follow()
    assert site.bundles.alias == A
    assert site.said == [line for line in site.said if f"champion was {C} and is {A} now" in line] != []
    site.bundles.alias = C
    site.keeper.follow(C)  # which is on its way
    assert site.bundles.alias == C


def test_a_promotion_is_taken_back_without_loading_the_champion_before(site: Site) -> None:
    site.lifecycle.start("e", B)
    site.keeper.follow()
    site.lifecycle.promote("e", {})
    for _ in range(3):
        site.keeper.follow()
    assert (site.serve.status_of[A], site.status(A)) == ("RUNNING", "ready")
    site.lifecycle.rollback("e", {})
    for _ in range(3):
        site.keeper.follow()
    assert (site.state().bundles(), B in site.serve.status_of) == ((A,), False)
    assert sum(line.startswith(f"loading {A}") for line in site.said) == 0


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
        site.rounds.run(site.keeper.follow)
    assert site.said == ["away"]


def test_an_error_that_nobody_foresaw_is_told_once_without_its_words_and_the_rounds_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space for Doe^Jane")

    site.releases.add(B)
    site.rounds.run(site.keeper.follow)
    site.releases.crown(B)
    site.said.clear()
    with monkeypatch.context() as disk:
        disk.setattr(site.bundles, "set_alias", full)
        for _ in range(3):
            site.rounds.run(site.keeper.follow)
    (line,) = site.said
    assert line.startswith("OSError at test_serve_keeper.py:")
    assert "Doe" not in line
    site.rounds.run(site.keeper.follow)
    assert site.bundles.alias == B


def test_a_registry_that_cannot_be_written_to_keeps_no_version_from_being_loaded_and_no_round_from_its_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Bundles, "set_alias")
    site.bundles.alias = C
    site.releases.add(B)
    for _ in range(2):
        site.keeper.follow()  # which goes well: a declared service is ready then
    assert (site.status(B), len([line for line in site.said if "AttributeError" in line])) == ("ready", 1)


def test_a_policy_that_cannot_judge_keeps_no_version_from_being_loaded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(_: Any) -> None:
        raise ExperimentError("Experiment e does not run: it was stopped.")

    monkeypatch.setattr(Judge, "act", ended)
    site.lifecycle.start("e", B)
    for _ in range(2):
        site.rounds.run(site.keeper.follow)
    assert (site.status(B), site.said[0]) == ("ready", "Experiment e does not run: it was stopped.")


def test_a_policy_that_was_overtaken_judges_again_in_the_next_round(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []

    def overtaken(_: Any) -> None:
        judged.append(1)
        raise RoutingConflictError("moved on")

    monkeypatch.setattr(Judge, "act", overtaken)
    for _ in range(3):
        site.rounds.run(site.keeper.follow)
    assert (len(judged), site.said) == (3, ["moved on"])


def test_a_service_survives_a_change_of_the_routing_while_it_tells_of_its_own(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*_: Any) -> None:
        raise RoutingConflictError("moved on")

    monkeypatch.setattr(service, "start", moved)
    setting: Any = SimpleNamespace(database=site.database, host="127.0.0.1", port=1, address=None)
    outset = Outset(site.state(), has_keys=True, outage="away")
    given = Given(B, lambda: math.inf)
    Service(setting, outset, given, [], threading.Event(), lambda: None, site.said.append).follow()
    assert site.said == ["moved on"]


@pytest.mark.parametrize(
    ("host", "is_open", "refusal"),
    [("0.0.0.0", True, "listens at 0.0.0.0, open to others"), ("0.0.0.0", False, ""), ("127.0.0.1", True, "")],
)
def test_an_open_service_does_not_join_a_serve_that_others_reach(
    site: Site, monkeypatch: pytest.MonkeyPatch, host: str, is_open: bool, refusal: str
) -> None:
    monkeypatch.setattr(service, "serve", SimpleNamespace(start=lambda **_: None))
    monkeypatch.setattr(service, "serve_host", lambda: host)
    transport = SimpleNamespace(folder=None)
    setting: Any = SimpleNamespace(
        database=site.database, host="127.0.0.1", port=1, address="auto", is_open=is_open, transport=transport
    )
    outset = Outset(site.state(), has_keys=True)
    joining = Service(setting, outset, Given(A, lambda: 0.0), [], threading.Event(), lambda: None, site.said.append)
    with pytest.raises(ServiceError, match=refusal) if refusal else contextlib.nullcontext():
        joining._start_serve()
    assert len(site.said) == (host == "0.0.0.0" and not is_open)


@pytest.mark.parametrize("is_named", [False, True])
def test_a_store_that_blinks_while_a_challenger_loads_does_not_end_its_experiment(
    site: Site, monkeypatch: pytest.MonkeyPatch, is_named: bool
) -> None:
    def away(_: str) -> Any:
        blink = OSError("the store is away")
        if is_named:
            raise BundleError("It is not a bundle.") from blink
        raise blink

    site.lifecycle.start("e", B)
    with monkeypatch.context() as store:
        store.setattr(site.bundles, "resolve", away)
        site.keeper.follow()
    assert site.state().experiment is not None
    site.keeper.follow()
    assert site.status(B) == "ready"
    assert not site.keeper._away_since


def test_a_bundle_says_that_its_store_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise OSError("the store is away")

    monkeypatch.setattr(bundle, "fetch", away)
    with pytest.raises(BundleError) as caught:
        bundle.Bundle.load(tmp_path)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_challenger_whose_bundle_stays_unreadable_is_taken_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str) -> Any:
        raise OSError("the store is away")

    monkeypatch.setattr(keeper, "AWAY_S", 0.0)
    monkeypatch.setattr(site.bundles, "resolve", away)
    site.lifecycle.start("e", B)
    for _ in range(2):
        site.keeper.follow()
    assert site.state().experiment is None
