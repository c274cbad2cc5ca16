"""Ray Tune: where trials run, and what a worker does with one."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "1")  # a decision per report, not per bundle of reports
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a failing trial reports its reason, no metric
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "120")  # a stopped fold leaves its checkpoint first; Tune
# fails the trial that comes after it in a worker that is not free by then

import ray
import torch
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray import tune

from preprocessing.cluster import connection
from preprocessing.cohort import Cohort
from preprocessing.storage import AnyPath, StorageError, as_path, is_local, read_json, remote, write_json
from search.adapters import RaceScheduler, RayWatch, StudySearcher
from search.control import StudyControl, result_of
from search.interrupts import heeded, ray_running
from search.limits import Limits, measure
from search.partition import on_second_partition, repartition
from search.placement import Compute as Compute
from search.placement import Share, share_out
from search.placement import StudyError as StudyError
from search.progress import SCREEN, keep_measurement, maes_in_order, read_measurements
from search.space import TrialConfig
from search.spaces import load_space, own_modules
from search.tasks import cause_of
from search.tensorboard import FoldCurves
from search.train import TrainingError
from search.trial import FoldReport, partition_folder, run_fold, run_trial, screen_trial, trial_folder

MAX_FAILURES = 6
"""How often a trial whose worker died is started again without a new measurement in between; each time it goes on from
its last checkpoint. Enough for a batch of 64 to come down to two images where the system kills for want of memory. On
machines that are taken back a long trial may lose as many workers as it likes."""

CONTEXT_BYTES = 512 * 1024**2
"""Of a GPU, about, that CUDA itself takes for each process, beside what torch counts."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker has to know."""

    study: str
    cohort: str
    """Where the study's cohort is now."""
    cohort_hash: str
    """What it must be: on the worker's machine another one may lie there, whose locked test is none of this study's."""
    space: str
    num_trials: int
    num_folds: int
    """Of each trial."""
    limits: Limits
    screen: bool
    """Whether each trial begins with a short training."""
    seed: int
    """Of the study: it draws the second partition."""


def trainable(config: dict[str, Any], *, job: Job, share: Share) -> None:
    """What Tune runs in a worker: a trial, its short training, or another worker's fold; measurements are reported."""
    try:
        _work(config, job, share)
    except Exception as error:  # of no kind that we know, from a user's own network say: Tune tries again, and forgets
        tune.report({"crashed": cause_of(error)})
        raise


def _work(config: dict[str, Any], job: Job, share: Share) -> None:
    torch.set_num_threads(share.cpus)
    try:
        load_space(job.space)  # with it, the models that a user's module registers
    except ValueError as error:  # this machine lacks what the driver had: no fault of this trial
        tune.report({"halted": str(error)})
        return
    on_gpu = bool(share.gpus and ray.get_gpu_ids())
    if on_gpu and not torch.cuda.is_available():
        sentence = "Ray gave this trial a GPU, and torch finds none: its driver or its build of torch does not fit."
        tune.report({"halted": f"{sentence} Mend them, or search with --gpus-per-trial 0."})
        return
    trial = trial_folder(as_path(job.study), config["number"])
    folder = partition_folder(trial) if config.get("is_second") else trial

    def report(item: FoldReport) -> None:
        keep_measurement(folder, item)
        tune.report(result_of(item))

    try:
        device = "cuda" if on_gpu else "cpu"
        if device == "cuda" and share.gpus < 1:  # or memory runs out here for what a neighbour took, and halves a batch
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(max(share.gpus / 2, share.gpus - CONTEXT_BYTES / total))
        opened = Cohort.load(job.cohort)
        if opened.hash != job.cohort_hash:
            raise StorageError(
                f"{job.cohort} on this machine is another cohort than the study was begun with. Restore it there."
            )
        settings = TrialConfig.from_dict(read_json(trial / "config.json")["config"])
        if config.get("is_second"):
            settings, opened = on_second_partition(settings), repartition(opened, job.seed)
        if config.get("fold", SCREEN) != SCREEN:
            run_fold(folder, settings, opened, config["fold"], device=device, report=report, numerics_of=trial)
            return
        if job.limits.any and not (folder / "outcome.json").exists():
            if not (folder / "cost.json").exists():
                cost = measure(settings, opened.recipe.size, device)
                write_json(folder / "cost.json", cost.to_dict())
            tune.report({"cost_measured": True})
            if job.limits.verdict(read_json(folder / "cost.json")):
                return
        if "fold" in config:
            screen_trial(folder, settings, opened, device=device, report=report)
            return
        run_trial(folder, settings, opened, device=device, begin=_ask, report=report, screen=job.screen)
        _replay_stopped_fold(folder, opened.num_folds, report)
    except StorageError as error:  # a cohort out of reach, the hub: no fault of this trial
        tune.report({"halted": str(error)})
    except OSError as error:  # a full disk: neither
        tune.report({"halted": f"{type(error).__name__}: {error}."})
    except (TrainingError, ValueError) as error:  # the same configuration would fail again: no retry
        tune.report({"failed": str(error)})


