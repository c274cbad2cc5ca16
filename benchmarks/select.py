"""Selecting from a large pool: ``python -m benchmarks.select [--candidates 500] [--cases 12611]``.

Bagged greedy selection against AutoGluon's EnsembleSelection on the same arrays, side by side in one process: seconds,
and the error of both ensembles on the cases that they were selected on and on as many new ones. AutoGluon is imported
here alone and is no dependency: ``pip install autogluon.core`` first, in an environment of its own if need be; without
it the benchmark says so and ends. Both sides may choose any number of members. AutoGluon runs at its own default size.

The errors are drawn: ten families of candidates with a common part, heavy tails, pictures of differing difficulty and a
reader's noise, so that candidates err with 5 to 8 months and correlate by about 0.7, as trials of a search do.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from ensemble.select import Rules, select
from search.greedy import shares
from search.metrics import bootstrap_ci95

FAMILIES = 10
ANY_NUMBER = Rules(max_members=None)


def drawn_errors(num_candidates: int, num_cases: int, seed: int) -> np.ndarray:
    """``(T, C)`` signed errors in months; the candidates are the same whatever the seed, the cases are not."""
    of_candidates, rng = np.random.default_rng(99), np.random.default_rng(seed)
    family_T = of_candidates.integers(FAMILIES, size=num_candidates)
    scale_T1 = of_candidates.uniform(6, 11, (num_candidates, 1))
    bias_T1 = of_candidates.normal(0, 0.5, (num_candidates, 1))
    difficulty_C = rng.gamma(2, 0.5, num_cases)
    common_C, family_FC = rng.normal(size=num_cases), rng.normal(size=(FAMILIES, num_cases))
    own_TC = rng.standard_t(4, (num_candidates, num_cases)) / np.sqrt(2)
    parts_TC = 0.75 * common_C + 0.35 * family_FC[family_T] + 0.55 * own_TC
    return bias_T1 + 0.9 * scale_T1 * np.sqrt(difficulty_C) * parts_TC + rng.normal(0, 4, num_cases)


def timed(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """What it returns, and the seconds that it took by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    weights_T = run()
    return weights_T, time.perf_counter() - clock, time.process_time() - processor


def autogluon(error_TC: np.ndarray, size: int) -> np.ndarray:
    """Weights by AutoGluon's forward selection for the mean absolute error.

    Raises:
        ImportError: It is not installed.
    """
    from autogluon.core.metrics import mean_absolute_error
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    actual_C = np.full(error_TC.shape[1], 120.0)  # a mean absolute error depends on the differences alone
    selection = EnsembleSelection(ensemble_size=size, problem_type="regression", metric=mean_absolute_error)
    selection.fit(list(error_TC + actual_C), actual_C)
    return np.asarray(selection.weights_)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.select", description=__doc__)
    parser.add_argument("--candidates", type=int, default=500, help="(default 500)")
    parser.add_argument("--cases", type=int, default=12611, help="(default 12611, as RSNA's training set)")
    parser.add_argument("--turns", type=int, default=5, help="of ours; the median counts (default 5)")
    parser.add_argument("--size", type=int, default=25, help="picks of AutoGluon (default 25, its own default)")
    options = parser.parse_args()
    known, new = (drawn_errors(options.candidates, options.cases, seed) for seed in (1, 2))
    share_C = shares(None, options.cases)
    results = {}
    for method in ("greedy", "least_squares", "equal", "single"):
        runs = [timed(partial(select, known, share_C, method, ANY_NUMBER)) for _ in range(options.turns)]
        clock, processor = (float(np.median([run[index] for run in runs])) for index in (1, 2))
        results[method] = (runs[0][0], clock, processor)
    try:
        results["AutoGluon"] = timed(partial(autogluon, known, options.size))
    except ImportError as error:
        print(f"AutoGluon is not compared: {error}. Install autogluon.core beside Carpal first.")
    load = os.getloadavg()[0]
    print(f"{options.candidates} candidates x {options.cases} cases, {os.cpu_count()} cores, load {load:.1f}")
    print("method          seconds  of processor  members  MAE, selected on  MAE, new cases")
    for name, (weights_T, clock, processor) in results.items():
        old_mae, new_mae = (np.abs(weights_T @ error_TC).mean() for error_TC in (known, new))
        members = np.count_nonzero(weights_T)
        print(f"{name:<15} {clock:7.3f}  {processor:12.3f}  {members:7}  {old_mae:16.4f}  {new_mae:14.4f}")
    summary = {"name": "select", "greedy_s": results["greedy"][1], "greedy_processor_s": results["greedy"][2]}
    if "AutoGluon" in results:
        ours, theirs = results["greedy"], results["AutoGluon"]
        change_C = np.abs(ours[0] @ new) - np.abs(theirs[0] @ new)
        low, high = bootstrap_ci95(change_C[None])[0]
        summary |= {"times_faster": theirs[1] / ours[1], "times_less_processor": theirs[2] / ours[2]}
        summary |= {"mae_difference_new": float(change_C.mean()), "ci95": [low, high]}
        print(f"{theirs[1] / ours[1]:.0f} times faster, {theirs[2] / ours[2]:.0f} times less processor time")
        print(f"error on new cases less AutoGluon's: {change_C.mean():+.4f} months, paired, {low:+.4f} to {high:+.4f}")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
