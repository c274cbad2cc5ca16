"""What a study's trials measured as they learnt, and what they cost, in image passes.

An image pass is one training picture seen once: unlike seconds, it is the same on every machine.
"""

from typing import Any

import pandas as pd

from preprocessing.storage import AnyPath, as_path, read_json
from search.space import TrialConfig
from search.trial import read_fold, trial_folder

CURVE_COLUMNS = ["number", "fold", "epoch", "images_seen", "train_loss", "mae_months", "final"]


def learning_curves(study: AnyPath, outcomes: list[dict[str, Any]], num_folds: int) -> pd.DataFrame:
    """Every measurement of every fold, finished or not: one row each, with `CURVE_COLUMNS`."""
    rows = []
    for outcome in outcomes:
        folder = trial_folder(as_path(study), outcome["number"])
        for fold in range(num_folds):
            for item in _history(folder, fold):
                rows.append({"number": outcome["number"], "fold": fold, **item})
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def account(outcomes: list[dict[str, Any]], curves: pd.DataFrame, num_folds: int) -> pd.DataFrame:
    """What each trial cost, and what it would cost in full k-fold cross-validation.

    Args:
        outcomes: From `search.trial.all_outcomes`.
        curves: From `learning_curves`.
        num_folds: Of the study.

    Returns:
        number, state, spent (image passes), full (the same configuration trained on every fold; missing where nothing
        was measured yet, so that the size of a pass is unknown), saved (full - spent of an ended trial that is not
        complete, else 0).
    """
    train_cases = _train_cases(curves)
    rows = []
    for outcome in outcomes:
        config = TrialConfig.from_dict(outcome["config"])
        own = curves[curves["number"] == outcome["number"]]
        spent = outcome.get("images_seen") or int(own.groupby("fold")["images_seen"].max().sum())
        finished = own.loc[own["final"].astype(bool), "images_seen"]
        if len(finished):
            full = round(float(finished.mean()) * num_folds)
        elif train_cases:
            full = num_folds * planned(config, train_cases)
        else:
            full = None
        is_over = outcome["state"] in ("stopped", "failed")
        saved = max(0, full - spent) if is_over and full is not None else 0
        rows.append((outcome["number"], outcome["state"], spent, full, saved))
    table = pd.DataFrame(rows, columns=["number", "state", "spent", "full", "saved"])
    return table.astype({"full": "Int64"})


def planned(config: TrialConfig, train_cases: int) -> int:
    """Image passes of one fold that is trained to its end, up to an incomplete last batch."""
    return min(config.epochs * train_cases, config.max_images_seen)


def _train_cases(curves: pd.DataFrame) -> int:
    """Training cases of a fold, which an epoch passes over; 0 while nothing was measured."""
    known = curves[curves["epoch"] > 0]
    return round(float((known["images_seen"] / known["epoch"]).median())) if len(known) else 0


def _history(folder: AnyPath, fold: int) -> list[dict[str, Any]]:
    """Measurements of a fold: of its record when it is finished, else those kept while it runs."""
    if done := read_fold(folder, fold):
        return list(done["history"])
    path = folder / f"fold_{fold}.measured.json"
    return list(read_json(path)["history"]) if path.exists() else []
