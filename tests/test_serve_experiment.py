"""Experiments: who meets which arm, what may be started and ended, and that of two who act at once one does."""

import threading
from dataclasses import replace

import pytest

from serve.experiment import BOUNDS, Experiment, ExperimentError, Policy
from serve.ledger import Ledger
from serve.lifecycle import Lifecycle, experiment_named, experiments
from serve.openapi_schemas import SCHEMAS
from serve.routing import Routing, RoutingConflictError, RoutingState

SPLIT = Experiment(name="e", mode="split", champion="a", challenger="b", shares=(0.2,), salt="s")


def test_a_subject_always_meets_the_same_arm_and_a_growing_share_keeps_its_own() -> None:
    units = [f"subject {i}" for i in range(5000)]
    before = [unit for unit in units if SPLIT.arm_of(unit) == "challenger"]
    grown = replace(SPLIT, shares=(0.5,))
    after = {unit for unit in units if grown.arm_of(unit) == "challenger"}
    assert set(before) <= after
    assert len(before) / 5000 == pytest.approx(0.2, abs=0.03)
    assert len(after) / 5000 == pytest.approx(0.5, abs=0.03)
    assert [SPLIT.arm_of(unit) for unit in units] == [replace(SPLIT, step=0).arm_of(unit) for unit in units]


def test_arms_of_two_experiments_are_independent() -> None:
    other, half = replace(SPLIT, salt="t", shares=(0.5,)), replace(SPLIT, shares=(0.5,))
    units = [str(i) for i in range(4000)]
    same = sum(half.arm_of(unit) == other.arm_of(unit) for unit in units)
    assert same / 4000 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "E 1"}, "name"),
        ({"mode": "bandit"}, "mode"),
        ({"challenger": "a"}, "two versions"),
        ({"shares": (1.0,)}, "share"),
        ({"shares": (0.0,)}, "share"),
        ({"shares": (0.1, 0.2)}, "canary"),
        ({"mode": "canary", "shares": (0.3, 0.2)}, "canary"),
        ({"step": 1}, "step"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        replace(SPLIT, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {"alhpa": 0.1},
        {"alpha": "x"},
        {"alpha": 0.7},
        {"promote": "yes"},
        {"promote": 5},
        {"window": 200.5},
        {"window": "200"},
        {"window": True},
        {"alpha": True},
        {"window": float("inf")},
        {"gain_months": float("nan")},
    ],
)
def test_a_policy_that_cannot_be_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ExperimentError):
        Policy.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [{"step_predictions": 0}, {"min_references": 0}, {"max_latency_ratio": 0.9}, {"disagreement_months": -1}],
)
def test_a_bound_that_releases_of_before_accepted_is_read_and_no_longer_begun_with(values: dict[str, object]) -> None:
    policy = Policy.from_dict(values)
    with pytest.raises(ExperimentError):
        policy.check()


def test_a_bound_that_is_too_low_is_refused_with_the_usual_one() -> None:
    with pytest.raises(
        ExperimentError, match=r"step_predictions lies within 1 to 1,000,000, got 0\. Leave it out for the usual 200\."
    ):
        Policy.from_words({"step_predictions": "0"}).check()


def test_every_number_of_a_policy_has_bounds_that_the_document_tells() -> None:
    told = SCHEMAS["Policy"]["properties"]
    assert set(BOUNDS) == {name for name, schema in told.items() if schema["type"] != "string"}
    for name, (least, most) in BOUNDS.items():
        assert (told[name]["minimum"], told[name]["maximum"]) == (least, most)
        others = {"min_window": 1} if name == "window" else {"window": 10_000}
        for value in (least, most):
            Policy.from_dict({**others, name: value}).check()
        for value in (least - 1, most + 1, 10**19, 10**400):
            with pytest.raises(ExperimentError, match=r"^.{20,200}$"):
                Policy.from_dict({**others, name: value}).check()


def test_a_policy_is_read_from_words_as_from_json() -> None:
    words = {"alpha": "0.01", "window": "300", "promote": "auto", "gain_months": "1"}
    assert Policy.from_words(words) == Policy(alpha=0.01, window=300, promote="auto", gain_months=1.0)
    assert Policy.from_dict({"window": 300.0}) == Policy(window=300)
    for words in ({"window": "5.9"}, {"window": ""}, {"alpha": "x"}, {"promote": "1"}):
        with pytest.raises(ExperimentError):
            Policy.from_words(words)


def test_states_survive_the_way_through_json() -> None:
    state = RoutingState(version=3, champion="a", previous="z", experiment=replace(SPLIT, policy=Policy(alpha=0.1)))
    assert RoutingState.from_dict(state.to_dict()) == state


