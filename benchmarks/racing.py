"""What the race saves and costs: ``python -m benchmarks.racing --data FOLDER --out FOLDER``.

First every configuration is trained on every fold: full cross-validation, recorded in OUT so that a run that was
stopped goes on. Then the search's own control judges those very records, measurement by measurement, until it stops a
trial: same configurations, same seeds, counted in image passes, which no busy machine disturbs. Both sides build an
ensemble from their complete trials: greedy selection among the five of lowest error.

Beside it, at equal passes, stands what stock Ray Tune would do: OptunaSearch, folds by Repeater, ASHA. This is a
replay of its rules on the same records; `benchmarks.stock` runs Ray Tune. Ray's own ASHAScheduler decides, each fold
being a trial of its own; the configurations come in the recorded order, since OptunaSearch can only be asked where
answers to new configurations exist; none of either side's is drawn by a model. There each side has an ensemble of
eight at most: the race's is what ``ensemble build`` makes of its complete trials; since ASHA leaves hardly a
configuration all its folds, the stock side's is the mean of those of lowest error over the folds they finished, by the
models of those folds. Replays take one trial at a time.

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

from benchmarks.locked_test import LockedTest
from benchmarks.paired import built, compared, predictions, sentence, stock_ensemble
from benchmarks.replay import POOL, draw, full, race, record, redrawn, stock
from benchmarks.spent import Spent
from preprocessing.cohort import MARKER, Cohort
from preprocessing.prepare import prepare
from preprocessing.progress import Progress
from preprocessing.recipe import Recipe, shipped_segmenter
from preprocessing.sources import read_source
from search.greedy import greedy


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


def equal_passes(studies: Sequence[Path], pairs: Sequence[tuple[Spent, Spent]], locked: LockedTest) -> dict[str, Any]:
    """The race and the stock rule, each cut off when the thriftier of the two had ended, by the locked test.

    Beside it the race's ensemble against its best member, by out-of-fold error, both as they are served.
    """
    errors: list[list[np.ndarray]] = []
    for study, (raced, asha) in zip(studies, pairs, strict=True):
        passes = min(raced.passes, asha.passes)
        pool, finished = raced.within(passes), asha.folds_within(passes)
        if not pool or not finished:
            words = f"{len(pool)} complete trials and {len(finished)} with a finished fold"
            return {"not_compared": f"{study.name}: after {passes:,} passes race and rule have {words}"}
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


def main() -> None:
    """Record, replay, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.racing", description=__doc__)
    parser.add_argument("--data", required=True, help="labelled radiographs, or a prepared cohort")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps what is finished")
    parser.add_argument("--space", default="quick", help="(default quick)")
    parser.add_argument("--trials", type=int, default=24, help="configurations of a seed (default 24)")
    parser.add_argument("--folds", type=int, default=5, help="of a cohort that is prepared here (default 5)")
    parser.add_argument("--seeds", type=int, default=2, help="(default 2)")
    parser.add_argument("--first-seed", type=int, default=0, help="a rule is judged by seeds it was not chosen on")
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
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    studies = [out / f"seed_{seed}" for seed in seeds]
    for seed, study in zip(seeds, studies, strict=True):
        draw(study, options.space, seed, options.trials, view, options.images)
    tasks = [(place, study, number) for study in studies for number in range(options.trials)]
    progress = Progress("configurations trained on every fold", len(tasks))
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(record, tasks), start=1):
            progress(done)
    locked = LockedTest(cohort)
    found, ways = judged(studies, seeds, options.space, locked)
    for seed, (whole, raced, asha) in zip(seeds, ways, strict=True):
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
    summary["n"] = {"trials": options.trials, "folds": num_folds, "seeds": list(seeds), "images": options.images}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
