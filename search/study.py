"""One study: its folder, and the Ray Tune run that fills it.

study/study.json               what is searched, on which cohort, with which seed
study/segmenter.safetensors    the cohort's, where it has one: a bundle is built from the study alone
study/optuna.journal           Optuna's record
study/trials/                  one folder a trial (see search/trial.py): the truth
study/tune/                    Ray Tune's logs (TensorBoard, CSV, JSON); made anew by each run
"""

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "1")  # a decision per report, not per bundle of reports
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a failing trial reports its reason, no metric
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
import torch
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray import tune

from preprocessing.cluster import connection
from preprocessing.cohort import MARKER, Cohort
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.storage import (
    AnyPath,
    StorageError,
    as_path,
    canonical_hash,
    is_local,
    read_json,
    remote,
    write_atomic,
    write_json,
)
from search.adapters import RaceScheduler, StudySearcher
from search.board import Board
from search.control import StudyControl, result_of
from search.progress import keep_measurement, read_measurements
from search.racing import Race, make_rules
from search.sampler import Sampler
from search.space import TrialConfig, load_space
from search.train import TrainingError
from search.trial import FoldReport, read_fold, read_study, run_trial, trial_folder

MAX_FAILURES = 3
"""How often a trial whose worker died is started again; each time it goes on after its last finished fold."""


class StudyError(ValueError):
    """The study cannot be started or resumed as asked."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where a study runs; none of it changes what is searched."""

    address: str | None = None
    """Ray cluster to join; None starts Ray on this machine."""
    concurrent: int | None = None
    """Trials at a time; None fills the cluster's GPUs, or its CPUs where it has none."""
    gpus_per_trial: float | None = None
    """None: one where the cluster has any, else none. Fractions share a GPU."""
    hours: float | None = None
    """No trial begins after this time, and none goes past the fold it is in; `resume` continues."""
    cohort: str | None = None
    """Where the study's cohort is now; None: where it was. Its content must be the same."""


def create(
    cohort: str,
    study: str,
    *,
    space: str,
    num_trials: int,
    pool_size: int,
    seed: int,
    race: str = "forgiving",
    screen: bool = True,
) -> AnyPath:
    """Write ``study.json``.

    Args:
        cohort: Folder of the cohort.
        study: New folder.
        space: Named space or ``module:function``.
        num_trials: Configurations in all.
        pool_size: How many good trials the stopping rules keep.
        seed: Of configurations and training.
        race: One of `search.racing.RACES`: which folds are saved.
        screen: Whether trials are stopped inside fold 0 too.

    Raises:
        StudyError: There is a study already.
        StorageError: No complete cohort is there.
    """
    folder, cohort_path = as_path(study), as_path(cohort)
    if (folder / "study.json").exists():
        raise StudyError(f"{folder} holds a study already. Go on with: python -m search resume {folder}")
    for option, value in (("--trials", num_trials), ("--pool", pool_size)):
        if value < 1:
            raise StudyError(f"{option} must be 1 or more, got {value}.")
    load_space(space)  # an unknown space or rule fails here, before a folder is made
    make_rules(race, screen, pool_size)
    about = read_json(cohort_path / MARKER)
    recipe = Recipe.from_dict(about["recipe"])
    if recipe.segmenter:
        write_atomic(folder / SEGMENTER, (cohort_path / SEGMENTER).read_bytes())
    record = {
        "format": "carpal-study-1",
        "name": f"{space}-{canonical_hash([about['hash'], space, num_trials, pool_size, seed])[:12]}",
        "cohort": str(cohort_path),
        "cohort_hash": about["hash"],
        "recipe": recipe.to_dict(),
        "recipe_hash": about["recipe_hash"],
        "num_folds": about["num_folds"],
        "space": space,
        "num_trials": num_trials,
        "pool_size": pool_size,
        "race": race,
        "screen": screen,
        "seed": seed,
    }
    write_json(folder / "study.json", record)
    return folder


def run(study: str | AnyPath, compute: Compute) -> bool:
    """Run a study until its trials have ended, from wherever it stopped.

    Returns:
        Whether every trial has ended; False after an interruption or when the time was up.

    Raises:
        StudyError: Another process runs it, or its cohort has changed.
    """
    folder = as_path(study)
    record = read_study(folder)
    cohort = as_path(compute.cohort or record["cohort"])
    opened = Cohort.load(cohort)
    if opened.hash != record["cohort_hash"]:
        raise StudyError(f"{cohort} is not the cohort that {folder} was begun with. Restore it, or start anew.")
    opened.verify()
    with _lock(folder):
        sampler = Sampler(
            folder,
            name=record["name"],
            space=record["space"],
            seed=record["seed"],
            num_trials=record["num_trials"],
            views=record["recipe"]["views"],
        )
        control = StudyControl(
            sampler,
            Race(make_rules(record["race"], record["screen"], record["pool_size"])),
            num_folds=record["num_folds"],
            deadline=None if compute.hours is None else time.monotonic() + 3600 * compute.hours,
        )
        if control.num_ended == record["num_trials"] == len(list((folder / "tune").glob("trial_*"))):
            return True
        ray.init(**connection(compute.address))
        board = Board(record["num_trials"], record["num_folds"], control.num_ended, control.best_mae_months)
        control.say = board
        try:
            _fit(folder, str(cohort), record["num_trials"], compute, control)
        finally:
            ray.shutdown()
        board.close(sampler.counts())
        if control.halted:
            raise StudyError(f"{control.halted} Mend that, then go on with: python -m search resume {folder}")
        return sum(sampler.counts().values()) == record["num_trials"]


