"""How far the search scales: ``python -m benchmarks.cluster_sim [--trials 1000] [--workers 1,4,16,64,256]``.

Simulated workers replay learning curves (drawn, see `benchmarks.curves.drawn`, or of a real study) through the real
sampler on a real journal, the real trials' folders, the real stopping rules and the real board, in a discrete-event
simulation. Training passes on a virtual clock; every question to the driver occupies it for as long as the answer
really takes, first come, first served, while the worker that asked waits.

With ``--clock processor`` an answer takes the processor time that the driver spent on it: other work on the machine
does not disturb that, and waits for the disk are left out.

Idle is the time from a worker's question to its answer, in the queue and while the driver decides, and the time in
which there was nothing for a worker until there was something again, as before a generation is judged. It is given as a
share of all worker time but the last wave, after the last work that there was for a worker; the last wave stands beside
it, and the speed-up contains all. Every number of workers runs in a process of its own, whose
highest resident memory is read at the end.

Left out: Ray's own messages, its controller loop and loggers (TensorBoard, CSV, JSON, MLflow), the start of workers,
what workers write themselves, and the network to a remote store.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.curves import drawn, recorded
from benchmarks.simulation import simulate
from preprocessing.charts import ACCENT, GREY, empty, legend, plain
from preprocessing.storage import as_path
from search.board import Board
from search.control import StudyControl
from search.generations import generation_of
from search.racing import Race, make_rules
from search.sampler import Sampler
from search.trial import read_study

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True)
class Setting:
    """What all numbers of workers share."""

    trials: int
    folds: int
    study: str
    space: str
    seed: int
    clock: str


def memory_mb(name: str) -> float:
    """A line of Linux's account of this process, such as ``VmHWM``, the highest resident memory; in 2^20 bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) / 1024


def measure(setting: Setting, workers: int) -> dict[str, Any]:
    """One number of workers, in this process."""
    before = memory_mb("VmRSS")
    curves_of = recorded(setting.study, setting.seed) if setting.study else drawn(setting.folds, setting.seed)
    with tempfile.TemporaryDirectory() as name, Path(os.devnull).open("w") as nowhere:
        sampler = Sampler(
            as_path(name), name="simulated", space=setting.space, seed=setting.seed, num_trials=setting.trials
        )
        board = Board(setting.trials, setting.folds, stream=nowhere)
        rules, size = Race(make_rules("matched", True, 5)), generation_of(setting.trials)
        control = StudyControl(sampler, rules, num_folds=setting.folds, generation=size, say=board)
        tally = simulate(control, curves_of, workers, clock=CLOCKS[setting.clock])
        counts = sampler.counts()
    peak = memory_mb("VmHWM")
    return {
        **asdict(tally),
        "idle_share": tally.idle_share,
        "last_wave_share": tally.last_wave / (workers * tally.makespan),
        "driver_share": tally.driver / tally.makespan,
        "decisions_per_s": tally.decisions / tally.driver,
        "peak_mb": peak,
        "risen_mb": peak - before,
        "states": counts,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Speed-up against workers, both on logarithmic axes, beside the ideal."""
    figure = empty(6.2, 3.8)
    axes = plain(figure.add_subplot())
    workers = [row["workers"] for row in rows]
    axes.plot(workers, workers, color=GREY, linewidth=1, linestyle="--", label="ideal")
    axes.plot(workers, [row["speed_up"] for row in rows], color=ACCENT, marker="o", label="the whole study")
    kept = [row["workers"] * (1 - row["idle_share"]) for row in rows]
    axes.plot(workers, kept, color=ACCENT, marker="^", linestyle=":", label="workers not idle, last wave aside")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(workers, [str(count) for count in workers])
    axes.set_yticks(workers, [str(count) for count in workers])
    axes.set(xlabel="workers", ylabel="speed-up")
    legend(axes)
    figure.savefig(path)


def main() -> None:
    """Simulate, print, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_sim", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--folds", type=int, default=5, help="of drawn curves (default 5)")
    parser.add_argument("--workers", default="1,4,16,64,256", help="numbers of workers; 1 is always measured")
    parser.add_argument("--study", default="", help="replay this study's records instead of drawn curves")
    parser.add_argument("--space", default="cpu", help="that the sampler draws from (default cpu)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="processor: where other work disturbs the wall")
    parser.add_argument("--out", type=Path, help="folder for speed_up.svg and cluster_sim.json")
    options = parser.parse_args()
    folds = read_study(options.study)["num_folds"] if options.study else options.folds
    setting = Setting(options.trials, folds, options.study, options.space, options.seed, options.clock)
    rows: list[dict[str, Any]] = []
    heads = ("workers", "idle", "last wave", "driver busy", "decisions/s", "assisted", "peak MB", "hours", "speed-up")
    print("  ".join(f"{head:>11s}" for head in heads), flush=True)
    for workers in sorted({1, *(int(word) for word in options.workers.split(","))}):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(measure, setting, workers).result()
        row["speed_up"] = (rows[0] if rows else row)["makespan"] / row["makespan"]
        rows.append(row)
        cells = [f"{workers}", *(f"{row[key]:.1%}" for key in ("idle_share", "last_wave_share", "driver_share"))]
        cells += [f"{row['decisions_per_s']:.0f}", f"{row['assisted']}", f"{row['peak_mb']:.0f}"]
        cells += [f"{row['makespan'] / 3600:.2f}"]
        print("  ".join(f"{cell:>11s}" for cell in [*cells, f"{row['speed_up']:.1f}"]), flush=True)
    summary = {
        "name": "cluster_sim",
        **asdict(setting),
        "idle_share": max(row["idle_share"] for row in rows),
        "rows": rows,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": [round(value, 1) for value in os.getloadavg()],
    }
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        draw(rows, options.out / "speed_up.svg")
        (options.out / "cluster_sim.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
