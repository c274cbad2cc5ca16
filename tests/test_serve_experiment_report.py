"""What the report says about predictions and readings whose answer is known, and what a policy makes of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from serve import experiment_report, tables
from serve.database import LedgerDownError
from serve.entries import Answered, Failed, Shadowed
from serve.experiment import Experiment, Policy
from serve.experiment_policy import Judge, decide
from serve.experiment_report import report
from serve.ledger import Ledger
from serve.lifecycle import Lifecycle, experiment_named
from serve.routing import Routing, RoutingConflictError
from serve.standing import Standing
from tests.ledger_fixtures import answered

SHADOW = Experiment(name="e", mode="shadow", champion="ens-a", challenger="ens-b", shares=(1.0,), salt="s")
SPLIT = replace(SHADOW, mode="split", shares=(0.5,))


def shadowed(ledger: Ledger, truth: list[float], champion: list[float], challenger: list[float], **extra: Any) -> None:
    """Score every case with both arms, and read it."""
    predictions = [
        answered(bone_age_months=months, experiment="e", arm="champion", share=1.0, **extra) for months in champion
    ]
    shadows = [
        Shadowed(prediction_id=one.id, version="ens-b", bone_age_months=months, answer={}, latency_ms=7.0)
        for one, months in zip(predictions, challenger, strict=True)
    ]
    ledger.write([*predictions, *shadows])
    read(ledger, predictions, truth)


def read(ledger: Ledger, predictions: list[Answered], truth: list[float]) -> None:
    """What `Ledger.add_reference` does, in one transaction."""
    rows = [
        {"prediction_id": one.id, "created_s": 1.0, "key_id": "", "reader": "", "bone_age_months": months}
        for one, months in zip(predictions, truth, strict=True)
    ]
    with ledger.database.write() as connection:
        connection.execute(sa.insert(tables.reference_readings), rows)


def split(ledger: Ledger, seed: int, errors: tuple[float, float], count: int = 400, share: float = 0.5) -> None:
    """Answer subjects by one arm each; the arms are off by their own error on average."""
    rng = np.random.default_rng(seed)
    predictions = []
    for index in range(count):
        arm = int(rng.random() < share)
        months = 100 + rng.normal(0, errors[arm] * np.sqrt(np.pi / 2))
        name = ("champion", "challenger")[arm]
        predictions.append(
            answered(bone_age_months=months, experiment="e", arm=name, share=share, subject=f"{seed} {index}")
        )
    ledger.write(predictions)
    read(ledger, predictions, [100.0] * count)


def test_a_paired_report_by_hand(ledger: Ledger) -> None:
    shadowed(ledger, [100, 50, 150], [104, 52, 120], [101, 53, 150], subject=None)
    ledger.write([Failed(request_id="r", version="ens-b", code="timeout", experiment="e", arm="challenger")])
    found = report(ledger.database, SHADOW)
    assert (found["predictions"], found["subjects_with_reading"]) == (3, 3)
    gain = found["difference"]
    assert gain["mean_months"] == pytest.approx((3 - 1 + 12) / 3)  # the third differs by 30 and counts as a year
    assert (gain["n"], gain["clipped"], gain["method"]) == (3, 1, "paired")
    assert gain["lower_months"] < gain["mean_months"] < gain["upper_months"]
    arms = found["arms"]
    assert arms["champion"]["mae_months"] == pytest.approx((4 + 2 + 30) / 3)
    assert arms["challenger"]["mae_months"] == pytest.approx((1 + 3 + 0) / 3)
    assert arms["challenger"]["error_rate"] == pytest.approx(1 / 4)
    assert arms["champion"]["latency_ms"]["p50"] == 5.0
    assert arms["challenger"]["latency_ms"]["p50"] == 7.0
    agreement = found["agreement"]["challenger_champion"]
    gaps = np.array([-3.0, 1.0, 30.0])
    assert agreement["mean_months"] == pytest.approx(gaps.mean())
    assert agreement["upper_limit_months"] == pytest.approx(gaps.mean() + 1.96 * gaps.std(ddof=1))
    bands = {(row["sex"], row["from_months"]): row["difference"] for row in found["subgroups"]}
    assert bands["male", 0]["n"] == bands["male", 60]["n"] == bands["male", 120]["n"] == 1
    assert bands["female", 60] is None
    assert found["ratio"] is None


def test_both_arms_of_a_shadow_are_judged_on_the_same_images(sqlite_ledger: Ledger) -> None:
    shadowed(sqlite_ledger, [100, 100], [104, 102], [101, 103])
    alone = answered(bone_age_months=150.0, experiment="e", arm="champion", share=1.0)  # the challenger never scored it
    sqlite_ledger.write([alone])
    read(sqlite_ledger, [alone], [100.0])
    found = report(sqlite_ledger.database, SHADOW)
    champion, challenger = found["arms"]["champion"], found["arms"]["challenger"]
    assert (champion["with_reading"], challenger["with_reading"], found["difference"]["n"]) == (2, 2, 2)
    gain = champion["mae_months"] - challenger["mae_months"]
    assert gain == pytest.approx(found["difference"]["mean_months"])


def test_an_unknown_sex_is_a_subgroup_of_its_own(sqlite_ledger: Ledger) -> None:
    shadowed(sqlite_ledger, [100], [104], [101], sex=None)
    found = report(sqlite_ledger.database, SHADOW)["subgroups"]
    rows = {(row["sex"], row["from_months"]): row["difference"] for row in found}
    assert rows["unknown", 60]["n"] == 1
    assert rows["male", 60] is None


def test_an_experiment_without_traffic_has_a_report(sqlite_ledger: Ledger) -> None:
    for experiment in (SHADOW, SPLIT):
        found = report(sqlite_ledger.database, experiment)
        assert found["difference"] is None
        assert decide(experiment, found).act == "go on"


def test_a_subject_counts_once_and_readers_are_averaged(sqlite_ledger: Ledger) -> None:
    shadowed(sqlite_ledger, [100, 100], [110, 130], [105, 105], subject="one")
    found = report(sqlite_ledger.database, SHADOW)
    assert (found["predictions"], found["difference"]["n"]) == (2, 1)
    assert found["difference"]["mean_months"] == pytest.approx(5)
    first = next(row for row in _ids(sqlite_ledger) if row[1] == 110)
    sqlite_ledger.add_reference(first[0], 104.0, reader="second")
    sqlite_ledger.add_reference(first[0], 102.0)  # the first reader reads again
    gain = report(sqlite_ledger.database, SHADOW)["difference"]["mean_months"]
    assert gain == pytest.approx((110 - 103) - (105 - 103))


def test_two_groups_give_the_difference_of_their_errors(sqlite_ledger: Ledger) -> None:
    split(sqlite_ledger, 0, (6.0, 3.0), count=1500)
    found = report(sqlite_ledger.database, SPLIT)
    gain = found["difference"]
    assert gain["method"] == "two groups"
    assert gain["mean_months"] == pytest.approx(3.0, abs=0.7)
    assert 0 < gain["lower_months"] < 3 < gain["upper_months"]
    assert found["ratio"]["is_as_drawn"]
    assert decide(SPLIT, found).act == "promote"


def test_the_difference_holds_while_the_share_changes(sqlite_ledger: Ledger) -> None:
    for seed, share in enumerate((0.2, 0.5, 0.8)):
        split(sqlite_ledger, seed, (6.0, 3.0), count=600, share=share)
    found = report(sqlite_ledger.database, SPLIT)
    assert found["difference"]["mean_months"] == pytest.approx(3.0, abs=0.9)
    assert found["ratio"]["is_as_drawn"]


def test_arms_of_other_sizes_than_drawn_stop_every_decision(sqlite_ledger: Ledger) -> None:
    split(sqlite_ledger, 0, (6.0, 3.0), count=1000)
    with sqlite_ledger.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM reference_readings")
        connection.exec_driver_sql("DELETE FROM predictions WHERE arm = 'challenger' AND substr(id, 32) < '8'")
    found = report(sqlite_ledger.database, SPLIT)
    assert not found["ratio"]["is_as_drawn"]
    decision = decide(SPLIT, found)
    assert decision.act == "go on"
    assert "nothing is decided" in decision.why


def healthy(**changes: Any) -> dict[str, Any]:
    """A report in which nothing is wrong and nothing decided."""
    recent = {
        "attempts": 200,
        "error_rate": 0.0,
        "latency_n": 200,
        "p95_ms": {"champion": 100.0, "challenger": 120.0},
        "pairs": 200,
        "disagreement": 0.0,
    }
    difference = {"lower_months": -0.5, "upper_months": 0.5, "n": 300}
    arms = {"challenger": {"answered": 500}}
    found = {"recent": recent, "difference": difference, "arms": arms, "ratio": None}
    for place, change in changes.items():
        found[place] = {**found[place], **change}  # type: ignore[dict-item]
    return found


@pytest.mark.parametrize(
    ("changes", "act_expected", "word"),
    [
        ({}, "go on", "Undecided"),
        ({"recent": {"error_rate": 0.06}}, "rollback", "failed in 6.0%"),
        ({"recent": {"error_rate": 0.06, "attempts": 49}}, "go on", "Undecided"),
        ({"recent": {"p95_ms": {"champion": 100.0, "challenger": 310.0}}}, "rollback", "310 ms"),
        ({"recent": {"p95_ms": {"champion": 10.0, "challenger": 90.0}}}, "go on", "Undecided"),
        ({"recent": {"disagreement": 0.06}}, "rollback", "months apart"),
        ({"difference": {"lower_months": 0.1}}, "promote", "surely above 0"),
        ({"difference": {"lower_months": 0.1, "n": 49}}, "go on", "49 of 50"),
        ({"difference": {"upper_months": -0.1}}, "rollback", "worse"),
    ],
)
def test_a_policy_acts_when_it_must(changes: dict[str, Any], act_expected: str, word: str) -> None:
    decision = decide(SHADOW, healthy(**changes))
    assert (decision.act, word in decision.why) == (act_expected, True), decision.why


def test_a_promotion_waits_for_a_person_unless_told_otherwise() -> None:
    found = healthy(difference={"lower_months": 0.1})
    assert not decide(SHADOW, found).is_due
    assert decide(replace(SHADOW, policy=Policy(promote="auto")), found).is_due


def test_a_challenger_that_need_not_be_better_is_not_rolled_back_for_being_equal() -> None:
    lenient = replace(SHADOW, policy=Policy(gain_months=-0.5))
    assert decide(lenient, healthy(difference={"lower_months": -0.4, "upper_months": -0.1})).act == "promote"
    assert decide(lenient, healthy(difference={"lower_months": -0.9, "upper_months": -0.6})).act == "rollback"


def test_a_canary_grows_by_its_answers() -> None:
    canary = replace(SHADOW, mode="canary", shares=(0.1, 0.3, 0.5))
    for answers, step, expected in ((199, 0, "go on"), (200, 0, "step"), (399, 1, "go on"), (400, 1, "step")):
        found = healthy(arms={"challenger": {"answered": answers}})
        assert decide(replace(canary, step=step), found).act == expected


def test_a_round_of_the_policy_acts_and_records_its_data(ledger: Ledger) -> None:
    judge = Judge(ledger.database)
    assert judge.act() is None
    Routing(ledger.database).begin("ens-a")
    lifecycle = Lifecycle(ledger.database, "me")
    lifecycle.start("e", "ens-b", policy=Policy(promote="auto"))
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 200, 120)
    shadowed(ledger, truth.tolist(), (truth + 8).tolist(), (truth + 4).tolist())
    done = judge.act()
    assert done is not None
    assert (done[0].act, done[1]) == ("promote", "e")
    state = Routing(ledger.database).current()
    assert state is not None
    assert (state.champion, state.experiment) == ("ens-b", None)
    row = Routing(ledger.database).history()[-1]
    assert (row["actor"], row["act"]) == ("policy", "experiment.promote")
    assert row["detail"]["data"]["judged"]["difference"]["n"] == 120


def test_a_rollback_that_was_decided_before_a_person_promoted_does_not_take_that_back(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    Routing(sqlite_ledger.database).begin("ens-a")
    lifecycle = Lifecycle(sqlite_ledger.database, "me")
    lifecycle.start("e", "ens-b")

    def slowly(*_: Any) -> dict[str, Any]:
        lifecycle.promote("e", {})
        return healthy(recent={"error_rate": 1.0})

    monkeypatch.setattr(Standing, "advance", slowly)
    with pytest.raises(RoutingConflictError, match="Look at it again"):
        Judge(sqlite_ledger.database).act()
    state = Routing(sqlite_ledger.database).current()
    assert state is not None
    assert state.champion == "ens-b"


def _ids(ledger: Ledger) -> list[Any]:
    with ledger.database.read() as connection:
        return list(connection.exec_driver_sql("SELECT id, bone_age_months FROM predictions").all())


def test_an_act_by_hand_does_not_wait_for_a_report_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        raise LedgerDownError("canceling statement due to statement timeout")

    monkeypatch.setattr(experiment_report, "observe", slow)
    data = experiment_report.data_of_act(None, SHADOW.to_dict())  # type: ignore[arg-type]
    assert (data["report"], data["no_report"]) == (None, "canceling statement due to statement timeout")


@pytest.mark.parametrize("act", ["stop", "promote", "rollback"])
def test_an_act_by_hand_stands_whatever_is_wrong_with_its_report(sqlite_ledger: Ledger, act: str) -> None:
    Routing(sqlite_ledger.database).begin("ens-a")
    lifecycle = Lifecycle(sqlite_ledger.database, "me")
    lifecycle.start("e", "ens-b")
    of_before = {**experiment_named(sqlite_ledger.database, "e")["definition"], "policy": {"window": 10**19}}
    data = experiment_report.data_of_act(sqlite_ledger.database, of_before)
    assert data["no_report"].startswith("OverflowError at ")
    assert getattr(lifecycle, act)("e", data).experiment is None
    assert Routing(sqlite_ledger.database).history()[-1]["detail"]["data"] == data


def test_a_report_that_is_no_json_is_not_kept_with_an_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment_report, "report", lambda *_: {"gain": float("nan")})
    data = experiment_report.data_of_act(None, SHADOW.to_dict())  # type: ignore[arg-type]
    assert (data["report"], data["no_report"][:10]) == (None, "ValueError")
