"""Profiles of a bundle: ``full``, all members, and ``fast``, the one that answers in a fraction of the time.

Shape letters: C cases, M members.
"""

from typing import Any

import numpy as np

from ensemble.robust import case_weights
from search.metrics import bootstrap_ci95

MAX_SHARE = 0.5
"""Of the full profile's operations: a fast profile that takes more is none."""
AGREEMENT_MONTHS = 6.0
NOTE = (
    "The member of least out-of-fold error among those that take at most half of the operations. Its error is out of "
    "fold, and slightly optimistic, since it is the best of few; the difference is paired, on the same cases."
)


def profiles(
    weights_M: np.ndarray, error_MC: np.ndarray, operations_M: np.ndarray, combination: dict[str, Any]
) -> dict[str, Any]:
    """The manifest's entry.

    Args:
        weights_M: ``(M,)`` of the full profile.
        error_MC: ``(M, C)`` signed out-of-fold errors of the members, in months.
        operations_M: ``(M,)`` what a member takes for one radiograph, in any unit.
        combination: How the members are combined.

    Returns:
        ``full``, and ``fast`` where one member is at most half of the work; each with its weights, the number of
        members that run, and the figures of the fast one.
    """
    full = {"weights": [float(weight) for weight in weights_M], "members": len(weights_M)}
    share_M = operations_M / operations_M.sum()
    mae_M = np.abs(error_MC).mean(axis=1)
    small = np.flatnonzero(share_M <= MAX_SHARE)
    if not len(small):
        return {"full": full}
    best = int(small[mae_M[small].argmin()])
    ensemble_C = (case_weights(error_MC, weights_M, combination) * error_MC).sum(axis=0)
    change_C = np.abs(error_MC[best]) - np.abs(ensemble_C)
    evidence = {
        "operations_share": round(float(share_M[best]), 4),
        "oof_mae_months": round(float(mae_M[best]), 4),
        "less_full_months": round(float(change_C.mean()), 4),
        "less_full_ci95": bootstrap_ci95(change_C[None])[0],
        "within_6_months_of_full": round(float((np.abs(error_MC[best] - ensemble_C) <= AGREEMENT_MONTHS).mean()), 4),
        "note": NOTE,
    }
    fast = {"weights": [float(index == best) for index in range(len(weights_M))], "members": 1, "evidence": evidence}
    return {"full": full, "fast": fast}
