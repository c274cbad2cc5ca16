"""What the race saves and costs: ``python -m benchmarks.racing --data FOLDER --out FOLDER``.

First every configuration is trained on every fold: full cross-validation, recorded in OUT so that a run that was
stopped goes on. Then the search's own control judges those very records, measurement by measurement, until it stops a
trial: same configurations, same seeds, counted in image passes, which no busy machine disturbs. Both sides build an
ensemble from their complete trials: greedy selection among the five of lowest error.

Beside it, at equal passes, stands what stock Ray Tune would do: OptunaSearch, folds by Repeater, ASHA. This is a replay
of its rules on the same records, not a run of Ray Tune: Ray's own ASHAScheduler decides, each fold being a trial of its
own; the configurations come in the recorded order, since OptunaSearch can only be asked where answers to new
configurations exist; none of either side's is drawn by a model. There each side has an ensemble of eight at most: the
race's is what ``ensemble build`` makes of its complete trials; since ASHA leaves hardly a configuration all its folds,
the stock side's is the mean of those of lowest error over the folds they finished, by the models of those folds.
Replays take one trial at a time.

With ``--draws`` the same is judged over searches drawn anew from all configurations that OUT holds, in random order:
which configurations come when is then luck no more; the trainings are the same.

Judged by the means over seeds: at least 2.5 times fewer passes than full cross-validation, and an ensemble whose
out-of-fold error is no more than 1 % above. A single seed is a draw of configurations and of trainings.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.locked_test import LockedTest
from benchmarks.replay import POOL, Spent, draw, full, race, record, redrawn, stock
from ensemble.noise import as_served, measure
from ensemble.select import Rules, select
from preprocessing.cohort import MARKER, Cohort
from preprocessing.prepare import prepare
from preprocessing.progress import Progress
from preprocessing.recipe import Recipe, shipped_segmenter
from preprocessing.sources import read_source
from preprocessing.storage import read_json
from search.greedy import greedy, shares
from search.metrics import bootstrap_ci95
from search.trial import trial_folder

MEMBERS = 8
"""Of each side's ensemble where the locked test compares them."""


