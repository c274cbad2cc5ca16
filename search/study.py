"""One study: its folder, and the Ray Tune run that fills it.

study/study.json               what is searched, on which cohort, with which seed
study/segmenter.safetensors    the cohort's, where it has one: a bundle is built from the study alone
study/optuna.journal           Optuna's record
study/trials/                  one folder a trial (see search/trial.py): the truth
study/tune/                    Ray Tune's logs (TensorBoard, CSV, JSON); made anew by each run
"""

import fcntl
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Literal

from preprocessing.cohort import MARKER, Cohort
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.storage import (
    AnyPath,
    StorageError,
    as_path,
    create_object,
    is_local,
    json_bytes,
    read_json,
    write_atomic,
    write_json,
)
from search.board import Board, all_of
from search.control import StudyControl
from search.fold_files import mend_oof
from search.generations import generation_of
from search.journal import DATABASE_AWAY, url_without_password, why_not_kept
from search.limits import Limits
from search.mlflow_log import mlflow_log
from search.partition import repartition
from search.racing import Race, make_rules, race_for
from search.sampler import OBJECTIVES, Sampler, settings_of
from search.spaces import load_space
from search.trial import clear_ended, partition_folder, read_study, trial_folder, trial_numbers
from search.tuning import Compute, Job, StudyError, fit
from search.warm_start import FILE, gather
from search.weights import check_weights

MAX_SEED = 2**32


def create(
    cohort: str,
    study: str,
    *,
    space: str,
    num_trials: int,
    pool_size: int,
    seed: int,
    race: str = "auto",
    screen: bool = True,
    objective: str = "mae",
    limits: Limits | None = None,
    warm_start: Sequence[str] = (),
    storage: str = "",
    partitions: int = 1,
    deterministic: bool = False,
    weights: str = "",
) -> AnyPath:
    """Write ``study.json``.

    Args:
        cohort: Folder of the cohort.
        study: New folder.
        space: Named space or ``module:function``.
        num_trials: Configurations in all.
        pool_size: How many good trials the stopping rules keep.
        seed: Of configurations and training, 0 or more and below `MAX_SEED`.
        race: As for `search.racing.make_rules`: which folds are saved; ``auto``: by the number of folds.
        screen: Whether trials are stopped inside fold 0 too.
        objective: One of `search.sampler.OBJECTIVES`: what Optuna minimises.
        limits: What a model may cost; what costs more is not trained.
        warm_start: Folders of earlier studies.
        storage: URL of a database for Optuna's record; empty: a journal in the folder. Its password is not written.
        partitions: 2: the `pool_size` best are trained again on a second partition in the end.
        deterministic: Whether the same trial gives the same weights to the bit; see `TrialConfig.deterministic`.
        weights: Folder of files that stand in for timm's hub (see search/weights.py); empty: none does.

    Raises:
        StudyError: There is a study already, or a number is out of range.
        WarmStartError: No trial of the earlier studies can be used.
        StorageError: No complete cohort is there, no study to start from, or the folder of weights lacks what the space
            needs; then nothing was written.
    """
    folder, cohort_path = as_path(study), as_path(cohort)
    if (folder / "study.json").exists():
        raise _is_taken(folder)
    for option, value in (("--trials", num_trials), ("--pool", pool_size)):
        if value < 1:
            raise StudyError(f"{option} must be 1 or more, got {value}.")
    if not 0 <= seed < MAX_SEED:  # seeds of trials and folds are made of it, and torch takes 64 bits
        raise StudyError(f"--seed must lie within 0 to {MAX_SEED - 1}, got {seed}.")
    _check_partitions(partitions)
    load_space(space)  # an unknown space fails here, before a folder is made
    if objective not in OBJECTIVES:
        raise StudyError(f"--objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}.")
    about = read_json(cohort_path / MARKER)
    race = race_for(race, about["num_folds"])
    make_rules(race, screen, pool_size)
    recipe = Recipe.from_dict(about["recipe"])
    weights = _checked(weights, space, recipe.views)
    limits = limits or Limits()
    warm = gather(
        warm_start,
        lambda trial: settings_of(load_space(space), recipe.views, trial, weights=weights),
        recipe.views,
        about["hash"],
        pool_size,
        limits=limits,
    )
    record = {
        "format": "carpal-study-1",
        "name": f"{space}-{uuid.uuid4().hex[:12]}",  # unique in a database that holds many studies
        "cohort": str(cohort_path),
        "cohort_hash": about["hash"],
        "recipe": recipe.to_dict(),
        "recipe_hash": about["recipe_hash"],
        "num_folds": about["num_folds"],
        "space": space,
        "num_trials": num_trials,
        "pool_size": pool_size,
        "partitions": partitions,
        "race": race,
        "screen": screen,
        "objective": objective,
        "limits": asdict(limits),
        "warm_start": [str(as_path(source)) for source in warm_start],
        "storage": url_without_password(storage)[0] if storage else "",
        "seed": seed,
        "deterministic": deterministic,
        "weights": weights,
    }
    with _beginning(folder):
        if recipe.segmenter:
            write_atomic(folder / SEGMENTER, (cohort_path / SEGMENTER).read_bytes())
        if warm_start:
            write_json(folder / FILE, warm.to_dict())
        if is_local(folder):
            write_json(folder / "study.json", record)
        elif not create_object(folder / "study.json", json_bytes(record)):
            raise _is_taken(folder)
    return folder


def _checked(weights: str, space: str, views: Sequence[str]) -> str:
    """The folder that stands in for timm's hub by its whole path, with all in it that the space needs."""
    if not weights:
        return ""
    check_weights(weights, lambda trial: settings_of(load_space(space), views, trial))
    return str(as_path(weights))


