"""One trial: the k folds of one configuration, and its folder.

trials/0007/config.json          the configuration, written before anything runs
trials/0007/screen.json          what a short training measured first (see search/screen.py)
trials/0007/fold_0.safetensors   weights of the model that never saw fold 0
trials/0007/fold_0.parquet       its predictions of fold 0
trials/0007/fold_0.json          measurements and hashes of both, and how it was computed; written last
trials/0007/fold_0.checkpoint    while the fold trains (see search/checkpoint.py)
trials/0007/precision.json       in which precision it trains, where that was measured (see search/precision.py)
trials/0007/oof.parquet          the out-of-fold table: one row a case, from all folds
trials/0007/outcome.json         complete, stopped or failed, and why; written last, by the driver
trials/0007/partition_1/         of a survivor, on request: the same on other folds (see search/partition.py)

Which worker trains which fold is told in search/sharing.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.cohort import Cohort
from preprocessing.storage import (
    AnyPath,
    StorageError,
    as_path,
    read_json,
)
from search.fold_files import checkpoint_file, clear_checkpoints, finished_folds, join_folds
from search.fold_files import read_fold as read_fold
from search.fold_files import write_fold as write_fold
from search.fold_files import write_oof as write_oof
from search.numerics import Numerics
from search.precision import trial_numerics
from search.screen import read_screen, run_screen
from search.space import TrialConfig
from search.train import Measurement, steps_of, train_fold

OOF_COLUMNS = ["case_id", "fold", "is_male", "bone_age_months", "predicted_months"]
"""Of the out-of-fold table, beside the distribution."""


@dataclass(frozen=True)
class FoldReport:
    """What a running trial says after each measurement."""

    fold: int
    measurement: Measurement
    fold_mae_months: tuple[float, ...]
    """MAE of each finished fold, in fold order."""
    fold_finished: bool
    """Whether this measurement was the fold's last."""
    replayed: bool
    """Whether it was read from the folder instead of trained."""
    is_screen: bool = False
    """Whether the short training before fold 0 made it; then `fold` is 0, and no fold is finished by it."""


@dataclass(frozen=True)
class FinishedTrial:
    """A complete trial, as the next stage needs it."""

    number: int
    config: TrialConfig
    folder: AnyPath
    mae_months: float
    oof: pd.DataFrame
    """case_id, fold, is_male, bone_age_months, predicted_months, distribution (240 float32); sorted by case_id. The
    last only where it was asked for."""
    fold_hashes: tuple[str, ...]
    """sha256 of each fold's weights."""
    second_oof: pd.DataFrame | None = None
    """As `oof`, of a second partition of the same cases with training seeds of its own, where the study has one."""


def trial_folder(study: AnyPath, number: int) -> AnyPath:
    """Where trial `number` of a study lives."""
    return study / "trials" / f"{number:04d}"


def partition_folder(folder: AnyPath) -> AnyPath:
    """Where the folds of a trial's second partition lie."""
    return folder / "partition_1"


def run_trial(
    folder: AnyPath,
    config: TrialConfig,
    cohort: Cohort,
    *,
    device: str = "cpu",
    begin: Callable[[int], None] = lambda fold: None,
    report: Callable[[FoldReport], None] = lambda report: None,
    screen: bool = False,
) -> None:
    """Run the folds of a trial in order, from wherever it stopped before.

    A finished fold is read, reported and not trained again; one that was interrupted goes on from its checkpoint, its
    measurements so far reported as replayed. After the last one the out-of-fold table is written. A trial that has
    ended, stopped by the race for instance, only reports the folds it has.

    Args:
        folder: The trial's folder.
        config: What to train.
        cohort: What to train on.
        device: Where.
        begin: Called before a fold but the first is trained; it does not return where another worker has that fold.
        report: Called after each measurement; it may not return, when the trial is stopped.
        screen: Whether a short training comes first (see search/screen.py).

    Raises:
        TrainingError: The configuration cannot be trained.
    """
    maes: list[float] = []
    outcome = read_json(folder / "outcome.json") if (folder / "outcome.json").exists() else None
    is_new = screen and outcome is None and read_fold(folder, 0) is None
    if is_new or read_screen(folder):
        screen_trial(folder, config, cohort, device=device, report=report)
    for fold in range(cohort.num_folds if outcome is None else len(outcome["fold_mae_months"])):
        done = read_fold(folder, fold)
        if outcome and not done:
            break

        def say(measurement: Measurement, finished: bool, replayed: bool, fold: int = fold) -> None:
            report(FoldReport(fold, measurement, tuple(maes), finished, replayed))

        if done:
            history = [Measurement(**item) for item in done["history"]]
            for measurement in history[:-1]:
                say(measurement, False, True)
        else:
            if fold:
                begin(fold)
            history = _train(folder, config, cohort, fold, device, say, folder)
        maes.append(history[-1].mae_months)
        join_folds(folder, cohort)
        say(history[-1], True, bool(done))
    if outcome:
        clear_checkpoints(folder)