def trainable(config: dict[str, Any], *, study: str, cohort: str, num_threads: int) -> None:
    """What Tune runs in a worker: one trial, reporting after each measurement."""
    torch.set_num_threads(num_threads)
    settings = {key: value for key, value in config.items() if key != "number"}
    folder = trial_folder(as_path(study), config["number"])

    def report(item: FoldReport) -> None:
        keep_measurement(folder, item)
        tune.report(result_of(item))

    try:
        device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
        opened = Cohort.load(cohort)
        run_trial(folder, TrialConfig.from_dict(settings), opened, device=device, report=report)
        _replay_stopped_fold(folder, opened.num_folds, report)
    except (StorageError, OSError) as error:  # a full disk, a cohort out of reach: no fault of this trial
        tune.report({"halted": f"{type(error).__name__}: {error}."})
    except (TrainingError, ValueError) as error:  # the same configuration would fail again: no retry
        tune.report({"failed": str(error)})


def _replay_stopped_fold(folder: AnyPath, num_folds: int, report: Callable[[FoldReport], None]) -> None:
    """Report what a trial that has ended measured in the fold it was stopped in, so that Tune's logs hold it too."""
    folds = [read_fold(folder, fold) for fold in range(num_folds)]
    maes = tuple(fold["mae_months"] for fold in folds if fold)
    if len(maes) < num_folds:
        for measurement in read_measurements(folder, len(maes)):
            report(FoldReport(len(maes), measurement, maes, fold_finished=False, replayed=True))


def _share(compute: Compute, num_trials: int) -> tuple[int, int, float]:
    """Trials at a time, CPUs and GPUs of each.

    A cluster that has scaled to zero shows no resources, so nothing can be derived from it.

    Raises:
        StudyError: The trials cannot be placed, or it cannot be known.
    """
    cluster = ray.cluster_resources()
    have_cpus, have_gpus = int(cluster.get("CPU", 0)), cluster.get("GPU", 0.0)
    gpus = min(1.0, have_gpus) if compute.gpus_per_trial is None else compute.gpus_per_trial
    if compute.address is None and gpus > have_gpus:
        raise StudyError(f"--gpus-per-trial {gpus:g} is asked for, and this machine has {have_gpus:g} GPUs.")
    fits = int(have_gpus / gpus) if gpus else have_cpus
    if compute.concurrent is None and fits == 0:
        raise StudyError(
            "The cluster shows no machine that trials could run on; it may grow when they ask. "
            "Say how: --concurrent N --gpus-per-trial G."
        )
    concurrent = compute.concurrent or min(fits, num_trials)
    return concurrent, max(1, have_cpus // concurrent), gpus


def _fit(folder: AnyPath, cohort: str, num_trials: int, compute: Compute, control: StudyControl) -> None:
    concurrent, cpus, gpus = _share(compute, num_trials)
    _remove(folder / "tune")
    tuner = tune.Tuner(
        tune.with_resources(
            partial(trainable, study=str(folder), cohort=cohort, num_threads=cpus),
            {"cpu": cpus, "gpu": gpus},
        ),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(control),
            scheduler=RaceScheduler(control),
            num_samples=num_trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            **_storage(folder),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=0,
        ),
    )
    with _terminate_like_interrupt():
        tuner.fit()


def _storage(folder: AnyPath) -> dict[str, Any]:
    """Where Tune keeps its logs; remote ones through fsspec like everything else, not only what Arrow knows."""
    if is_local(folder):
        return {"storage_path": str(folder)}
    return {"storage_path": remote(folder).path, "storage_filesystem": PyFileSystem(FSSpecHandler(remote(folder).fs))}


def _trial_name(trial: Any) -> str:
    return f"trial_{trial.config['number']:04d}"


def _remove(folder: AnyPath) -> None:
    """Remove Tune's logs of the run before; they are replayed from the trials' folders."""
    if not folder.exists():
        return
    if is_local(folder):
        shutil.rmtree(folder)
    else:
        remote(folder).fs.rm(remote(folder).path, recursive=True)


@contextmanager
def _lock(folder: AnyPath) -> Iterator[None]:
    """Keep a second driver out; the lock ends with the process, however it ends. Object stores have none."""
    if not is_local(folder):
        yield
        return
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StudyError(f"Another process runs the study {folder}. Wait for it, or end it first.") from None
        yield


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM stops like Ctrl-C does: Tune ends its trials and saves its state."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
