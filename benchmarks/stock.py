"""The search against stock Ray Tune at equal passes: ``python -m benchmarks.stock --data FOLDER --out FOLDER``.

Each seed is searched twice over the same space, on the same folds, by the same trainer. First by the product, as a user
would: ``python -m search run``. All image passes that it spent count: short trainings, stopped trials, everything. Then
by Ray Tune as it is shipped: OptunaSearch, folds by Repeater, ASHA, until the same passes are spent. Both try the
space's starting points first, and have two workers.

Then the locked test, case by case, an ensemble of eight at most on each side. Ours is what ``ensemble build`` makes of
the complete trials. ASHA judges each fold by itself and leaves hardly a configuration all its folds: the stock side's
is the mean of the configurations of lowest error over the folds that they finished, by the models of those folds. Where
it has complete ones, the same greedy selection from those alone stands beside it: Ray Tune itself has no such step.

Repeater's documentation advises against a scheduler that stops early. With ``--without-asha`` Ray Tune searches once
more, each fold trained to its end, until the same passes are spent; the same two ensembles are made of what it found.

OUT keeps what is finished: run again, it goes on where it stopped. Only a search by Ray Tune that was cut off begins
anew, since ASHA's state is in no snapshot.
"""

import argparse
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import run
from benchmarks.bounded import IMAGES, NAME, SPACE
from benchmarks.locked_test import LockedTest
from benchmarks.paired import built, compared, sentence, stock_ensemble
from preprocessing import environment
from preprocessing.cohort import MARKER, Cohort
from preprocessing.storage import as_path, read_json
from search.fold_files import finished_folds
from search.progress import read_progress
from search.space import TrialConfig
from search.trial import all_outcomes, trial_folder

WAYS = {"stock": "with ASHA", "fifo": "without ASHA"}
"""How Ray Tune searches, by the start of its folder's name."""
VARIANTS = {"best": "mean of its best by finished folds", "greedy": "greedy selection from its complete ones"}
"""What its ensemble is made of."""


@dataclass(frozen=True)
class Side:
    """What one side has found, within its passes."""

    passes: int
    folds: dict[int, list[int]]
    """Finished folds of each configuration that was begun."""
    complete: list[int]

    @property
    def words(self) -> str:
        """In words."""
        finished = sum(len(of) for of in self.folds.values())
        begun, complete = len(self.folds), len(self.complete)
        return f"{self.passes:,} passes, {begun} configurations begun, {finished} folds finished, {complete} complete"


def ours(study: Path, num_folds: int) -> Side:
    """What the search spent and found: every measurement of every fold and short training in its folders counts."""
    passes, folds, complete = 0, {}, []
    for outcome in all_outcomes(study):
        number, folder = outcome["number"], as_path(trial_folder(study, outcome["number"]))
        images = read_progress(folder, number, TrialConfig.from_dict(outcome["config"]), num_folds)[1]
        passes += sum(images.values())
        folds[number] = list(finished_folds(folder, num_folds))
        complete += [number] if outcome["state"] == "complete" else []
    return Side(passes, folds, complete)


def searched(cohort: Path, study: Path, num_trials: int, pool: int, seed: int) -> None:
    """Run our search to its end, from wherever it stopped."""
    if (study / "study.json").exists():
        run(["search", "resume", str(study), "--gpus-per-trial", "0", "--concurrent", "2"], {})
        return
    words = ["search", "run", str(cohort), str(study), "--space", NAME, "--trials", str(num_trials)]
    run([*words, "--pool", str(pool), "--seed", str(seed), "--gpus-per-trial", "0", "--concurrent", "2"], {})


