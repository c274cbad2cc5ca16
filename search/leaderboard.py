"""Trials ranked by their out-of-fold error, with the uncertainty of the ranking, and cases worth a look.

Shape letters: C cases, T trials.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from search.metrics import bootstrap_ci95
from search.trial import FinishedTrial


def ranked(trials: Sequence[FinishedTrial]) -> pd.DataFrame:
    """Complete trials, best first, by the error over all out-of-fold cases.

    All trials are measured on the same resamples of the same cases, so ``behind`` is a paired difference: where its
    interval holds 0, the data do not tell a trial from the best one.

    Returns:
        number, mae_months, mae_low, mae_high, behind_months, behind_low, behind_high; 95 % percentile intervals.
    """
    columns = ["number", "mae_months", "mae_low", "mae_high", "behind_months", "behind_low", "behind_high"]
    if not trials:
        return pd.DataFrame(columns=columns)
    absolute_TC = np.abs(np.stack([_errors(trial.oof) for trial in trials]))
    mae_T = absolute_TC.mean(axis=1)
    behind_TC = absolute_TC - absolute_TC[mae_T.argmin()]
    intervals = np.array(bootstrap_ci95(np.concatenate([absolute_TC, behind_TC])))
    own, behind = intervals[: len(trials)], intervals[len(trials) :]
    numbers = [trial.number for trial in trials]
    values = [numbers, mae_T, own[:, 0], own[:, 1], behind_TC.mean(axis=1), behind[:, 0], behind[:, 1]]
    table = pd.DataFrame(dict(zip(columns, values, strict=True)))
    return table.sort_values(["mae_months", "number"], ignore_index=True)


def second_partition(trials: Sequence[FinishedTrial]) -> tuple[pd.DataFrame, dict[str, float]]:
    """The survivors on their second partition, and by how much the first, on which they were selected, flatters them.

    Args:
        trials: Complete trials; those without a second partition are left out.

    Returns:
        One row a trial, best on the first partition first: number, first_months, second_months, second_low,
        second_high (mean absolute error, 95 % percentile interval). And over all of them: first_months, second_months
        and flattery_months (second - first) with its low and high, paired on the same resamples of the same cases;
        empty where no trial has a second partition.
    """
    columns = ["number", "first_months", "second_months", "second_low", "second_high"]
    found = [(trial, trial.second_oof) for trial in trials if trial.second_oof is not None]
    if not found:
        return pd.DataFrame(columns=columns), {}
    first_TC = np.abs(np.stack([_errors(trial.oof) for trial, _ in found]))
    second_TC = np.abs(np.stack([_errors(second) for _, second in found]))
    flattery_C = (second_TC - first_TC).mean(axis=0)
    *own, (low, high) = bootstrap_ci95(np.concatenate([second_TC, flattery_C[None]]))
    rows = [
        (trial.number, float(first_C.mean()), float(second_C.mean()), *interval)
        for (trial, _), first_C, second_C, interval in zip(found, first_TC, second_TC, own, strict=True)
    ]
    table = pd.DataFrame(rows, columns=columns).sort_values(["first_months", "number"], ignore_index=True)
    means = {"first_months": float(first_TC.mean()), "second_months": float(second_TC.mean())}
    return table, means | {"flattery_months": float(flattery_C.mean()), "low": low, "high": high}


def error_correlation(trials: Sequence[FinishedTrial]) -> pd.DataFrame:
    """Pearson correlation of the trials' signed out-of-fold errors: trials that err alike add little to an ensemble."""
    numbers = [trial.number for trial in trials]
    errors_TC = np.stack([_errors(trial.oof) for trial in trials])
    return pd.DataFrame(np.corrcoef(errors_TC).reshape(len(numbers), -1), index=numbers, columns=numbers)


def worst_cases(best: FinishedTrial, trials: Sequence[FinishedTrial], count: int) -> list[dict[str, Any]]:
    """Cases of the largest errors of the best trial, with what the complete trials say in the middle.

    Where all of them err alike, the picture or its label is odd; where only one does, the trial is.
    """
    middle = np.median(np.stack([trial.oof["predicted_months"] for trial in trials]), axis=0)
    table = best.oof.drop(columns="distribution").assign(error=_errors(best.oof), median_of_trials=middle)
    largest = table["error"].abs().sort_values(ascending=False, kind="stable").index[:count]
    return [dict(zip(table.columns, row, strict=True)) for row in table.loc[largest].itertuples(index=False, name=None)]


def searched_settings(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the settings that differ between trials, the seed aside."""
    if not configs:
        return []
    names = [name for name in configs[0] if name != "seed"]
    return [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]


def _errors(oof: pd.DataFrame) -> np.ndarray:
    return (oof["predicted_months"] - oof["bone_age_months"]).to_numpy(float)