def _ask(fold: int) -> None:
    """Tell the driver that the trial's own worker comes to a fold; this does not return where it is an assistant's."""
    tune.report({"begins": fold})


def _replay_stopped_fold(folder: AnyPath, num_folds: int, report: Callable[[FoldReport], None]) -> None:
    """Report what a trial that has ended measured in the fold it was stopped in, so that Tune's logs hold it too."""
    maes = maes_in_order(folder, num_folds)
    if len(maes) < num_folds:
        for measurement in read_measurements(folder, len(maes)):
            report(FoldReport(len(maes), measurement, maes, fold_finished=False, replayed=True))


def fit(job: Job, compute: Compute, control: StudyControl) -> None:
    """Run the study's trials on Ray until none is left to begin, or they are interrupted.

    Raises:
        StudyError: The trials cannot be placed.
        ConnectionError: The Ray that this process started has died.
    """
    start = partial(ray.init, **connection(compute.address, modules=own_modules(job.space)))
    with ray_running(start, ray.shutdown, is_own=compute.address is None):
        _fit(job, compute, control, [RayWatch(job.study)] if compute.address is None else [])


def _fit(job: Job, compute: Compute, control: StudyControl, callbacks: list[tune.Callback]) -> None:
    folder = as_path(job.study)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    share = share_out(nodes, compute, num_folds=job.num_trials * job.num_folds)
    _remove(folder / "tune")
    tuner = tune.Tuner(
        tune.with_resources(
            partial(trainable, job=job, share=share),
            {"cpu": share.cpus, "gpu": share.gpus},
        ),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(control),
            scheduler=RaceScheduler(control),
            num_samples=-1,  # the searcher says when it has no more: assistants come on top of the trials
            max_concurrent_trials=share.concurrent,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            **_storage(folder),
            callbacks=[FoldCurves(as_path(job.study)), *callbacks],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=0,
        ),
    )
    with heeded():  # Tune leaves its own handler of SIGINT behind
        tuner.fit()


def _storage(folder: AnyPath) -> dict[str, Any]:
    """Where Tune keeps its logs; remote ones through fsspec like everything else, not only what Arrow knows."""
    if is_local(folder):
        return {"storage_path": str(folder)}
    return {"storage_path": remote(folder).path, "storage_filesystem": PyFileSystem(FSSpecHandler(remote(folder).fs))}


def _trial_name(trial: Any) -> str:
    name = f"{trial.config['number']:04d}"
    if "fold" not in trial.config:
        return f"trial_{name}"
    if trial.config["fold"] == SCREEN:
        return f"screen_{name}"
    return f"{'second' if trial.config['is_second'] else 'assistant'}_{name}_fold_{trial.config['fold']}"


def _remove(folder: AnyPath) -> None:
    """Remove Tune's logs of the run before; they are replayed from the trials' folders."""
    if not folder.exists():
        return
    if is_local(folder):
        shutil.rmtree(folder)
    else:
        remote(folder).fs.rm(remote(folder).path, recursive=True)