def _is_taken(folder: AnyPath) -> StudyError:
    return StudyError(f"{folder} holds a study already. Go on with: python -m search resume {folder}")


@contextmanager
def _beginning(folder: AnyPath) -> Iterator[None]:
    """Let one process at a time begin a study in a local folder; whoever comes second finds it there.

    The lock is not that of `run`: a second one that looks would keep the first from its run.
    """
    if not is_local(folder):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".begin.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if (folder / "study.json").exists():
            raise _is_taken(folder)
        yield


def _check_partitions(partitions: int | None) -> None:
    if partitions not in (None, 1, 2):
        raise StudyError(f"--partitions must be 1 or 2, got {partitions}.")


Ending = Literal["complete", "out of time", "interrupted"]


def run(study: str | AnyPath, compute: Compute, *, partitions: int | None = None, weights: str | None = None) -> Ending:
    """Run a study until its trials have ended, from wherever it stopped.

    Args:
        study: Its folder.
        compute: Where it runs.
        partitions: As for `create`, for this run; None: as the study was begun.
        weights: As for `create`, from now on: trials that have not trained yet take them too; None: as before.

    Returns:
        Whether every trial has ended, or why not.

    Raises:
        StudyError: Another process runs it, its cohort has changed, its record cannot be kept, or there are no so many
            partitions.
        StorageError: The folder of weights lacks what the space needs.
    """
    _check_partitions(partitions)
    folder = as_path(study)
    record = read_study(folder)
    cohort = as_path(compute.cohort or record["cohort"])
    opened = _opened(cohort, folder)
    if opened.hash != record["cohort_hash"]:
        raise StudyError(
            f"{cohort} is not the cohort that {folder} was begun with. Restore it, name where that is now with "
            "--cohort, or start anew."
        )
    opened.verify()
    storage = compute.storage or record["storage"]
    if storage and url_without_password(storage)[0] != record["storage"]:
        raise StudyError(f"--storage must be {record['storage'] or 'left out'}: the study {folder} was begun there.")
    limits = Limits(**record["limits"])
    deadline = None if compute.hours is None else time.monotonic() + 3600 * compute.hours
    with _lock(folder), _record_kept(folder):
        clear_ended(folder)
        if weights and str(as_path(weights)) != record.get("weights"):
            record["weights"] = _checked(weights, record["space"], record["recipe"]["views"])
            write_json(folder / "study.json", record)
        _mend_tables(folder, opened, record["seed"])
        sampler = Sampler(
            folder,
            name=record["name"],
            space=record["space"],
            seed=record["seed"],
            num_trials=record["num_trials"],
            views=record["recipe"]["views"],
            objective=record["objective"],
            limits=limits,
            storage=storage,
            deterministic=record.get("deterministic", False),
            weights=record.get("weights", ""),
        )
        control = StudyControl(
            sampler,
            Race(make_rules(record["race"], record["screen"], record["pool_size"])),
            num_folds=record["num_folds"],
            generation=generation_of(record["num_trials"]) if record["screen"] else 0,
            num_second=record["pool_size"] if (partitions or record.get("partitions", 1)) == 2 else 0,
            deadline=deadline,
        )
        if control.is_complete and record["num_trials"] == len(list((folder / "tune").glob("trial_*/params.json"))):
            return "complete"
        board = Board(
            record["num_trials"],
            record["num_folds"],
            control.num_ended,
            control.best_mae_months,
            str(folder),
            has_screens=record["screen"],
            images_before=control.images_of_open(),
            deadline=deadline,
        )
        control.say = all_of(board, mlflow_log(folder))
        job = Job(
            study=str(folder),
            cohort=str(cohort),
            cohort_hash=record["cohort_hash"],
            space=record["space"],
            num_trials=record["num_trials"],
            num_folds=record["num_folds"],
            limits=limits,
            screen=record["screen"],
            seed=record["seed"],
        )
        fit(job, compute, control)
        clear_ended(folder)
        if control.halted:  # before the account: a database that is away, say, would refuse that too
            raise StudyError(f"{control.halted} {_go_on(folder)}")
        board.close(sampler.counts())
        if control.is_complete:
            return "complete"
        return "out of time" if control.is_out_of_time else "interrupted"


def _go_on(folder: AnyPath) -> str:
    return f"Mend that, then go on with: python -m search resume {folder}"


def _mend_tables(folder: AnyPath, cohort: Cohort, seed: int) -> None:
    """Make out-of-fold tables anew that a disk or a copy has cut short; a trial that has ended is not trained again."""
    second = repartition(cohort, seed)
    for trial in (trial_folder(folder, number) for number in trial_numbers(folder)):
        for place, folds in ((trial, cohort), (partition_folder(trial), second)):
            if mend_oof(place, folds):
                print(f"search: {place}/oof.parquet was damaged and is made anew from its folds", file=sys.stderr)


def _opened(cohort: AnyPath, folder: AnyPath) -> Cohort:
    try:
        return Cohort.load(cohort)
    except StorageError as error:
        if (cohort / MARKER).exists():
            raise
        moved = f"If it was moved: python -m search resume {folder} --cohort FOLDER"
        raise StudyError(f"{error} It is the study's cohort. {moved}") from None


@contextmanager
def _record_kept(folder: AnyPath) -> Iterator[None]:
    """A database may go away at any moment, also while the study is opened or closed."""
    try:
        yield
    except DATABASE_AWAY as error:
        raise StudyError(f"{why_not_kept(error)} {_go_on(folder)}") from error


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