def stock(cohort: Path, out: Path, seed: int, passes: int, *, asha: bool) -> Side:
    """What stock Ray Tune finds within so many passes."""
    from benchmarks.stock_tune import read_spent, search  # late: it imports Ray

    if not (out / "spent.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        print(f"Ray Tune, {out.name}, {passes:,} passes", flush=True)
        search(cohort, out, space=NAME, seed=seed, passes=passes, asha=asha)
    spent = read_spent(out)
    if errors := read_json(out / "spent.json")["errors"]:
        print(f"  {len(errors)} of its trials failed, the first with: {errors[0]}")
    within = spent.folds_within(passes)
    return Side(spent.passes, {number: within.get(number, []) for number in spent.folds}, spent.within(passes))


def ensembles(locked: LockedTest, study: Path, side: Side) -> dict[str, np.ndarray]:
    """``(L,)`` absolute errors on the locked test, in months, of each of Ray Tune's ensembles that can be made."""
    finished = {number: folds for number, folds in side.folds.items() if folds}
    errors = {}
    if finished:
        errors["best"] = locked.error(study, stock_ensemble(study, finished), finished)
    if side.complete:
        errors["greedy"] = locked.error(study, built(study, side.complete, locked.cohort.num_folds))
    return errors


def against(found: list[dict[str, np.ndarray]], name: str) -> dict[str, Any] | None:
    """Ours against an ensemble of Ray Tune's, over the seeds that have it."""
    pairs = [(errors["ours"], errors[name]) for errors in found if name in errors]
    return compared(*np.array(pairs).transpose(1, 0, 2)) if pairs else None


def said(found: list[dict[str, np.ndarray]], ways: list[str]) -> dict[str, Any]:
    """Print and return ours against each ensemble of Ray Tune's."""
    results = {}
    for way in ways:
        for variant, what in VARIANTS.items():
            result = results[f"{way}_{variant}"] = against(found, f"{way}_{variant}")
            outcome = sentence(result) if result else "there is none"
            print(f"  Carpal against Ray Tune {WAYS[way]}, {what}: {outcome}", flush=True)
    return results


def main() -> None:
    """Search, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock", description=__doc__)
    parser.add_argument("--data", required=True, help="labelled radiographs, or a prepared cohort")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps what is finished")
    parser.add_argument("--space", default="quick", help="(default quick)")
    parser.add_argument("--trials", type=int, default=48, help="of our search (default 48)")
    parser.add_argument("--pool", type=int, default=5, help="good trials that our race keeps (default 5)")
    parser.add_argument("--images", type=int, default=4000, help="image passes of a fold at most (default 4000)")
    parser.add_argument("--seeds", type=int, default=3, help="(default 3)")
    parser.add_argument("--without-asha", action="store_true", help="search by Ray Tune without a scheduler too")
    options = parser.parse_args()
    os.environ.update({SPACE: options.space, IMAGES: str(options.images)})
    environment.prepare(own_ray=True)
    out, place = options.out.absolute(), Path(options.data).absolute()
    if not (place / MARKER).exists():
        place = out / "cohort"
        if not (place / MARKER).exists():
            words = ["preprocessing", "prepare", options.data, str(place), "--size", "64", "--folds", "5"]
            run([*words, "--test", "0.5"], {})
    locked, ways = LockedTest(Cohort.load(place)), ["stock", "fifo"] if options.without_asha else ["stock"]
    found: list[dict[str, np.ndarray]] = []
    passes: list[list[int]] = []
    for seed in range(options.seeds):
        study = out / f"carpal_{seed}"
        searched(place, study, options.trials, options.pool, seed)
        mine = ours(study, locked.cohort.num_folds)
        if not mine.complete:
            raise ValueError(f"An ensemble needs a complete trial, and {study} has none. Ask for more --trials.")
        errors = {"ours": locked.error(study, built(study, mine.complete, locked.cohort.num_folds))}
        print(f"seed {seed}\n  Carpal: {mine.words}", flush=True)
        spent = [mine.passes]
        for way in ways:
            other = out / f"{way}_{seed}"
            side = stock(place, other, seed, mine.passes, asha=way == "stock")
            print(f"  Ray Tune {WAYS[way]}: {side.words}")
            errors |= {f"{way}_{name}": error for name, error in ensembles(locked, other, side).items()}
            spent.append(side.passes)
        found.append(errors)
        passes.append(spent)
        said(found[-1:], ways)
    print(f"{options.seeds} seeds, the interval over cases of the locked test")
    results = said(found, ways)
    n = {"seeds": options.seeds, "trials": options.trials, "images": options.images, "folds": locked.cohort.num_folds}
    print(json.dumps({"name": "stock", "space": options.space, "passes": passes, **results, "n": n}))


if __name__ == "__main__":
    main()
