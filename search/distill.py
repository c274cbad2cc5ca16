"""One small network taught by an ensemble: it learns the labels and, beside them, what the ensemble says of each case.

study/distilled/0123456789ab/   a trial's folder, named by what it was trained with: folds, out-of-fold table

What the ensemble says is out of fold: on cases that it learnt from it would say the label again. The fold models of the
teacher did see the labels of the fold that a student is measured on, when they spoke of the others, and a trace of that
may pass on: the locked test says what it is worth.
Source: Hinton et al., "Distilling the knowledge in a neural network", 2015.
"""

import hashlib
from collections.abc import Callable

import numpy as np

from preprocessing.cohort import Cohort
from preprocessing.storage import AnyPath, canonical_hash, write_json
from search.fold_files import checkpoint_file, clear_checkpoints, join_folds, read_fold, write_fold
from search.months import NUM_BINS
from search.precision import trial_numerics
from search.space import TrialConfig
from search.train import Measurement, steps_of, train_fold
from search.trial import FinishedTrial, finished_trial


def distill(
    study: AnyPath,
    config: TrialConfig,
    cohort: Cohort,
    teacher_NM: np.ndarray,
    *,
    number: int,
    device: str = "cpu",
    report: Callable[[int, Measurement], None] = lambda fold, measurement: None,
) -> FinishedTrial:
    """Train a configuration fold by fold with a teacher; folds that are there already are left alone.

    Args:
        study: Folder of the study, which gets the result.
        config: Of the student.
        cohort: The study's; the locked test split is not touched.
        teacher_NM: ``(N, 240)`` distributions, one a case of the cohort in its order; those of the locked test are not
            looked at.
        number: Of the trial that has this configuration.
        device: ``cpu`` or a CUDA device.
        report: Called with the fold after each measurement.

    Raises:
        TrainingError: The configuration cannot be trained.
        ValueError: The teacher does not say a distribution of every training case.
    """
    teacher_NM = np.ascontiguousarray(teacher_NM, np.float32)
    rows = cohort.train_rows(None)
    said_NM = teacher_NM[rows] if teacher_NM.shape == (len(cohort.cases), NUM_BINS) else np.empty((0, NUM_BINS))
    if not len(said_NM) or not (said_NM >= 0).all() or not np.allclose(said_NM.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            f"A teacher must say a distribution over {NUM_BINS} months of every case, got {teacher_NM.shape}."
        )
    digest = hashlib.sha256(said_NM.tobytes()).hexdigest()
    folder = study / "distilled" / canonical_hash([config.to_dict(), cohort.hash, digest])[:12]
    write_json(folder / "config.json", {"number": number, "config": config.to_dict(), "teacher_sha256": digest})
    numerics, parts = trial_numerics(
        folder,
        config,
        cohort.recipe.size,
        device,
        num_steps=steps_of(config, len(cohort.train_rows(0))),
        num_folds=cohort.num_folds,
    )
    for fold in range(cohort.num_folds):
        if read_fold(folder, fold):
            continue

        def say(measurement: Measurement, fold: int = fold) -> None:
            report(fold, measurement)

        trained = train_fold(
            config,
            cohort,
            fold,
            device=device,
            report=say,
            replay=say,
            checkpoint=checkpoint_file(folder, fold),
            numerics=numerics,
            parts=parts,
            teacher_NM=teacher_NM,
        )
        write_fold(folder, fold, trained, cohort)
    join_folds(folder, cohort)
    clear_checkpoints(folder)
    return finished_trial(folder, number, config, cohort.num_folds)