def screen_trial(
    folder: AnyPath, config: TrialConfig, cohort: Cohort, *, device: str = "cpu", report: Callable[[FoldReport], None]
) -> None:
    """Run the short training of a trial, and nothing else; arguments and errors as for `run_trial`."""
    measured, is_known = run_screen(
        folder, config, cohort, device=device, numerics=lambda: _numerics(folder, config, cohort, device)
    )
    report(FoldReport(0, measured, (), False, is_known, is_screen=True))


def run_fold(
    folder: AnyPath,
    config: TrialConfig,
    cohort: Cohort,
    fold: int,
    *,
    device: str = "cpu",
    report: Callable[[FoldReport], None] = lambda report: None,
    numerics_of: AnyPath | None = None,
) -> None:
    """Run one fold of a trial, as an assistant of the worker that has the trial: `run_trial` would leave the same.

    The reports name no error of other folds. Nothing is trained, nor reported, where the trial has ended meanwhile.

    Args:
        folder: The trial's folder, or that of its second partition.
        config: What to train.
        cohort: What to train on.
        fold: Which one.
        device: Where.
        report: As for `run_trial`.
        numerics_of: Folder that says in which precision; None: `folder`.

    Raises:
        TrainingError: The fold cannot be trained.
    """
    if (folder / "outcome.json").exists():
        return
    done = read_fold(folder, fold)

    def say(measurement: Measurement, finished: bool, replayed: bool) -> None:
        report(FoldReport(fold, measurement, (), finished, replayed))

    if done:
        history = [Measurement(**item) for item in done["history"]]
    else:
        history = _train(folder, config, cohort, fold, device, say, numerics_of or folder)
    join_folds(folder, cohort)
    say(history[-1], True, bool(done))


def _train(
    folder: AnyPath,
    config: TrialConfig,
    cohort: Cohort,
    fold: int,
    device: str,
    say: Callable[[Measurement, bool, bool], None],
    numerics_of: AnyPath,
) -> list[Measurement]:
    """Train a fold and store it; its last measurement is not told yet."""
    numerics, parts = _numerics(numerics_of, config, cohort, device)
    before = finished_folds(folder, fold).values()
    trained = train_fold(
        config,
        cohort,
        fold,
        device=device,
        report=lambda m: None if m.final else say(m, False, False),
        checkpoint=checkpoint_file(folder, fold),
        replay=lambda m: say(m, False, True),
        numerics=numerics,
        parts=max([parts, *(record.get("run", {}).get("accumulate", 1) for record in before)]),
    )
    write_fold(folder, fold, trained, cohort)
    return trained.history


def _numerics(folder: AnyPath, config: TrialConfig, cohort: Cohort, device: str) -> tuple[Numerics, int]:
    steps = steps_of(config, len(cohort.train_rows(0)))
    return trial_numerics(folder, config, cohort.recipe.size, device, num_steps=steps, num_folds=cohort.num_folds)


def read_distributions(folder: AnyPath) -> np.ndarray:
    """``(C, 240)`` float32, the out-of-fold distributions of a complete trial, in the order of its table."""
    with (folder / "oof.parquet").open("rb") as file:
        column = pd.read_parquet(file, columns=["distribution"])["distribution"]
    return np.stack(column.to_list())


def read_guesses(folder: AnyPath) -> np.ndarray | None:
    """``(C,)`` float32, the probability of male that a complete trial read from each picture out of fold; None where
    its networks do not guess it. In the order of its table."""
    with (folder / "oof.parquet").open("rb") as file:
        if "male_probability" not in pq.read_schema(file).names:
            return None
    with (folder / "oof.parquet").open("rb") as file:
        return pd.read_parquet(file, columns=["male_probability"])["male_probability"].to_numpy(np.float32)


