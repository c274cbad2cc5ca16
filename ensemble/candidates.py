"""The candidates of an ensemble: the complete trials of one study or of several on the same cohort.

Shape letters: C cases, T candidates.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preprocessing.storage import AnyPath, as_path
from search.partition import second_predictions
from search.trial import FinishedTrial, all_outcomes, finished_trials, read_study

_KEYS = ["case_id", "fold", "bone_age_months"]


class CombineError(ValueError):
    """The studies cannot be made into an ensemble."""


@dataclass(frozen=True)
class Study:
    """A study that candidates come from."""

    folder: AnyPath
    about: dict[str, Any]
    """``study.json``."""

    @property
    def name(self) -> str:
        """Unique among studies."""
        return str(self.about["name"])


@dataclass(frozen=True)
class Candidate:
    """A complete trial and where it comes from."""

    study: int
    """Place of its study among the studies."""
    study_name: str
    trial: FinishedTrial


@dataclass(frozen=True)
class Candidates:
    """What members are chosen from."""

    studies: tuple[Study, ...]
    trials: tuple[Candidate, ...]
    """By study and number."""
    cases: pd.DataFrame
    """case_id, fold, is_male, bone_age_months; sorted by case_id, without the locked test."""
    error_TC: np.ndarray
    """``(T, C)`` float64 signed out-of-fold errors in months."""
    second_error_TC: np.ndarray
    """``(T, C)`` the same on the studies' second partition; NaN where there is none; see `search.partition`."""

    @property
    def study_T(self) -> np.ndarray:
        """``(T,)`` place of each candidate's study among the studies."""
        return np.array([candidate.study for candidate in self.trials])

    @property
    def num_folds(self) -> int:
        """k, of the cohort and so of every study."""
        return int(self.studies[0].about["num_folds"])

    @property
    def actual_C(self) -> np.ndarray:
        """``(C,)`` reference bone age, in months."""
        return self.cases["bone_age_months"].to_numpy(np.float64)


def gather(*studies: str | Path | AnyPath) -> Candidates:
    """Read the complete trials of studies; the locked test is not touched.

    Args:
        studies: Folders of studies on the same cohort, local or fsspec URIs.

    Raises:
        CombineError: No trial is complete, a study is named twice, or studies or trials are not of the same cases.
        StorageError: A folder is no study, or a table is damaged.
    """
    opened = [Study(folder, read_study(folder)) for folder in map(as_path, studies)]
    first = opened[0]
    for index, study in enumerate(opened):
        if study.about["cohort_hash"] != first.about["cohort_hash"]:
            raise CombineError(
                f"All studies must be on the same cohort; {first.folder} ({first.name}) is on "
                f"{first.about['cohort_hash'][:12]}, {study.folder} ({study.name}) on "
                f"{study.about['cohort_hash'][:12]}. Combine them one by one, or search again on one cohort."
            )
        if study.name in [other.name for other in opened[:index]]:
            raise CombineError(f"Each study must be named once; {study.folder} is {study.name} again. Name it once.")
    trials = [
        Candidate(index, study.name, trial)
        for index, study in enumerate(opened)
        for trial in finished_trials(study.folder, distributions=False)
    ]
    if not trials:
        raise CombineError(_no_trial(opened))
    cases = trials[0].trial.oof
    for candidate in trials[1:]:
        if not candidate.trial.oof[_KEYS].equals(cases[_KEYS]):
            raise CombineError(
                f"All trials must predict the same cases in the same folds; {candidate.trial.folder} differs from "
                f"{trials[0].trial.folder}. Remove that folder and resume its study."
            )
    predicted_TC = np.stack([candidate.trial.oof["predicted_months"].to_numpy(np.float64) for candidate in trials])
    second_TC = np.stack(
        [second_predictions(c.trial.folder, cases["case_id"], int(first.about["num_folds"])) for c in trials]
    )
    actual_C = cases["bone_age_months"].to_numpy(np.float64)
    cases = cases.drop(columns="predicted_months")
    return Candidates(tuple(opened), tuple(trials), cases, predicted_TC - actual_C, second_TC - actual_C)


def _no_trial(studies: list[Study]) -> str:
    outcomes = [outcome for study in studies for outcome in all_outcomes(study.folder)]
    counts = Counter(outcome["state"] for outcome in outcomes)
    states = ", ".join(f"{counts[state]} {state}" for state in ("complete", "stopped", "failed", "running"))
    names = " and ".join(str(study.folder) for study in studies)
    sentence = f"An ensemble needs 1 complete trial or more; {names} has {states}."
    if counts["running"] or not outcomes:
        return f"{sentence} Let it end with: python -m search resume {studies[0].folder}"
    reason = next(outcome["reason"] for outcome in outcomes if outcome.get("reason"))
    return f"{sentence} The first reason given: {reason} Search again with more trials or another space."
