"""An objective for members of an ensemble: a trial's error less what it adds to the other trials.

Shape letters: C cases, T trials.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from preprocessing.storage import AnyPath
from search.greedy import greedy
from search.trial import trial_folder

MAX_PICKS = 20
"""Of the greedy ensemble; weights are multiples of a twentieth or coarser."""
SHARES = np.arange(0.05, 1.0, 0.05)
"""Weights that are tried for the new trial."""


def value_of(predicted_C: np.ndarray, others: Mapping[int, np.ndarray], actual_C: np.ndarray) -> tuple[float, dict]:
    """What Optuna is told of a complete trial under ``--objective diversity``, to be minimised.

    With E the greedy ensemble of the trials that were complete before, x the trial, and MAE out of fold,

        value = MAE(x) - gain,   gain = min(MAE(E), MAE(x)) - min over w of MAE((1 - w) E + w x),  w in `SHARES`, 0 or 1

    The gain is what the two reach together beyond the better of them: it is never negative, near 0 for a trial that
    errs as the ensemble does or far worse, and some months for one that errs elsewhere. Taken against the ensemble
    alone it would reward whatever came early; the trial's own error keeps early and late values comparable. The first
    trial's gain is 0.

    Args:
        predicted_C: ``(C,)`` the trial's out-of-fold predictions, in months.
        others: The same of the trials complete before, by number.
        actual_C: ``(C,)`` reference, in months.

    Returns:
        The value in months, and the weights of E by trial number: with both, anyone can compute it again from the
        trials' tables.
    """
    own = float(np.abs(predicted_C - actual_C).mean())
    if not others:
        return own, {}
    numbers = sorted(others)
    predicted_TC = np.stack([others[number] for number in numbers])
    weights = greedy(predicted_TC.T, actual_C, max_picks=MAX_PICKS)
    ensemble = weights @ predicted_TC
    reached = float(np.abs(ensemble - actual_C).mean())
    mixed = [float(np.abs((1 - w) * ensemble + w * predicted_C - actual_C).mean()) for w in SHARES]
    gain = min(reached, own) - min(reached, own, *mixed)
    return own - gain, {str(n): float(w) for n, w in zip(numbers, weights, strict=True) if w}


class Diversity:
    """Values complete trials of one study, reading each table once."""

    def __init__(self, study: AnyPath) -> None:
        self._study = study
        self._predicted: dict[int, np.ndarray] = {}

    def __call__(self, number: int, before: list[int]) -> tuple[float, dict[str, float]]:
        """Value of a trial whose table is complete, and the ensemble it was measured against; see `value_of`.

        Args:
            number: The trial.
            before: The trials that were complete when it ended.
        """
        actual_C = np.empty(0)
        for each in {number, *before} - set(self._predicted) | {number}:
            with (trial_folder(self._study, each) / "oof.parquet").open("rb") as file:
                table = pd.read_parquet(file, columns=["bone_age_months", "predicted_months"])
            self._predicted[each] = table["predicted_months"].to_numpy(np.float64)
            actual_C = table["bone_age_months"].to_numpy(np.float64)
        others = {each: self._predicted[each] for each in before if each != number}
        return value_of(self._predicted[number], others, actual_C)
