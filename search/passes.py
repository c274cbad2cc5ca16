"""What a study's trials measured as they learnt, and what they cost, in image passes.

An image pass is one training picture seen once: unlike seconds, it is the same on every machine.
"""

from dataclasses import asdict, fields
from typing import Any

import pandas as pd

from preprocessing.storage import AnyPath, as_path
from search.progress import read_measurements
from search.space import TrialConfig
from search.train import Measurement
from search.trial import trial_folder

COMPARED = ("complete", "stopped")
"""States of the trials that are held against full cross-validation: the others have no end to compare."""


def learning_curves(study: AnyPath, outcomes: list[dict[str, Any]], num_folds: int) -> pd.DataFrame:
    """Every measurement of every fold, finished or not: one row each with number, fold and a `Measurement`."""
    rows = []
    for outcome in outcomes:
        folder = trial_folder(as_path(study), outcome["number"])
        for fold in range(num_folds):
            for item in read_measurements(folder, fold):
                rows.append({"number": outcome["number"], "fold": fold, **asdict(item)})
    return pd.DataFrame(rows, columns=["number", "fold", *(field.name for field in fields(Measurement))])


def account(outcomes: list[dict[str, Any]], curves: pd.DataFrame, num_folds: int) -> pd.DataFrame:
    """What each trial cost, and what it would cost in full k-fold cross-validation.

    Args:
        outcomes: From `search.trial.all_outcomes`.
        curves: From `learning_curves`.
        num_folds: Of the study.

    Returns:
        number, state, spent (image passes), full (the same configuration trained on every fold; missing where nothing
        was measured yet, so that the size of a pass is unknown), saved (full - spent of a stopped trial, and of a
        complete one, where it is below 0 by what its short training took; else 0: a failure saves nothing).
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
            full = num_folds * config.planned_images(train_cases)
        else:
            full = None
        saved = full - spent if outcome["state"] in COMPARED and full is not None else 0
        rows.append((outcome["number"], outcome["state"], spent, full, saved))
    table = pd.DataFrame(rows, columns=["number", "state", "spent", "full", "saved"])
    return table.astype({"full": "Int64"})


def _train_cases(curves: pd.DataFrame) -> int:
    """Training cases of a fold, which an epoch passes over; 0 while nothing was measured."""
    known = curves[curves["epoch"] > 0]
    return round(float((known["images_seen"] / known["epoch"]).median())) if len(known) else 0
