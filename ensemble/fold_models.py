"""The fold models of an ensemble, asked about pictures before there is a bundle.

Shape letters: E members, K folds, N pictures, S side, M monthly bins.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble.ambiguity import FoldAnswers, kept
from ensemble.bundle import copy_checked
from ensemble.candidates import Candidate
from ensemble.combination import Combination
from ensemble.correction import NO_CORRECTION
from ensemble.locked import unlabelled
from ensemble.robust import combine_members
from ensemble.views import see
from preprocessing.cohort import Cohort
from search.metrics import rounded
from search.model import load_model, sex_codes
from search.months import NUM_BINS
from search.predict import predict

AS_SERVED = (
    "The same with each member as the mean of its fold models: an estimate, smaller in the proportion of the root mean "
    "square error, by what these stray from their mean on pictures of the locked test, no reference read; how well "
    "these tell it is not part of the interval."
)
MIN_PICTURES, MAX_PICTURES = 30, 200
"""Of 30 pictures the ambiguity is off by a quarter (1 sd), and the width of an interval by 1 to 2 %; of 200 by half a
percent, which more would not be worth their time."""


def summed(
    member: Candidate, fold: int, pictures_NSS: np.ndarray, sex_N: np.ndarray, views: Sequence[str], device: str
) -> np.ndarray:
    """What the model of one fold says of pictures, summed over views of them.

    Args:
        member: The trial.
        fold: Whose model is asked.
        pictures_NSS: ``(N, S, S)`` uint8, the trial's own view of the cases.
        sex_N: ``(N,)`` float32 codes.
        views: Test-time views; see `ensemble.views`.
        device: ``cpu`` or a CUDA device.

    Returns:
        ``(N, 240)`` float64.

    Raises:
        BundleError: The weight file is not what its fold recorded.
    """
    trial = member.trial
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"fold_{fold}.safetensors"
        copy_checked(trial.folder / weights.name, weights, trial.fold_hashes[fold])
        model = load_model(weights, trial.config, device)
    pictures, every = torch.from_numpy(np.ascontiguousarray(pictures_NSS)), np.arange(len(pictures_NSS))
    said_NM = np.zeros((len(pictures_NSS), 240))
    for view in views:
        said_NM += predict(model, see(pictures, view).numpy(), sex_N, every, device)
    return said_NM


def with_fold_answers(
    combination: Combination,
    cohort: Cohort,
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Combination:
    """Ask every fold model of an ensemble about pictures of the locked test, with the views that will be served.

    Args:
        combination: Whose members are served as fold models; with its views and its student, where it has them.
        cohort: The one of its studies; no reference of the locked test is read.
        device: ``cpu`` or a CUDA device.
        progress: Called with the fold models done and in all.

    Returns:
        The same with the answers by profile, and with BBC-CV as served in its evidence; without both where the locked
        test has fewer than `MIN_PICTURES`.

    Raises:
        CombineError: The cohort is another one.
        StorageError: It was changed after it was prepared.
        BundleError: A weight file is not what its fold recorded.
    """
    assert combination.fitted == "folds", "a refitted member is one model"
    combination.check_cohort(cohort)
    rows = unlabelled(cohort, MAX_PICTURES)
    if len(rows) < MIN_PICTURES:
        return combination
    is_male_N = cohort.cases["is_male"].to_numpy(bool)[rows]
    sex_N = sex_codes(is_male_N)
    profiles, members = combination.profiles(), combination.members
    if len(profiles["full"]["weights"]) > len(members) and combination.student:
        members.append(combination.student)
    said_EKNM = np.empty((len(members), cohort.num_folds, len(rows), NUM_BINS))
    for index, member in enumerate(members):
        pictures_NSS = cohort.view(member.trial.config.view)[rows]
        for fold in range(cohort.num_folds):
            said_NM = summed(member, fold, pictures_NSS, sex_N, combination.views, device)
            said_EKNM[index, fold] = said_NM / len(combination.views)
            progress(index * cohort.num_folds + fold + 1, said_EKNM.shape[0] * said_EKNM.shape[1])
    found = {}
    for name, profile in profiles.items():
        weights_E = np.array(profile["weights"])
        folds = (
            combine_members(said_ENM, weights_E, combination.combination)[1] for said_ENM in said_EKNM.swapaxes(0, 1)
        )
        found[name] = FoldAnswers(np.stack(list(folds)), is_male_N)
    evidence = combination.evidence | _as_served(combination, found["full"])
    return replace(combination, fold_answers=found, evidence=evidence)


def _as_served(combination: Combination, found: FoldAnswers) -> dict[str, Any]:
    """BBC-CV restated for the mean of fold models, where a second partition has not done so already.

    With views there is none: it speaks of the picture alone.
    """
    evidence, said = combination.evidence, combination.out_of_fold
    score = evidence["bias_corrected_mae_months"]
    if score is None or "as_served_mae_months" in evidence or len(combination.views) > 1:
        return {}
    share = kept(said["actual_C"] - said["months_C"], found.ambiguity(NO_CORRECTION.months))
    ends = [rounded(share * bound) for bound in score["ci95"]]
    return {
        "as_served_mae_months": {**score, "value": rounded(share * score["value"]), "ci95": ends, "note": AS_SERVED}
    }
