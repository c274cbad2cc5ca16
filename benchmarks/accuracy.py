"""What a search reaches on stated compute: ``python -m benchmarks.accuracy --data FOLDER --minutes M``.

Runs the product's own commands one after the other (prepare, search, ensemble build, evaluate) within M minutes in
all, then opens the locked test once: for the ensemble, for the best single trial by cross-validation and for the first
trial, which is the space's first starting point. The last two are compared case by case: a search that over-tunes picks
a configuration that is worse on new cases than the one it began with (arXiv 2506.19540 finds that in a tenth of runs).
Where the search has not finished its first trial, which it stops like any other, that one is trained to its end
afterwards, on the same folds with the same seed: minutes that are no part of what the search is measured by.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.locked_test import LockedTest
from ensemble.printed import between
from preprocessing.cohort import Cohort
from search.metrics import bootstrap_ci95
from search.trial import all_outcomes, finished_trials

RESERVE_A_TRIAL_S = 30
"""Kept back for each trial of the pool: building asks its fold models, and evaluating those of the members."""
PUBLISHED = (
    ("Chen, VGG-16 fine-tuned", "RMSE 13.3 months on the Digital Hand Atlas"),  # 1.11 years
    ("Chen, GoogLeNet fine-tuned", "RMSE 15.0 months on the Digital Hand Atlas"),  # 1.25 years
    ("TechLabs, VGG-16", "MAE 20 months on RSNA"),
    ("Memon & Cuomo, U-Net and 4 convolutions", "MAD 46 months on RSNA"),
)
"""What the systems that Carpal grew from say of themselves, on data of their own."""


def run(words: list[str], seconds: dict[str, float]) -> str:
    """Run one command of the product as a user would, and note how long it took."""
    print("$ python -m " + " ".join(words), flush=True)
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-m", *words], check=True, stdout=subprocess.PIPE, text=True)
    name = " ".join(words[:2])
    seconds[name] = time.monotonic() - begin
    return done.stdout


def reserve_s(pool: int, prepare_s: float) -> float:
    """Seconds kept back from the search: for a last fold that takes longer than reckoned, building and evaluating.

    Besides `RESERVE_A_TRIAL_S` as long again as preparing took: that knows how many cases there are and how busy the
    machine is. Two minutes alone were too few for 11,098 radiographs on busy cores, where the end came 6 minutes after
    the search's deadline: a trial's last fold is not cut off, since it makes a candidate. Building and evaluating
    themselves took 0.1 to 1.1 of the time of preparing in three runs.

    Args:
        pool: Trials that the ensemble may choose from.
        prepare_s: That preparing took.
    """
    return pool * RESERVE_A_TRIAL_S + prepare_s


def over_tuning(study: Path, first: Path, cohort: Cohort) -> dict[str, Any]:
    """Best by cross-validation against the first starting point, on the locked test.

    Args:
        study: What was searched.
        first: The study whose trial 0 is the first starting point, complete.
        cohort: Of both.

    Returns:
        ``best_by_cv`` and ``first``, and the paired difference: negative where the search found something better.
    """
    best = min(finished_trials(study, distributions=False), key=lambda trial: trial.mae_months)
    (start,) = (trial for trial in finished_trials(first, distributions=False) if trial.number == 0)
    locked = LockedTest(cohort)
    errors = np.stack([locked.error(study, {best.number: 1.0}), locked.error(first, {0: 1.0})])
    ci = bootstrap_ci95(np.vstack([errors, errors[0] - errors[1]]))
    found: dict[str, Any] = {
        name: {"trial": trial.number, "oof_mae": trial.mae_months, "mae": float(error.mean()), "ci95": bounds}
        for name, trial, error, bounds in zip(("best_by_cv", "first"), (best, start), errors, ci[:-1], strict=True)
    }
    return {**found, "best_minus_first": float((errors[0] - errors[1]).mean()), "best_minus_first_ci95": ci[-1]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--data", required=True, help="labelled folder in the RSNA layout")
    parser.add_argument("--minutes", type=float, required=True, help="of everything together")
    parser.add_argument("--out", type=Path, help="new folder for cohort, study and registry (default: a temporary one)")
    parser.add_argument("--space", default="cpu", help="(default cpu)")
    parser.add_argument("--trials", type=int, default=64, help="at most; time ends most searches (default 64)")
    parser.add_argument("--pool", type=int, default=4, help="good trials that the race keeps (default 4)")
    parser.add_argument("--size", default="96", help="of the model input, in pixels (default 96)")
    parser.add_argument("--views", default="crop", help="with commas: full, crop, masked (default crop)")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    begin, seconds = time.monotonic(), dict[str, float]()
    out = options.out or Path(tempfile.mkdtemp(prefix="carpal-accuracy-"))
    print(f"cohort, study and registry: {out}", flush=True)
    cohort, study, registry = (str(out / name) for name in ("cohort", "study", "registry"))
    words = ["preprocessing", "prepare", options.data, cohort, "--size", options.size, "--views", options.views]
    run([*words, "--seed", options.seed], seconds)
    reserve = reserve_s(options.pool, seconds["preprocessing prepare"])
    hours = (60 * options.minutes - reserve - (time.monotonic() - begin)) / 3600
    words = ["search", "run", cohort, study, "--space", options.space, "--trials", str(options.trials)]
    run([*words, "--pool", str(options.pool), "--seed", options.seed, "--hours", f"{hours:.4f}"], seconds)
    print(run(["ensemble", "build", study, registry], seconds))
    evaluation = json.loads(run(["ensemble", "evaluate", registry, cohort, "--json"], seconds))
    minutes = (time.monotonic() - begin) / 60
    rows = [
        ("ensemble", evaluation["mae_months"], evaluation["mae_ci95"]),
        ("median predictor", evaluation["median_predictor_mae_months"], evaluation["median_predictor_ci95"]),
    ]
    print(f"locked test of {options.data}, n = {evaluation['n']}, after {minutes:.1f} minutes")
    for name, mae, ci95 in rows:
        print(f"  {name:18s} {mae:6.2f} months   95 % interval {between(ci95)}")
    for name, figure in PUBLISHED:
        print(f"  {name}: {figure} (their own report)")
    first = study if all_outcomes(study)[0]["state"] == "complete" else str(out / "first")
    if first != study:
        print("the search has not finished its first trial, which is trained now, beside these minutes", flush=True)
        words = ["search", "run", cohort, first, "--space", options.space, "--trials", "1"]
        run([*words, "--screen", "off", "--race", "none", "--seed", options.seed], {})
    check = over_tuning(Path(study), Path(first), Cohort.load(cohort))
    for name in ("best_by_cv", "first"):
        print(f"  {name:18s} {check[name]['mae']:6.2f} months   95 % interval {between(check[name]['ci95'])}")
    low, high = check["best_minus_first_ci95"]
    print(f"  best by CV less first trial {check['best_minus_first']:+.2f} months, paired, {low:+.2f} to {high:+.2f}")
    states = [outcome["state"] for outcome in all_outcomes(study)]
    summary = {
        "name": "accuracy",
        "space": options.space,
        "minutes": minutes,
        "seconds": seconds,
        "cores": os.cpu_count(),
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "locked_test": {key: evaluation[key] for key in ("n", "mae_months", "mae_ci95", "median_predictor_mae_months")},
        "over_tuning": check,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
