"""A search by stock Ray Tune: OptunaSearch, folds by Repeater, ASHA or no scheduler, each at its defaults.

OUT/trials/0007/    as of a study (see search/trial.py), of the folds that were trained to their end
OUT/tune/           Ray Tune's own logs
OUT/spent.json      what was spent until when; written last

Ours is only what a trial trains: one fold, by the trainer of the search, on the same cohort. It is what a user of Ray
Tune has to write in any case. Call `preprocessing.environment.prepare` before this module is imported.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "1")  # ASHA decides on each measurement
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "120")  # a stopped fold leaves a checkpoint first
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import optuna
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Repeater
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.repeater import TRIAL_INDEX

from benchmarks.spent import Spent
from preprocessing.cluster import connection
from preprocessing.cohort import Cohort
from preprocessing.storage import as_path, read_json, write_json
from search.fold_files import clear_checkpoints
from search.sampler import settings_of
from search.space import TrialConfig
from search.spaces import load_space, starting_points
from search.train import MEASURE_AT
from search.trial import FoldReport, run_fold, trial_folder, trial_numbers


class Bound(tune.Stopper):
    """Ends the search when all its trials together have spent their image passes, and keeps account of them."""

    def __init__(self, passes: int) -> None:
        self.passes = passes
        self.seen: dict[str, int] = {}
        self.folds: dict[int, dict[int, int]] = {}

    @property
    def spent(self) -> int:
        """Image passes that were reported so far."""
        return sum(self.seen.values())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Note a report; a single trial is ASHA's to stop."""
        self.seen[trial_id] = result["images"]
        folds = self.folds.setdefault(result["number"], {})
        if result["fold_finished"]:
            folds.setdefault(result["fold"], self.spent)  # Tune passes the last report on twice
        return False

    def stop_all(self) -> bool:
        """Whether the passes are spent."""
        return self.spent >= self.passes


def drawn(trial: optuna.Trial, *, space: str, views: Sequence[str], seed: int) -> dict[str, Any]:
    """What OptunaSearch asks: the space's settings, constants beside what it captured, and the number.

    Of this module, since OptunaSearch pickles it into Tune's snapshots.
    """
    config = TrialConfig(**{"seed": seed * 100_003 + trial.number} | settings_of(load_space(space), views, trial))
    return {"number": trial.number, "settings": config.to_dict()}


def trainable(config: dict[str, Any], *, out: Path, cohort: Path) -> None:
    """Train one fold of a configuration: the one that Repeater's index names."""
    torch.set_num_threads(1)
    number, fold = config["number"], config[TRIAL_INDEX]
    folder = as_path(trial_folder(out, number))
    write_json(folder / "config.json", {"number": number, "config": config["settings"]})

    def report(item: FoldReport) -> None:
        seen, mae = item.measurement.images_seen, item.measurement.mae_months
        done = item.fold_finished
        tune.report({"mae": mae, "images": seen, "number": number, "fold": fold, "fold_finished": done})

    run_fold(folder, TrialConfig.from_dict(config["settings"]), Cohort.load(cohort), fold, report=report)


def search(
    cohort: Path, out: Path, *, space: str, seed: int, passes: int, asha: bool = True, concurrent: int = 2
) -> None:
    """Search until so many image passes are spent.

    Args:
        cohort: Folder of the cohort.
        out: New folder.
        space: Named space or ``module:function``; its starting points are tried first, as in the search.
        seed: Of OptunaSearch, and of the trainings as in a study of this seed.
        passes: Image passes in all.
        asha: Whether ASHA stops folds; without it, each is trained to its end.
        concurrent: Trials at a time, of one CPU each.
    """
    opened = Cohort.load(cohort)
    draw = partial(drawn, space=space, views=opened.recipe.views, seed=seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = starting_points(space)
    searcher = OptunaSearch(space=draw, metric="mae", mode="min", points_to_evaluate=points, seed=seed)
    steps = len(MEASURE_AT)
    scheduler = ASHAScheduler(time_attr="training_iteration", metric="mae", mode="min", max_t=steps) if asha else None
    bound = Bound(passes)
    ray.init(**connection(None))
    try:
        results = tune.Tuner(
            tune.with_resources(partial(trainable, out=out, cohort=cohort), {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=Repeater(searcher, repeat=opened.num_folds, set_index=True),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=concurrent,
                reuse_actors=True,  # or each fold would begin with the start of a process; it changes no result
            ),
            run_config=tune.RunConfig(name="tune", storage_path=str(out), stop=bound, verbose=0),
        ).fit()
    finally:
        ray.shutdown()
    for number in trial_numbers(out):
        clear_checkpoints(as_path(trial_folder(out, number)))
    record = {"passes": bound.spent, "begun": len(results), "errors": [str(error) for error in results.errors]}
    write_json(out / "spent.json", record | {"num_folds": opened.num_folds, "folds": bound.folds})


def read_spent(out: Path) -> Spent:
    """What a finished search spent."""
    record = read_json(out / "spent.json")
    folds = {int(number): {int(fold): at for fold, at in of.items()} for number, of in record["folds"].items()}
    complete = {number: max(of.values()) for number, of in folds.items() if len(of) == record["num_folds"]}
    return Spent(record["passes"], complete, folds)
