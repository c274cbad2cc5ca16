"""One model of a trial from all folds: what a fold costs, served in place of the k fold models.

trials/0007/refit.safetensors   its weights
trials/0007/refit.json          measurements, hash, and what it was made from; written last
trials/0007/refit.checkpoint    while it trains

No case is left to predict out of fold. What a new case is answered with is estimated by the trial's out-of-fold
predictions, each by a model of the same configuration that learnt from one fold less.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from preprocessing.cohort import Cohort
from preprocessing.storage import canonical_hash, read_json, write_json
from search.checkpoint import FoldCheckpoint
from search.fold_files import write_weights
from search.precision import trial_numerics
from search.train import Measurement, TrainingError, steps_of, train_fold
from search.trial import FinishedTrial

WEIGHTS, RECORD, CHECKPOINT = "refit.safetensors", "refit.json", "refit.checkpoint"
MAX_RATIO = 1.25
"""Of the error on cases that it learnt from to the trial's out-of-fold error: above it, the training went wrong."""


def read_refit(trial: FinishedTrial) -> dict[str, Any] | None:
    """Record of a trial's finished refit, or None where there is none."""
    path = trial.folder / RECORD
    return read_json(path) if path.exists() else None


def refit(
    trial: FinishedTrial,
    cohort: Cohort,
    *,
    device: str = "cpu",
    report: Callable[[Measurement], None] = lambda measurement: None,
) -> dict[str, Any]:
    """Train a trial's configuration once on all folds; what is there already is left alone.

    Args:
        trial: A complete trial.
        cohort: The study's; the locked test split is not touched.
        device: ``cpu`` or a CUDA device.
        report: Called after each measurement.

    Returns:
        The record: ``weights_sha256``, ``training_mae_months`` on a sample of the cases that it learnt from,
        ``num_cases``, ``history`` and ``key``.

    Raises:
        TrainingError: The configuration cannot be trained, or it learnt less than the fold models did.
    """
    key = canonical_hash([trial.config.to_dict(), cohort.hash, "refit"])
    known = read_refit(trial)
    if known and known["key"] == key:
        return known
    rows = cohort.train_rows(None)
    checkpoint = trial.folder / CHECKPOINT
    numerics, parts = trial_numerics(
        trial.folder,
        trial.config,
        cohort.recipe.size,
        device,
        num_steps=steps_of(trial.config, len(rows)),
        num_folds=1,
    )
    trained = train_fold(
        trial.config,
        cohort,
        None,
        device=device,
        report=report,
        checkpoint=checkpoint,
        replay=report,
        numerics=numerics,
        parts=parts,
    )
    if trained.mae_months > MAX_RATIO * trial.mae_months:
        raise TrainingError(
            f"A refit must err less on cases that it learnt from than {MAX_RATIO} times the trial's out-of-fold error; "
            f"trial {trial.number}: {trained.mae_months:.2f} against {trial.mae_months:.2f} months. "
            "Serve its fold models instead."
        )
    record = {
        "key": key,
        "num_cases": len(rows),
        "training_mae_months": trained.mae_months,
        "history": [asdict(measurement) for measurement in trained.history],
        "weights_sha256": write_weights(trial.folder / WEIGHTS, trained.model),
    }
    write_json(trial.folder / RECORD, record)
    FoldCheckpoint(checkpoint).remove()
    return record