def predictions(study: Path, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """``(C, T)`` what trials say out of fold and ``(C,)`` the reference, in months."""
    tables = [pd.read_parquet(trial_folder(study, number) / "oof.parquet") for number in numbers]
    oof_CT = np.stack([table["predicted_months"].to_numpy(np.float64) for table in tables], axis=1)
    return oof_CT, tables[0]["bone_age_months"].to_numpy(np.float64)


def ensemble_of(study: Path, numbers: Sequence[int]) -> np.ndarray:
    """``(C,)`` absolute out-of-fold errors, in months, of the greedy ensemble of the best trials.

    Raises:
        ValueError: No trial is complete.
    """
    if not numbers:
        raise ValueError("An ensemble needs a complete trial, and there is none. Record more trials.")
    oof_CT, actual_C = predictions(study, numbers)
    best = np.abs(oof_CT - actual_C[:, None]).mean(axis=0).argsort(kind="stable")[:POOL]
    weights = greedy(oof_CT[:, best], actual_C)
    return np.abs(oof_CT[:, best] @ weights - actual_C)


def compared(ours_SC: np.ndarray, other_SC: np.ndarray) -> dict[str, Any]:
    """Two ways' errors on the same cases, ``(S, C)`` seed by case; the interval is over cases, of the mean seed."""
    change_C = (ours_SC - other_SC).mean(axis=0)
    return {
        "ours_months": float(ours_SC.mean()),
        "other_months": float(other_SC.mean()),
        "difference_months": float(change_C.mean()),
        "ci95": bootstrap_ci95(change_C[None])[0],
        "by_seed": [round(float(value), 3) for value in (ours_SC - other_SC).mean(axis=1)],
        "n": len(change_C),
    }


def built(study: Path, numbers: Sequence[int], num_folds: int) -> dict[int, float]:
    """Weights that `python -m ensemble build --method greedy` would give to members out of these complete trials."""
    oof_CT, actual_C = predictions(study, numbers)
    error_TC = np.ascontiguousarray((oof_CT - actual_C[:, None]).T)
    noise = measure(error_TC, np.full_like(error_TC, np.nan), np.zeros(len(numbers), int))
    served_TC = as_served(error_TC, noise, num_folds)
    weights = select(served_TC, shares(None, error_TC.shape[1]), "greedy", Rules(max_members=MEMBERS))
    return {number: float(weight) for number, weight in zip(numbers, weights, strict=True) if weight}


def stock_ensemble(study: Path, finished: dict[int, list[int]]) -> dict[int, float]:
    """What a user of the stock rule would average: the trials of lowest mean error over the folds they finished.

    ASHA judges each fold as a trial of its own, so hardly a configuration keeps all its folds: there are no complete
    out-of-fold predictions to fit weights to.
    """
    maes = {
        number: np.mean([read_json(trial_folder(study, number) / f"fold_{fold}.json")["mae_months"] for fold in folds])
        for number, folds in finished.items()
    }
    best = sorted(maes, key=lambda number: maes[number])[:MEMBERS]
    return dict.fromkeys(best, 1 / len(best))


def equal_passes(studies: Sequence[Path], pairs: Sequence[tuple[Spent, Spent]], locked: LockedTest) -> dict[str, Any]:
    """The race and the stock rule, each cut off when the thriftier of the two had ended, by the locked test.

    Beside it the race's ensemble against its best member, by out-of-fold error, both as they are served.
    """
    errors: list[list[np.ndarray]] = []
    for seed, (study, (raced, asha)) in enumerate(zip(studies, pairs, strict=True)):
        passes = min(raced.passes, asha.passes)
        pool, finished = raced.within(passes), asha.folds_within(passes)
        if not pool or not finished:
            words = f"{len(pool)} complete trials and {len(finished)} with a finished fold"
            return {"not_compared": f"seed {seed}: after {passes:,} passes race and rule have {words}"}
        weights = built(study, pool, locked.cohort.num_folds)
        oof_CT, actual_C = predictions(study, pool)
        best = pool[np.abs(oof_CT - actual_C[:, None]).mean(axis=0).argmin()]
        rule = locked.error(study, stock_ensemble(study, finished), finished)
        errors.append([locked.error(study, weights), rule, locked.error(study, {best: 1.0})])
    ours_SL, rule_SL, best_SL = np.array(errors).transpose(1, 0, 2)
    return {"locked_test": compared(ours_SL, rule_SL), "best_member": compared(ours_SL, best_SL)}


def judged(
    studies: Sequence[Path], seeds: Sequence[int], space: str, locked: LockedTest
) -> tuple[dict[str, Any], list[tuple[Spent, Spent, Spent]]]:
    """The race on recorded studies against full cross-validation and the stock rule, and what each spent."""
    view, num_folds = locked.cohort.recipe.views[0], locked.cohort.num_folds
    show = Progress("searches replayed", len(studies))
    ways = []
    for seed, study in zip(seeds, studies, strict=True):
        ways.append((full(study, num_folds), race(study, space, seed, view, num_folds), stock(study, num_folds)))
        show(len(ways))
    sides = [
        [ensemble_of(study, list(way.complete)) for way in (raced, whole)]
        for study, (whole, raced, _) in zip(studies, ways, strict=True)
    ]
    errors = np.array(sides).transpose(1, 0, 2)
    against_full = compared(errors[0], errors[1])
    mae_2S = errors.mean(axis=2)
    found = {
        "factor": sum(whole.passes for whole, _, _ in ways) / sum(raced.passes for _, raced, _ in ways),
        "worse_by": against_full["ours_months"] / against_full["other_months"] - 1,
        "worst_seed_worse_by": float((mae_2S[0] / mae_2S[1] - 1).max()),
        "against_full": against_full,
        "against_stock_rule": equal_passes(studies, [(raced, asha) for _, raced, asha in ways], locked),
        "passes": [[way.passes for way in row] for row in ways],
        "complete": [[len(way.complete) for way in row] for row in ways],
    }
    return found, ways


def said(found: dict[str, Any]) -> None:
    """Print what `judged` found."""
    print(
        f"race against full CV: {found['factor']:.2f} times fewer passes, out-of-fold error {found['worse_by']:+.1%}, "
        f"in the worst seed {found['worst_seed_worse_by']:+.1%}"
    )
    print(f"  {sentence(found['against_full'])}")
    rule = found["against_stock_rule"]
    if "best_member" in rule:
        print(f"its ensemble against its best member, both as served: {sentence(rule['best_member'])}")
    print(f"race against a replay of stock Ray Tune's rules, at equal passes: {sentence(rule['locked_test'])}"
          if "locked_test" in rule else f"stock rule: {rule['not_compared']}")  # fmt: skip


def sentence(found: dict[str, Any]) -> str:
    """A comparison in words."""
    low, high = found["ci95"]
    return (
        f"{found['ours_months']:.2f} against {found['other_months']:.2f} months, {found['difference_months']:+.3f} "
        f"(95 % {low:+.3f} to {high:+.3f}, n = {found['n']}), by seed {found['by_seed']}"
    )


def main() -> None:
    """Record, replay, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.racing", description=__doc__)
    parser.add_argument("--data", required=True, help="labelled radiographs, or a prepared cohort")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps what is finished")
    parser.add_argument("--space", default="quick", help="(default quick)")
    parser.add_argument("--trials", type=int, default=24, help="configurations of a seed (default 24)")
    parser.add_argument("--folds", type=int, default=5, help="of a cohort that is prepared here (default 5)")
    parser.add_argument("--seeds", type=int, default=2, help="(default 2)")
    parser.add_argument("--images", type=int, default=8000, help="image passes of a fold at most (default 8000)")
    parser.add_argument("--draws", type=int, default=0, help="searches drawn anew from all that OUT holds (default 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    out, place = options.out.absolute(), Path(options.data)
    if not (place / MARKER).exists():
        place = out / "cohort"
        if not (place / MARKER).exists():
            source = read_source(options.data)
            recipe = Recipe(size=96, segmenter=shipped_segmenter(), views=("crop",))
            shown = Progress("radiographs prepared", len(source.cases))
            prepare(source, place, recipe, num_folds=options.folds, test_fraction=0.1, seed=0, progress=shown)
    cohort = Cohort.load(place)
    view, num_folds = cohort.recipe.views[0], cohort.num_folds
    studies = [out / f"seed_{seed}" for seed in range(options.seeds)]
    for seed, study in enumerate(studies):
        draw(study, options.space, seed, options.trials, view, options.images)
    tasks = [(place, study, number) for study in studies for number in range(options.trials)]
    progress = Progress("configurations trained on every fold", len(tasks))
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(record, tasks), start=1):
            progress(done)
    locked = LockedTest(cohort)
    found, ways = judged(studies, range(options.seeds), options.space, locked)
    for seed, (whole, raced, asha) in enumerate(ways):
        words = (f"{name} {way.passes:,} passes, {len(way.complete)} complete" for name, way in
                 (("full CV", whole), ("race", raced), ("stock rule", asha)))  # fmt: skip
        print(f"seed {seed}: " + "; ".join(words))
    said(found)
    summary = {"name": "racing", **found, "reached": found["factor"] >= 2.5 and found["worse_by"] <= 0.01}
    if options.draws:
        recorded = sorted(out.glob("seed_*"))
        with tempfile.TemporaryDirectory() as name:
            drawn = [Path(name) / f"draw_{index}" for index in range(options.draws)]
            for index, study in enumerate(drawn):
                redrawn(recorded, study, options.space, index, options.trials, view)
            more, _ = judged(drawn, range(options.draws), options.space, locked)
        print(f"\n{options.draws} draws of {options.trials} of all configurations in {out.name}, in random order")
        said(more)
        summary["draws"] = more
    summary["n"] = {"trials": options.trials, "folds": num_folds, "seeds": options.seeds, "images": options.images}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