def read_study(study: str | Path | AnyPath) -> dict[str, Any]:
    """What ``study.json`` says: cohort, space, folds, seed and so on.

    Raises:
        StorageError: No study is there, or the file is none of a study.
    """
    path = as_path(study) / "study.json"
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != "carpal-study-1":
        raise StorageError(f"{path} must be the record of a study (carpal-study-1). Restore it from a backup.")
    return record


def trial_numbers(study: AnyPath) -> Iterator[int]:
    """Numbers of all trials that have a folder, in order."""
    trials = study / "trials"
    if trials.exists():
        yield from sorted(int(path.name) for path in trials.iterdir() if path.name.isdigit())


def all_outcomes(study: str | Path | AnyPath) -> list[dict[str, Any]]:
    """One dict a trial with number, config, state and what is known of its error; unfinished ones are ``running``."""
    root = as_path(study)
    outcomes = []
    for number in trial_numbers(root):
        folder = trial_folder(root, number)
        if not (folder / "config.json").exists():
            continue
        record = {"number": number, "config": read_json(folder / "config.json")["config"]}
        path = folder / "outcome.json"
        outcomes.append(record | (read_json(path) if path.exists() else {"state": "running"}))
    return outcomes


def clear_ended(study: AnyPath) -> None:
    """Remove the checkpoints of trials that have ended.

    A worker that is stopped inside a fold writes one on its way out, when the driver has closed the trial already.
    """
    for name in ("*.checkpoint", "*.attempt.json", ".*.checkpoint.*"):
        for folder in ("trials/*", "trials/*/partition_1"):
            for path in study.glob(f"{folder}/{name}"):
                if (path.parent / "outcome.json").exists():
                    path.unlink(missing_ok=True)


def finished_trials(study: str | Path | AnyPath, *, distributions: bool = True) -> list[FinishedTrial]:
    """The complete trials of a study with their checked out-of-fold tables.

    Args:
        study: Its folder, local or an fsspec URI.
        distributions: Whether to read the distributions too: of hundreds of trials they do not fit into memory.

    Raises:
        StorageError: A table is incomplete, or its predictions are not finite.
    """
    root = as_path(study)
    num_folds = read_study(root)["num_folds"]
    columns = None if distributions else OOF_COLUMNS
    trials = []
    for outcome in all_outcomes(root):
        if outcome["state"] != "complete":
            continue
        folder, config = trial_folder(root, outcome["number"]), TrialConfig.from_dict(outcome["config"])
        trial = finished_trial(folder, outcome["number"], config, num_folds, columns)
        second = partition_folder(folder)
        has_second = (second / "outcome.json").exists() and read_json(second / "outcome.json")["state"] == "complete"
        second_oof = _read_oof(second, len(trial.oof), columns) if has_second else None
        trials.append(replace(trial, mae_months=outcome["mae_months"], second_oof=second_oof))
    return trials


def finished_trial(
    folder: AnyPath, number: int, config: TrialConfig, num_folds: int, columns: list[str] | None = OOF_COLUMNS
) -> FinishedTrial:
    """A folder whose folds are all there, whatever the driver made of it.

    Args:
        folder: Of the trial.
        number: Of the trial.
        config: Of the trial.
        num_folds: Of the study.
        columns: Of the out-of-fold table; None reads all.

    Raises:
        StorageError: A fold is missing, the table is incomplete, or its predictions are not finite.
    """
    folds = [read_json(folder / f"fold_{fold}.json") for fold in range(num_folds)]
    oof = _read_oof(folder, sum(fold["num_cases"] for fold in folds), columns)
    mae = float(np.mean([fold["mae_months"] for fold in folds]))
    return FinishedTrial(number, config, folder, mae, oof, tuple(fold["weights_sha256"] for fold in folds))


def _read_oof(folder: AnyPath, num_cases: int, columns: list[str] | None) -> pd.DataFrame:
    try:
        with (folder / "oof.parquet").open("rb") as file:
            oof = pd.read_parquet(file, columns=columns)
    except pa.ArrowInvalid as error:
        raise StorageError(
            f"{folder}/oof.parquet is damaged ({error}). python -m search resume makes it anew from the trial's folds."
        ) from None
    if not oof["case_id"].is_unique or not np.isfinite(oof["predicted_months"]).all():
        raise StorageError(f"{folder}/oof.parquet is damaged. Restore the trial's folder from a backup.")
    if len(oof) != num_cases:
        raise StorageError(f"{folder}/oof.parquet lacks cases. Restore the trial's folder from a backup.")
    return oof
