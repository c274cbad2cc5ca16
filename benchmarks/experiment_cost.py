"""What judging an experiment costs however long it has run: ``python -m benchmarks.experiment_cost``.

A ledger in SQLite is filled with predictions of two equal versions, of which some have a reading. Then a keeper judges,
round after round, with a few answers between the rounds, as in a second of traffic; beside it stands a report, which
reads everything. Figures are processor time. The last line is JSON.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from serve.database import Database
from serve.entries import Answered, Entry, Shadowed
from serve.experiment_policy import Judge
from serve.experiment_report import report
from serve.ledger import Ledger
from serve.lifecycle import Lifecycle
from serve.routing import Routing

CHAMPION, CHALLENGER = "ens-a", "ens-b"
AT_ONCE = 5_000
"""Predictions of one transaction."""
A_SECOND = 10
"""Predictions between two rounds."""


class History:
    """The experiment's answers, drawn; a subject comes twice on average, and each version is off by 4 months."""

    def __init__(self, ledger: Ledger, mode: str, subjects: int) -> None:
        self._ledger, self._is_shadow = ledger, mode == "shadow"
        self._rng = np.random.default_rng(0)
        self._truth_S = self._rng.uniform(20, 200, subjects)
        self._is_challenger_S = self._rng.random(subjects) < 0.5

    def answer(self, count: int) -> dict[str, float]:
        """So many predictions more; their ids, with what a reader would say."""
        subject_P = self._rng.integers(len(self._truth_S), size=count)
        entries: list[Entry] = []
        truth = {}
        for subject in subject_P:
            months = float(self._truth_S[subject])
            arm = "challenger" if not self._is_shadow and self._is_challenger_S[subject] else "champion"
            given = self._answered(f"{subject:06}", arm, months)
            entries.append(given)
            truth[given.id] = months
            if self._is_shadow:
                said, took_ms = self._said(months), self._took_ms()
                entries.append(
                    Shadowed(
                        prediction_id=given.id, version=CHALLENGER, bone_age_months=said, answer={}, latency_ms=took_ms
                    )
                )
        self._ledger.write(entries)
        return truth

    def _answered(self, subject: str, arm: str, months: float) -> Answered:
        return Answered(
            request_id="",
            key_id="",
            fingerprint="",
            subject=subject,
            sex="male",
            version=CHAMPION if arm == "champion" else CHALLENGER,
            bone_age_months=self._said(months),
            answer={},
            latency_ms=self._took_ms(),
            routing_version=2,
            experiment="cost",
            arm=arm,
            share=1.0 if self._is_shadow else 0.5,
        )

    def _said(self, months: float) -> float:
        return float(np.clip(months + self._rng.normal(0, 5), 0, 239))

    def _took_ms(self) -> float:
        return float(self._rng.uniform(20, 40))


def measure(folder: Path, mode: str, predictions: int, readings: int, rounds: int) -> dict[str, Any]:
    """One experiment: a round, and a report, in milliseconds of processor time."""
    database = Database(f"sqlite:///{folder}/{mode}.db")
    ledger = Ledger(database)
    Routing(database).begin(CHAMPION)
    experiment = Lifecycle(database, "me").start("cost", CHALLENGER, mode=mode).experiment
    assert experiment is not None
    history = History(ledger, mode, max(1, predictions // 2))
    truth: dict[str, float] = {}
    while len(truth) < predictions:
        truth |= history.answer(min(AT_ONCE, predictions - len(truth)))
    step = max(1, len(truth) // readings)
    for prediction_id in list(truth)[::step][:readings]:
        ledger.add_reference(prediction_id, truth[prediction_id])
    judge, taken_ms = Judge(database), list[float]()
    while "still being read" in _judged(judge):  # a keeper that has run all the time is never behind
        pass
    for _ in range(rounds):
        history.answer(A_SECOND)
        taken_ms.append(_processor_ms(lambda: _judged(judge)))
    report_ms = _processor_ms(lambda: report(database, experiment))
    database.close()
    return {"mode": mode, "round_ms": round(statistics.median(taken_ms), 1), "report_ms": round(report_ms)}


def _judged(judge: Judge) -> str:
    done = judge.act()
    if done is None or done[0].act != "go on":
        raise RuntimeError(f"The experiment of equals must go on, and the judge says {done}.")
    return done[0].why


def _processor_ms(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return 1000 * (time.process_time() - begin)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiment_cost", description=__doc__)
    parser.add_argument("--predictions", type=int, default=200_000, help="of each experiment (default 200,000)")
    parser.add_argument("--readings", type=int, default=2000, help="of them that have one (default 2,000)")
    parser.add_argument("--rounds", type=int, default=50, help="that are timed; their median counts (default 50)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(Path(folder), mode, options.predictions, options.readings, options.rounds)
            for mode in ("shadow", "split")
        ]
    for row in rows:
        print(f"{row['mode']:8}a round {row['round_ms']:8.1f} ms   everything {row['report_ms']:8,} ms")
    about = {"machine": f"{os.cpu_count()} x {platform.machine()}, load {os.getloadavg()[0]:.1f}"}
    print(json.dumps(vars(options) | {"rows": rows} | about))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