def test_the_way_of_an_experiment_is_recorded_step_by_step(ledger: Ledger) -> None:
    routing, lifecycle = Routing(ledger.database), Lifecycle(ledger.database, "me")
    assert routing.current() is None
    assert routing.begin("ens-a") == routing.begin("ens-other")
    lifecycle.start("one", "ens-b", mode="canary", shares=(0.1, 0.5))
    with pytest.raises(ExperimentError, match="one at a time"):
        lifecycle.start("two", "ens-c")
    state = lifecycle.step("one", {"why": "fine"})
    assert state.experiment is not None
    assert state.experiment.share == 0.5
    with pytest.raises(ExperimentError, match="step"):
        lifecycle.step("one", {})
    assert lifecycle.promote("one", {"n": 3}).champion == "ens-b"
    assert lifecycle.rollback("one", {}).champion == "ens-a"
    with pytest.raises(ExperimentError, match="only a promotion that still holds"):
        lifecycle.rollback("one", {})
    lifecycle.start("two", "ens-c")
    assert lifecycle.stop("two", {}).experiment is None
    with pytest.raises(ExperimentError, match="already"):
        lifecycle.start("two", "ens-c")
    with pytest.raises(ExperimentError, match="does not run: it was stopped"):
        lifecycle.stop("two", {})
    with pytest.raises(ExperimentError, match="no experiment"):
        lifecycle.stop("three", {})
    acts = [(row["act"].partition(".")[2], row["detail"]["to"]) for row in routing.history()]
    expected = ["begin", "start", "step", "promote", "rollback", "start", "stop"]
    assert acts == list(zip(expected, range(1, 8), strict=True))
    assert routing.history()[3]["detail"]["data"] == {"n": 3}
    assert [(row["name"], row["outcome"]) for row in experiments(ledger.database)] == [
        ("two", "stopped"),
        ("one", "rolled back"),
    ]
    assert experiment_named(ledger.database, "one")["definition"]["challenger"] == "ens-b"


def test_promotions_keep_one_champion_before_the_present_one_loaded(sqlite_ledger: Ledger) -> None:
    Routing(sqlite_ledger.database).begin("ens-0")
    lifecycle = Lifecycle(sqlite_ledger.database, "me")
    for number in range(1, 4):
        lifecycle.start(f"e{number}", f"ens-{number}")
        state = lifecycle.promote(f"e{number}", {})
    assert state.bundles() == ("ens-3", "ens-2")


def test_a_change_of_what_has_moved_on_is_refused(ledger: Ledger) -> None:
    routing = Routing(ledger.database)
    seen = routing.begin("ens-a")
    routing.change(seen, replace(seen, champion="ens-b"), actor="x", act="y", detail={})
    with pytest.raises(RoutingConflictError):
        routing.change(seen, replace(seen, champion="ens-c"), actor="x", act="y", detail={})
    current = routing.current()
    assert current is not None
    assert (current.version, current.champion) == (2, "ens-b")


def test_of_many_who_begin_at_once_one_does(ledger: Ledger) -> None:
    found: list[RoutingState] = []
    threads = [
        threading.Thread(target=lambda name=name: found.append(Routing(ledger.database).begin(name)))
        for name in ("ens-a", "ens-b", "ens-c", "ens-d")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({state.champion for state in found}) == 1
    assert len(Routing(ledger.database).history()) == 1


def test_only_a_splits_share_is_set_by_hand(sqlite_ledger: Ledger) -> None:
    Routing(sqlite_ledger.database).begin("ens-a")
    lifecycle = Lifecycle(sqlite_ledger.database, "me")
    lifecycle.start("one", "ens-b", mode="split")
    state = lifecycle.set_share("one", 0.3)
    assert state.experiment is not None
    assert state.experiment.share == 0.3
    lifecycle.stop("one", {})
    lifecycle.start("two", "ens-b")
    with pytest.raises(ExperimentError, match="only a split"):
        lifecycle.set_share("two", 0.3)


def test_an_experiment_that_ended_is_defined_as_it_was_last(ledger: Ledger) -> None:
    Routing(ledger.database).begin("ens-a")
    lifecycle = Lifecycle(ledger.database, "me")
    lifecycle.start("grown", "ens-b", mode="canary", shares=(0.1, 0.5))
    lifecycle.step("grown", {})
    lifecycle.stop("grown", {})
    lifecycle.start("halved", "ens-b", mode="split")
    lifecycle.set_share("halved", 0.25)
    lifecycle.stop("halved", {})
    kept = [Experiment.from_dict(row["definition"]) for row in experiments(ledger.database)]
    assert [experiment.share for experiment in kept] == [0.25, 0.5]


def test_nothing_starts_before_a_service_ran(sqlite_ledger: Ledger) -> None:
    with pytest.raises(ExperimentError, match="No service has run"):
        Lifecycle(sqlite_ledger.database, "me").start("one", "ens-b")
