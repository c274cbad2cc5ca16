"""What an ensemble, or one member of it, says of each case out of fold: for whoever calibrates or watches it.

Shape letters: C cases, M members, B monthly bins.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.candidates import Candidate, Candidates
from ensemble.robust import combine_members
from search.months import BIN_MONTHS
from search.trial import read_distributions, read_guesses


def distributions(members: Sequence[Candidate]) -> np.ndarray:
    """``(M, C, 240)`` float64, what each member says out of fold of the picture itself."""
    members_MCB = np.stack([read_distributions(member.trial.folder) for member in members]).astype(np.float64)
    return members_MCB / members_MCB.sum(axis=2, keepdims=True)


def out_of_fold(
    candidates: Candidates,
    members: Sequence[Candidate],
    weights_M: np.ndarray,
    combination: dict[str, Any],
    members_MCB: np.ndarray,
) -> dict[str, np.ndarray]:
    """What members that are combined say of each case.

    Args:
        candidates: With the cases.
        members: Those that are combined.
        weights_M: ``(M,)`` theirs.
        combination: How they are combined; see `ensemble.robust`.
        members_MCB: ``(M, C, 240)`` their `distributions`, or on average over views.

    Returns:
        case_id, fold_C, is_male_C, actual_C, and from the members: distribution_CM ``(C, 240)``, months_C, spread_C
        and member_months_MC; male_probability_C where members guess the sex, weighted as the predictor does.
    """
    mixture, months, spread = combine_members(members_MCB, weights_M, combination)
    cases = candidates.cases
    return {
        "case_id": cases["case_id"].to_numpy(),
        "fold_C": cases["fold"].to_numpy(),
        "is_male_C": cases["is_male"].to_numpy(bool),
        "actual_C": candidates.actual_C,
        "distribution_CM": mixture,
        "months_C": months,
        "spread_C": spread,
        "member_months_MC": members_MCB @ BIN_MONTHS.astype(np.float64),
    } | _guesses(members, weights_M)


def _guesses(members: Sequence[Candidate], weights_M: np.ndarray) -> dict[str, np.ndarray]:
    guesses = [read_guesses(member.trial.folder) for member in members]
    known = [(guess, share) for guess, share in zip(guesses, weights_M, strict=True) if guess is not None]
    if not known:
        return {}
    guess_KC, share_K = zip(*known, strict=True)
    return {"male_probability_C": np.average(guess_KC, axis=0, weights=share_K)}
