"""What a large study costs its driver: ``python -m benchmarks.scale [--trials 10000] [--workers 64]``.

Drawn learning curves (see `benchmarks.curves.drawn`) go through the real sampler, a real journal on this machine's
disk, the real stopping rules and the real trials' folders, on a virtual clock: nothing is trained. At marks on the way
it says what an ask and a decision cost, how large the driver and the journal have become, and at the end what a resume
and the parts of the report cost that read every trial.

Then the same on paper for a study on GPUs: how much of the time the driver is busy, and what lies in storage.
Operations are counted as an object store would charge them: one a journal record, one a file.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster_sim import CLOCKS, memory_mb
from benchmarks.curves import drawn
from benchmarks.simulation import simulate
from preprocessing.storage import as_path
from search.control import StudyControl
from search.generations import generation_of
from search.importance import importances
from search.passes import account, learning_curves
from search.progress import SCREEN
from search.racing import Race, make_rules
from search.sampler import Sampler
from search.trial import all_outcomes

MARKS = (100, 300, 1000, 3000, 10_000, 30_000)
"""Trials asked for at which a line is printed."""
WINDOW = 50
"""Answers that a line's medians are of."""
FILES_OF_FOLD = 3
"""Weights, predictions and record; what a worker writes and no simulation does."""


@dataclass(frozen=True)
class Mark:
    """The driver after so many trials."""

    trials: int
    ask_ms: float
    """Median of the last `WINDOW` asks."""
    decision_ms: float
    """Median of the last `WINDOW` results."""
    end_ms: float
    resident_mb: float
    journal_mb: float
    journal_records: int


class Watched:
    """A `StudyControl` whose answers are timed."""

    def __init__(self, control: StudyControl, journal: Path, clock: Callable[[], float]) -> None:
        self._control, self._journal, self._clock = control, journal, clock
        self._seconds: dict[str, list[float]] = {"next": [], "on_result": [], "on_end": []}
        self.marks: list[Mark] = []
        self.num_measurements = 0

    @property
    def num_decisions(self) -> int:
        """Reports that were answered: measurements, and the questions between two folds."""
        return len(self._seconds["on_result"])

    @property
    def may_have_more(self) -> bool:
        return self._control.may_have_more

    def next(self) -> Any:
        answer = self._timed("next", self._control.next)
        if answer is None or answer.fold != SCREEN:  # no trial was begun
            self._seconds["next"].pop()
        elif len(self._seconds["next"]) in MARKS:
            self.mark()
        return answer

    def on_result(self, number: int, result: dict[str, Any], *, fold: int | None = None) -> Any:
        self.num_measurements += not (result.get("is_screen", True))
        return self._timed("on_result", lambda: self._control.on_result(number, result, fold=fold))

    def on_end(self, number: int, *, crashed: bool, fold: int | None = None) -> None:
        self._timed("on_end", lambda: self._control.on_end(number, crashed=crashed, fold=fold))

    def mark(self) -> None:
        """Print a line and keep it."""
        ask, decision, end = (1000 * statistics.median(seconds[-WINDOW:] or [0]) for seconds in self._seconds.values())
        journal = self._journal.read_bytes()
        found = Mark(
            len(self._seconds["next"]),
            ask,
            decision,
            end,
            memory_mb("VmRSS"),
            len(journal) / 2**20,
            journal.count(b"\n"),
        )
        self.marks.append(found)
        print("  ".join(f"{value:11.1f}" for value in asdict(found).values()), flush=True)

    def _timed(self, name: str, action: Callable[[], Any]) -> Any:
        begin = self._clock()
        answer = action()
        self._seconds[name].append(self._clock() - begin)
        return answer


def opened(folder: Path, trials: int, folds: int) -> StudyControl:
    """The study's driver, begun or resumed."""
    sampler = Sampler(as_path(str(folder)), name="scale", space="cpu", seed=0, num_trials=trials)
    rules = Race(make_rules("matched", True, 8))
    return StudyControl(sampler, rules, num_folds=folds, generation=generation_of(trials))


def on_paper(mark: Mark, *, gpus: int, fold_minutes: float, measured: dict[str, Any]) -> dict[str, float]:
    """A study as long as the mark, on GPUs: the driver's share, and what lies in storage.

    A trial takes an ask, a decision a report, five of which are measurements of one fold, and an end. The workers need
    an answer to each; the driver is the bottleneck once these fill all its time.
    """
    folds_trained = measured["measurements"] / 5 / measured["trials"]
    driver_s = (mark.ask_ms + mark.end_ms + measured["decisions"] / measured["trials"] * mark.decision_ms) / 1000
    trial_s = 60 * fold_minutes * folds_trained
    return {
        "trials": mark.trials,
        "folds_trained_a_trial": folds_trained,
        "hours": mark.trials * trial_s / gpus / 3600,
        "driver_busy": driver_s * gpus / trial_s,
        "gpus_at_which_the_driver_is_full": trial_s / driver_s,
        "files": mark.trials * (2 + FILES_OF_FOLD * folds_trained),
        "journal_records": mark.journal_records,
        "storage_operations_a_second": (mark.journal_records / mark.trials + 2 + FILES_OF_FOLD * folds_trained)
        * gpus / trial_s,
    }  # fmt: skip


def main() -> None:
    """Measure, then reckon."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="(default 10000)")
    parser.add_argument("--folds", type=int, default=5, help="(default 5)")
    parser.add_argument("--workers", type=int, default=64, help="trials under way at a time (default 64)")
    parser.add_argument("--fold-minutes", type=float, default=20, help="of a GPU, on paper (default 20)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="processor: where other work disturbs the wall")
    options = parser.parse_args()
    clock = CLOCKS[options.clock]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("  ".join(f"{head:>11s}" for head in Mark.__dataclass_fields__), flush=True)
        watched = Watched(opened(folder, options.trials, options.folds), folder / "optuna.journal", clock)
        tally = simulate(watched, drawn(options.folds, 0), options.workers, clock=clock)
        if options.trials not in MARKS:
            watched.mark()
        measured: dict[str, Any] = {
            "trials": options.trials,
            "decisions": watched.num_decisions,
            "measurements": watched.num_measurements,
            "idle_share": tally.idle_share,
        }
        begin = clock()
        opened(folder, options.trials, options.folds)
        measured["resume_s"], begin = clock() - begin, clock()
        outcomes = all_outcomes(as_path(name))
        curves = learning_curves(as_path(name), outcomes, options.folds)
        account(outcomes, curves, options.folds)
        measured["report_tables_s"], begin = clock() - begin, clock()
        importances(as_path(name), "scale", "")
        measured["report_importances_s"] = clock() - begin
        measured["driver_bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    settings = {"fold_minutes": options.fold_minutes, "measured": measured}
    paper = [on_paper(mark, gpus=64, **settings) for mark in watched.marks]
    summary = {
        "name": "scale",
        "clock": options.clock,
        "workers": options.workers,
        **measured,
        "marks": [asdict(mark) for mark in watched.marks],
        "on_paper_64_gpus": paper,
        "machine": platform.machine(),
        "at": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
