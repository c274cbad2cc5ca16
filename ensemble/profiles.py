"""Profiles of a bundle: ``full``, all members, and ``fast``, the one that answers in a fraction of the time.

Shape letters: C cases, M members.
"""

from typing import Any

import numpy as np

from search.metrics import bootstrap_ci95

MAX_SHARE = 0.5
"""Of the full profile's operations: a fast profile that takes more is none."""
AGREEMENT_MONTHS = 6.0
NOTE = (
    "The member of least out-of-fold error among those that take at most half of the operations, or a network of its "
    "configuration taught by the ensemble, where that errs less by more than chance explains (the whole paired 95 % "
    "interval lies below zero). The error is out of fold, after the correction of the months that each is served "
    "with (each case by what other folds say), and slightly optimistic, since it is the best of few; differences are "
    "paired, on the same cases."
)


def fastest(error_MC: np.ndarray, operations_M: np.ndarray) -> int | None:
    """The best member that is at most half of the work; None where each is more. Arguments as of `profiles`."""
    small = np.flatnonzero(operations_M / operations_M.sum() <= MAX_SHARE)
    return int(small[np.abs(error_MC[small]).mean(axis=1).argmin()]) if len(small) else None


def profiles(
    weights_M: np.ndarray,
    error_MC: np.ndarray,
    operations_M: np.ndarray,
    ensemble_C: np.ndarray,
    student_C: np.ndarray | None = None,
) -> dict[str, Any]:
    """The manifest's entry.

    Args:
        weights_M: ``(M,)`` of the full profile.
        error_MC: ``(M, C)`` signed out-of-fold errors of the members, in months, as each would answer alone: after a
            correction of its own, where one helps. So are the other errors.
        operations_M: ``(M,)`` what a member takes for one radiograph, in any unit.
        ensemble_C: ``(C,)`` signed out-of-fold errors of all members together.
        student_C: ``(C,)`` signed out-of-fold errors of a network that the ensemble taught, of the configuration of
            the `fastest` member; None where there is none.

    Returns:
        ``full``, and ``fast`` where one member is at most half of the work; each with its weights, the number of
        members that run, and the figures of the fast one. A student is kept only where the whole 95 % interval of its
        paired difference to the member it stands for lies below zero, as of every option that costs something; then
        it is one more member, the last one, without weight in ``full``.
    """
    best = fastest(error_MC, operations_M)
    weights = [float(weight) for weight in weights_M]
    if best is None:
        return {"full": {"weights": weights, "members": len(weights_M)}}
    chosen_C = error_MC[best]
    evidence: dict[str, Any] = {"operations_share": round(float(operations_M[best] / operations_M.sum()), 4)}
    one_hot = [float(index == best) for index in range(len(weights_M))]
    if student_C is not None:
        gain_C = np.abs(student_C) - np.abs(chosen_C)
        gain_ci95 = bootstrap_ci95(gain_C[None])[0]
        is_kept = bool(gain_ci95[1] < 0)
        evidence["distilled"] = {
            "kept": is_kept,
            "member_oof_mae_months": _mae(chosen_C),
            "distilled_oof_mae_months": _mae(student_C),
            "distilled_less_member_months": round(float(gain_C.mean()), 4),
            "distilled_less_member_ci95": gain_ci95,
        }
        if is_kept:
            chosen_C, weights, one_hot = student_C, [*weights, 0.0], [0.0] * len(weights_M) + [1.0]
    change_C = np.abs(chosen_C) - np.abs(ensemble_C)
    evidence |= {
        "oof_mae_months": _mae(chosen_C),
        "less_full_months": round(float(change_C.mean()), 4),
        "less_full_ci95": bootstrap_ci95(change_C[None])[0],
        "within_6_months_of_full": round(float((np.abs(chosen_C - ensemble_C) <= AGREEMENT_MONTHS).mean()), 4),
        "note": NOTE,
    }
    full = {"weights": weights, "members": len(weights_M)}
    return {"full": full, "fast": {"weights": one_hot, "members": 1, "evidence": evidence}}


def _mae(error_C: np.ndarray) -> float:
    return round(float(np.abs(error_C).mean()), 4)
