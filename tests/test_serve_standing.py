"""What a policy judges by, followed from round to round, is what reading everything anew says, at a bounded cost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from serve import assignment, readings, tables
from serve.confidence import anytime_p
from serve.database import Database
from serve.entries import Answered, Failed, Shadowed
from serve.experiment import Experiment, Policy
from serve.experiment_policy import Judge, decide
from serve.experiment_report import difference, report
from serve.ledger import Ledger
from serve.lifecycle import Lifecycle
from serve.readings import Units
from serve.recent import ARMS
from serve.routing import Routing
from serve.standing import Standing
from tests.ledger_fixtures import answered

POLICY = Policy(window=12, min_window=4, min_references=8)
SHADOW = Experiment(name="e", mode="shadow", champion="a", challenger="b", shares=(1.0,), salt="s", policy=POLICY)
SPLIT = replace(SHADOW, mode="split", shares=(0.5,))
MOST_ROUNDS = 200


@dataclass
class History:
    """A life of an experiment, drawn at random: what was asked, answered, spooled and read, in whatever order."""

    ledger: Ledger
    experiment: Experiment
    seed: int
    asked: list[Answered] = field(default_factory=list)
    spooled: list[Any] = field(default_factory=list)
    """Stored later than what comes after it."""

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.now_s = time.time()
        other = [answered(experiment="before", arm="champion", share=1.0, created_s=self.now_s) for _ in range(3)]
        after_s = self.now_s + 50
        late = Shadowed(
            prediction_id=other[0].id, created_s=after_s, version="b", bone_age_months=1.0, answer={}, latency_ms=9.0
        )
        self.ledger.write([*other, late])  # of another experiment: none of it may be counted
        self.ledger.add_reference(other[0].id, 100.0)

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.now_s += float(self.rng.choice([0.0, 1.0]) * self.rng.exponential(1.0))  # two at one time are no error
            drawn = self.rng.random()
            if drawn < 0.45 or not self.asked:
                self._ask()
            elif drawn < 0.75:
                self._read()
            elif drawn < 0.85:
                self._give(
                    Failed(
                        created_s=self.now_s,
                        request_id="r",
                        version="b",
                        code="timeout",
                        experiment=self.experiment.name,
                        arm=str(self.rng.choice(["champion", "challenger"])),
                    )
                )
            else:
                self.replay()

    def replay(self) -> None:
        """The database is back."""
        self.ledger.write(self.spooled)
        self.spooled = []

    def _ask(self) -> None:
        is_shadow = self.experiment.mode == "shadow"
        share = 1.0 if is_shadow else float(self.rng.choice([0.2, 0.5]))
        one = answered(
            created_s=self.now_s,
            subject=None if self.rng.random() < 0.3 else f"{self.rng.integers(12):032x}",
            sex=self.rng.choice([None, "male", "female"]),
            bone_age_months=float(self.rng.uniform(20, 200)),
            latency_ms=float(self.rng.gamma(3, 20)),
            experiment=self.experiment.name,
            arm="challenger" if not is_shadow and self.rng.random() < share else "champion",
            share=share,
        )
        self.asked.append(one)
        self._give(one)
        if is_shadow and self.rng.random() < 0.8:
            after_s = float(self.rng.exponential(3.0))
            months = one.bone_age_months + float(self.rng.normal(0, 20))
            shadow = Shadowed(
                prediction_id=one.id,
                created_s=self.now_s + after_s,
                version="b",
                bone_age_months=months,
                answer={},
                latency_ms=float(self.rng.gamma(3, 25)),
            )
            if one in self.spooled or self.rng.random() < 0.5:
                self.spooled.append(shadow)  # after its prediction, often after a reading of it
            else:
                self._give(shadow)

    def _read(self) -> None:
        """Some image, old or new, by some reader, perhaps not for the first time."""
        here = [one for one in self.asked if one not in self.spooled]
        if here:
            one = here[self.rng.integers(len(here))]
            months = float(np.clip(one.bone_age_months + self.rng.normal(0, 10), 0, 239))
            self.ledger.add_reference(one.id, months, reader=str(self.rng.choice(["", "x", "y"])))

    def _give(self, entry: Any) -> None:
        if self.rng.random() < 0.15:
            self.spooled.append(entry)
        else:
            self.ledger.write([entry])


def read_anew(database: Database, experiment: Experiment) -> dict[str, Any]:
    """The figures by plain loops over whole tables, as the first release computed them."""
    with database.read() as connection:
        predictions, shadows, failures, read = (
            [row._asdict() for row in connection.execute(sa.select(table)).all()]
            for table in (tables.predictions, tables.shadows, tables.failures, tables.reference_readings)
        )
    predictions = [row for row in predictions if row["experiment"] == experiment.name]
    predictions.sort(key=lambda row: (row["created_s"], row["id"]))
    of_id = {row["id"]: row for row in predictions}
    shadow_of = {row["prediction_id"]: row for row in shadows if row["prediction_id"] in of_id}
    latest: dict[str, dict[str, float]] = {}
    for row in sorted(read, key=lambda row: row["id"]):
        if row["prediction_id"] in of_id:
            latest.setdefault(row["prediction_id"], {})[row["reader"]] = row["bone_age_months"]
    of_unit: dict[str, dict[str, Any]] = {}
    for prediction_id in latest:
        row = of_id[prediction_id]
        of_unit.setdefault(row["subject"] or row["id"], row)
    rows = list(of_unit.values())
    nan = float("nan")
    is_challenger = np.array([row["arm"] == "challenger" for row in rows], bool)
    own = np.array([row["bone_age_months"] for row in rows], float)
    beside = np.array([shadow_of.get(row["id"], {"bone_age_months": nan})["bone_age_months"] for row in rows], float)
    units = Units(
        np.array([np.mean(list(latest[row["id"]].values())) for row in rows], float),
        np.where(is_challenger, nan, own),
        np.where(is_challenger, own, beside),
        is_challenger,
        np.array([row["share"] for row in rows], float),
        np.array([row["sex"] or "unknown" for row in rows], str),
    )
    seen: set[str] = set()
    firsts = [row for row in predictions if (unit := row["subject"] or row["id"]) not in seen and not seen.add(unit)]  # type: ignore[func-returns-value]
    z = np.array([(row["arm"] == "challenger") - row["share"] for row in firsts], float)
    by_challenger = [row for row in predictions if row["arm"] == "challenger"]
    return {
        "units": units,
        "difference": difference(units, is_shadow=experiment.mode == "shadow", alpha=experiment.policy.alpha),
        "ratio_p": anytime_p(z, np.ones(len(z))),
        "subjects": len(firsts),
        "answered": len(by_challenger),
        "recent": _recent(predictions, by_challenger, list(shadow_of.values()), failures, of_id, experiment),
    }


def _recent(
    predictions: list[Any],
    by_challenger: list[Any],
    shadows: list[Any],
    failures: list[Any],
    of_id: dict[str, Any],
    experiment: Experiment,
) -> dict[str, Any]:
    window = experiment.policy.window
    shadows = sorted(shadows, key=lambda row: (row["created_s"], row["prediction_id"]))
    own = shadows if experiment.mode == "shadow" else by_challenger
    champion = [row for row in predictions if row["arm"] == "champion"]
    failed = [row for row in failures if (row["experiment"], row["arm"]) == (experiment.name, "challenger")]
    attempts = sorted([(row["created_s"], False) for row in own] + [(row["created_s"], True) for row in failed])
    last = [is_failure for _, is_failure in attempts[-window:]]
    gaps = [abs(row["bone_age_months"] - of_id[row["prediction_id"]]["bone_age_months"]) for row in shadows][-window:]
    arms = {"champion": champion, "challenger": own}
    slow = {arm: [row["latency_ms"] for row in rows[-window:]] for arm, rows in arms.items()}
    return {
        "attempts": len(last),
        "error_rate": float(np.mean(last)) if last else None,
        "latency_n": min(map(len, slow.values())),
        "p95_ms": {arm: float(np.percentile(values, 95)) if values else None for arm, values in slow.items()},
        "pairs": len(gaps),
        "disagreement": float(np.mean(np.array(gaps) > experiment.policy.disagreement_months)) if gaps else None,
    }


def check(history: History, standing: Standing, rounds: int) -> None:
    """After so many rounds every figure is that of reading everything anew, by both ways of reading."""
    database, experiment = history.ledger.database, history.experiment
    for _ in range(rounds):
        with database.read() as connection:
            found = standing.advance(connection, experiment)
    assert standing.is_complete
    anew, told = read_anew(database, experiment), report(database, experiment)
    for name, values in vars(standing._readings.units()).items():
        np.testing.assert_array_equal(values, getattr(anew["units"], name))
    assert found["difference"] == told["difference"] == anew["difference"]
    assert found["recent"] == told["recent"] == anew["recent"]
    assert found["ratio"] == told["ratio"]
    if experiment.mode == "split":
        assert found["ratio"]["subjects"] == anew["subjects"]
        assert found["ratio"]["p"] == pytest.approx(anew["ratio_p"], rel=1e-9)
        assert found["arms"]["challenger"]["answered"] == told["arms"]["challenger"]["answered"] == anew["answered"]
    assert decide(experiment, found) == decide(experiment, told)


@pytest.mark.parametrize("experiment", [SHADOW, SPLIT], ids=["shadow", "split"])
@pytest.mark.parametrize("seed", range(4))
def test_every_round_finds_what_reading_all_anew_finds(ledger: Ledger, experiment: Experiment, seed: int) -> None:
    history, standing = History(ledger, experiment, seed), Standing(experiment)
    for turn in range(12):
        history.go_on(int(history.rng.integers(1, 20)))
        if turn == 6:
            standing = Standing(experiment)  # the keeper is started anew
        check(history, standing, rounds=1)


@pytest.mark.parametrize("experiment", [SHADOW, SPLIT], ids=["shadow", "split"])
@pytest.mark.parametrize("seed", range(4))
def test_rounds_that_read_a_few_rows_each_arrive_there_too(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch, experiment: Experiment, seed: int
) -> None:
    for module, name, few in ((readings, "STRIDE", 5), (readings, "AGAIN", 2), (assignment, "STRIDE", 4)):
        monkeypatch.setattr(module, name, few)
    monkeypatch.setattr(assignment, "RECOUNT", 3)
    history, standing = History(sqlite_ledger, experiment, seed), Standing(experiment)
    for turn in range(6):
        for _ in range(10):
            history.go_on(2)
            with sqlite_ledger.database.read() as connection:
                standing.advance(connection, experiment)
        if turn == 3:
            standing = Standing(experiment)
        check(history, standing, rounds=MOST_ROUNDS)  # a whole recount and more


def test_of_two_answers_at_one_moment_one_is_the_subject_s_first(sqlite_ledger: Ledger) -> None:
    both = [answered(created_s=1.0, subject="s", experiment="e", arm=arm, share=0.5) for arm in ARMS]
    sqlite_ledger.write(both[::-1])
    with sqlite_ledger.database.read() as connection:
        found = Standing(SPLIT).advance(connection, SPLIT)["ratio"]
    assert (found["subjects"], found["challenger"]) == (1, 0)  # by their ids, as everywhere
    assert found == report(sqlite_ledger.database, SPLIT)["ratio"]


def test_a_keeper_that_starts_anew_decides_nothing_by_half_of_the_readings_and_rolls_back_at_once(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    Routing(sqlite_ledger.database).begin("a")
    Lifecycle(sqlite_ledger.database, "me").start("e", "b", policy=Policy(promote="auto", min_references=20))
    truth = np.random.default_rng(0).uniform(20, 200, 120)
    predictions = [answered(bone_age_months=months + 8, experiment="e", arm="champion", share=1.0) for months in truth]
    shadows = [
        Shadowed(prediction_id=one.id, version="b", bone_age_months=months, answer={}, latency_ms=5.0)
        for one, months in zip(predictions, truth, strict=True)
    ]
    sqlite_ledger.write([*predictions, *shadows])
    for one, months in zip(predictions, truth, strict=True):
        sqlite_ledger.add_reference(one.id, months)
    monkeypatch.setattr(readings, "STRIDE", 50)
    judge = Judge(sqlite_ledger.database)
    for _ in range(2):
        done = judge.act()
        assert done is not None
        assert (done[0].act, "still being read" in done[0].why) == ("go on", True)
    failures = [
        Failed(request_id="r", version="b", code="timeout", experiment="e", arm="challenger") for _ in range(100)
    ]
    sqlite_ledger.write(failures)
    done = Judge(sqlite_ledger.database).act()
    assert done is not None
    assert done[0].act == "rollback"


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is asked meanwhile."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    sa.event.listen(database._engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        sa.event.remove(database._engine, "before_cursor_execute", note)


@pytest.mark.parametrize("experiment", [SHADOW, SPLIT], ids=["shadow", "split"])
def test_an_index_serves_every_query_of_a_round(sqlite_ledger: Ledger, experiment: Experiment) -> None:
    History(sqlite_ledger, experiment, 0).go_on(50)
    database, standing = sqlite_ledger.database, Standing(experiment)
    with statements(database) as asked, database.read() as connection:
        for _ in range(2):
            standing.advance(connection, experiment)
    asked = [(statement, parameters) for statement, parameters in asked if statement.startswith("SELECT")]
    assert len(asked) >= 6
    with database.read() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            steps = [str(row[3]) for row in plan]
            assert not [step for step in steps if step.startswith("SCAN")], (statement, steps)
            assert "USE TEMP B-TREE FOR ORDER BY" not in steps, (statement, steps)  # it would sort the experiment
