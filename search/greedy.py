"""Forward selection of an ensemble on out-of-fold predictions: pure NumPy.

Shape letters: C cases, T trials, B bootstrap rounds.
"""

import numpy as np

MAX_PICKS = 50
TIE_DECIMALS = 9
"""Errors are compared to a billionth of a month, so that rounding in the last bit never decides between trials."""


def greedy(
    oof_CT: np.ndarray,
    actual_C: np.ndarray,
    *,
    max_picks: int = MAX_PICKS,
    max_members: int | None = None,
    counts_BC: np.ndarray | None = None,
) -> np.ndarray:
    """Weights by forward selection with replacement.

    At each step the trial that most lowers the out-of-fold MAE of the running mean joins it; a trial may be picked
    again, which is how it earns weight. The shortest prefix with the lowest error wins, so extra picks never hurt.

    Source: Caruana et al., "Ensemble selection from libraries of models", ICML 2004.

    Args:
        oof_CT: ``(C, T)`` predicted bone age, in months, case by trial; every entry out of fold, finite.
        actual_C: ``(C,)`` reference bone age, in months.
        max_picks: Upper bound on picks, counting repeats.
        max_members: Upper bound on different trials; None sets none.
        counts_BC: ``(B, C)`` how often each case counts in each of B bootstrap rounds; None counts each case once.

    Returns:
        ``(T,)`` non-negative weights summing to 1; ``(B, T)`` when `counts_BC` is given.

    Raises:
        ValueError: Shapes do not fit, a number is not finite, or a bound is below 1.
    """
    check(oof_CT, actual_C, max_members)
    if max_picks < 1:
        raise ValueError(f"max_picks must be 1 or more, got {max_picks}.")
    shares_BC = shares(counts_BC, len(actual_C))
    num_rounds, num_trials = len(shares_BC), oof_CT.shape[1]
    limit = min(max_members or num_trials, num_trials)
    picks_BT = np.zeros((num_rounds, num_trials), np.int64)
    best_BT, best_error_B = picks_BT.copy(), np.full(num_rounds, np.inf)
    for step in range(1, max_picks + 1):
        # Rounds that have picked the same trials share the costly part, the errors of every next candidate.
        states_ST, state_of_B = np.unique(picks_BT, axis=0, return_inverse=True)
        for index, state_T in enumerate(states_ST):
            rounds = np.flatnonzero(state_of_B.ravel() == index)
            full = np.count_nonzero(state_T) == limit
            candidates = np.flatnonzero(state_T) if full else np.arange(num_trials)
            error_CT = oof_CT[:, candidates] + (oof_CT @ state_T - step * actual_C)[:, None]
            np.abs(error_CT, out=error_CT)
            mae_RT = np.round(shares_BC[rounds] @ error_CT / step, TIE_DECIMALS)
            choice_R = mae_RT.argmin(axis=1)
            picks_BT[rounds, candidates[choice_R]] += 1
            mae_R = mae_RT[np.arange(len(rounds)), choice_R]
            better = rounds[mae_R < best_error_B[rounds]]
            best_BT[better] = picks_BT[better]
            best_error_B[rounds] = np.minimum(best_error_B[rounds], mae_R)
    weights_BT = best_BT / best_BT.sum(axis=1, keepdims=True)
    return weights_BT[0] if counts_BC is None else weights_BT


def check(oof_CT: np.ndarray, actual_C: np.ndarray, max_members: int | None) -> None:
    """Refuse what no ensemble can be chosen from; arguments and errors as of `greedy`."""
    if oof_CT.ndim != 2 or actual_C.shape != oof_CT.shape[:1] or oof_CT.size == 0:
        raise ValueError(
            f"Predictions must be (cases, trials) and references (cases,), got {oof_CT.shape} and {actual_C.shape}."
        )
    if missing := int((~np.isfinite(oof_CT)).any(axis=0).sum()):
        raise ValueError(f"{missing} of {oof_CT.shape[1]} trials lack predictions; drop unfinished trials first.")
    if not np.isfinite(actual_C).all():
        raise ValueError("A reference bone age is missing; drop the case first.")
    if max_members is not None and max_members < 1:
        raise ValueError(f"An ensemble needs 1 member or more, got a limit of {max_members}.")


def shares(counts_BC: np.ndarray | None, num_cases: int) -> np.ndarray:
    """``(B, C)`` share of each case in each bootstrap round; one round of equal shares without counts."""
    counts = np.ones((1, num_cases)) if counts_BC is None else counts_BC
    return counts / counts.sum(axis=1, keepdims=True)
