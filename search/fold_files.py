"""The files that a fold leaves, and the out-of-fold table that all folds of a trial give together.

Each function takes the folder that they lie in: a trial's (see search/trial.py), or that of its further partition.
"""

import hashlib
import io
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save
from torch import nn

from preprocessing.cohort import Cohort
from preprocessing.storage import AnyPath, StorageError, read_json, sha256_file, write_atomic, write_json
from search.checkpoint import FoldCheckpoint
from search.model import BIN_MONTHS
from search.train import TrainedFold


def checkpoint_file(folder: AnyPath, fold: int) -> AnyPath:
    """Where the state of a fold in training lies."""
    return folder / f"fold_{fold}.checkpoint"


def clear_checkpoints(folder: AnyPath) -> None:
    """Remove what folds in training have left: a trial that has ended never goes on with them."""
    for path in [*folder.glob("*.checkpoint"), *folder.glob("*.attempt.json")]:
        path.unlink(missing_ok=True)


def write_weights(path: AnyPath, model: nn.Module) -> str:
    """Store a network as safetensors; returns the file's sha256."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def write_fold(folder: AnyPath, fold: int, trained: TrainedFold, cohort: Cohort) -> None:
    """Store a trained fold, its marker last."""
    table = cohort.cases.iloc[cohort.fold_rows(fold)][["case_id", "fold", "is_male", "bone_age_months"]]
    table = table.assign(
        predicted_months=(trained.probabilities_NM @ BIN_MONTHS).astype(np.float64),
        distribution=list(trained.probabilities_NM),
    )
    if trained.male_probability_N is not None:
        table["male_probability"] = trained.male_probability_N
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    weights, predictions = folder / f"fold_{fold}.safetensors", folder / f"fold_{fold}.parquet"
    weights_sha256 = write_weights(weights, trained.model)
    write_atomic(predictions, buffer.getvalue())
    record = {
        "fold": fold,
        "num_cases": len(table),
        "mae_months": trained.mae_months,
        "history": [asdict(measurement) for measurement in trained.history],
        "weights_sha256": weights_sha256,
        "predictions_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
    }
    if trained.run:
        record["run"] = asdict(trained.run)
    write_json(folder / f"fold_{fold}.json", record)
    FoldCheckpoint(checkpoint_file(folder, fold)).remove()


def read_fold(folder: AnyPath, fold: int) -> dict[str, Any] | None:
    """Record of a finished fold, or None when it is not finished."""
    path = folder / f"fold_{fold}.json"
    return read_json(path) if path.exists() else None


def finished_folds(folder: AnyPath, num_folds: int) -> dict[int, dict[str, Any]]:
    """Records of the finished folds, by fold; where folds are trained side by side, there may be gaps."""
    records = ((fold, read_fold(folder, fold)) for fold in range(num_folds))
    return {fold: record for fold, record in records if record}


def join_folds(folder: AnyPath, cohort: Cohort) -> None:
    """Write the out-of-fold table when all folds are there and it is not; who finishes the last fold, sees them all."""
    if not (folder / "oof.parquet").exists() and len(finished_folds(folder, cohort.num_folds)) == cohort.num_folds:
        write_oof(folder, cohort)


def mend_oof(folder: AnyPath, cohort: Cohort) -> bool:
    """Write the out-of-fold table anew where it cannot be read: it holds nothing that the folds' files do not.

    Returns:
        Whether that was done.

    Raises:
        StorageError: A fold's predictions are not those that its record tells.
    """
    place = folder / "oof.parquet"
    if not place.exists() or _is_table(place):
        return False
    for fold, record in finished_folds(folder, cohort.num_folds).items():
        path = folder / f"fold_{fold}.parquet"
        if not path.exists() or sha256_file(path) != record["predictions_sha256"]:
            raise StorageError(f"{place} is damaged, and {path}, which it would be made from. Restore one of them.")
    write_oof(folder, cohort)
    return True


def _is_table(path: AnyPath) -> bool:
    """Whether its last bytes, which tell where all the others belong, are those of a Parquet file; reads no more."""
    try:
        with path.open("rb") as file:
            pq.read_metadata(file)
    except (pa.ArrowInvalid, OSError):  # Arrow takes some damage for a failed reading
        return False
    return True


def write_oof(folder: AnyPath, cohort: Cohort) -> None:
    """Join the folds' predictions into the out-of-fold table."""
    parts = []
    for fold in range(cohort.num_folds):
        with (folder / f"fold_{fold}.parquet").open("rb") as file:
            parts.append(pd.read_parquet(file))
    table = pd.concat(parts).sort_values("case_id", ignore_index=True)
    expected = cohort.cases.loc[~cohort.cases["is_test"], "case_id"]
    if not table["case_id"].is_unique or set(table["case_id"]) != set(expected):
        raise StorageError(
            f"The folds of {folder} do not cover each case exactly once. Restore the trial's folder from a backup."
        )
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomic(folder / "oof.parquet", buffer.getvalue())
