"""Two ways of searching, held against each other: the ensemble that each makes of its trials, case by case."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble.noise import as_served, measure
from ensemble.select import Rules, select
from preprocessing.storage import read_json
from search.greedy import shares
from search.metrics import bootstrap_ci95
from search.trial import trial_folder

MEMBERS = 8
"""Of each side's ensemble where the locked test compares them."""


def predictions(study: Path, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """``(C, T)`` what trials say out of fold and ``(C,)`` the reference, in months."""
    tables = [pd.read_parquet(trial_folder(study, number) / "oof.parquet") for number in numbers]
    oof_CT = np.stack([table["predicted_months"].to_numpy(np.float64) for table in tables], axis=1)
    return oof_CT, tables[0]["bone_age_months"].to_numpy(np.float64)


def built(study: Path, numbers: Sequence[int], num_folds: int) -> dict[int, float]:
    """Weights that `python -m ensemble build --method greedy` would give to members out of these complete trials."""
    oof_CT, actual_C = predictions(study, numbers)
    error_TC = np.ascontiguousarray((oof_CT - actual_C[:, None]).T)
    noise = measure(error_TC, np.full_like(error_TC, np.nan), np.zeros(len(numbers), int))
    served_TC = as_served(error_TC, noise, num_folds)
    weights = select(served_TC, shares(None, error_TC.shape[1]), "greedy", Rules(max_members=MEMBERS))
    return {number: float(weight) for number, weight in zip(numbers, weights, strict=True) if weight}


def stock_ensemble(study: Path, finished: dict[int, list[int]]) -> dict[int, float]:
    """What a user of the stock rule would average: the trials of lowest mean error over the folds they finished.

    ASHA judges each fold as a trial of its own, so hardly a configuration keeps all its folds: there are no complete
    out-of-fold predictions to fit weights to.
    """
    maes = {
        number: np.mean([read_json(trial_folder(study, number) / f"fold_{fold}.json")["mae_months"] for fold in folds])
        for number, folds in finished.items()
    }
    best = sorted(maes, key=lambda number: maes[number])[:MEMBERS]
    return dict.fromkeys(best, 1 / len(best))


def compared(ours_SC: np.ndarray, other_SC: np.ndarray) -> dict[str, Any]:
    """Two ways' errors on the same cases, ``(S, C)`` seed by case; the interval is over cases, of the mean seed."""
    change_C = (ours_SC - other_SC).mean(axis=0)
    return {
        "ours_months": float(ours_SC.mean()),
        "other_months": float(other_SC.mean()),
        "difference_months": float(change_C.mean()),
        "ci95": bootstrap_ci95(change_C[None])[0],
        "by_seed": [round(float(value), 3) for value in (ours_SC - other_SC).mean(axis=1)],
        "n": len(change_C),
    }


def sentence(found: dict[str, Any]) -> str:
    """A comparison in words."""
    low, high = found["ci95"]
    return (
        f"{found['ours_months']:.2f} against {found['other_months']:.2f} months, {found['difference_months']:+.3f} "
        f"(95 % {low:+.3f} to {high:+.3f}, n = {found['n']}), by seed {found['by_seed']}"
    )
