"""Which trials join the ensemble, and with what weight: pure NumPy on out-of-fold predictions.

Shape letters: C cases, T trials, B bootstrap rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MAX_PICKS = 50
_TIE_DECIMALS = 9
"""Errors are compared to a billionth of a month, so that rounding in the last bit never decides between trials."""

Selector = Callable[..., np.ndarray]
"""``(oof_CT, actual_C, *, max_members, counts_BC) -> weights``, as `greedy` documents it."""


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
    _check(oof_CT, actual_C, max_members)
    if max_picks < 1:
        raise ValueError(f"max_picks must be 1 or more, got {max_picks}.")
    shares_BC = _shares(counts_BC, len(actual_C))
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
            mae_RT = np.round(shares_BC[rounds] @ error_CT / step, _TIE_DECIMALS)
            choice_R = mae_RT.argmin(axis=1)
            picks_BT[rounds, candidates[choice_R]] += 1
            mae_R = mae_RT[np.arange(len(rounds)), choice_R]
            better = rounds[mae_R < best_error_B[rounds]]
            best_BT[better] = picks_BT[better]
            best_error_B[rounds] = np.minimum(best_error_B[rounds], mae_R)
    weights_BT = best_BT / best_BT.sum(axis=1, keepdims=True)
    return weights_BT[0] if counts_BC is None else weights_BT


def equal(
    oof_CT: np.ndarray,
    actual_C: np.ndarray,
    *,
    max_members: int | None = None,
    counts_BC: np.ndarray | None = None,
) -> np.ndarray:
    """The same weight for each of the `max_members` trials of lowest MAE, or for all; arguments as in `greedy`."""
    _check(oof_CT, actual_C, max_members)
    shares_BC = _shares(counts_BC, len(actual_C))
    mae_BT = np.round(shares_BC @ np.abs(oof_CT - actual_C[:, None]), _TIE_DECIMALS)
    rank_BT = mae_BT.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    size = min(max_members or oof_CT.shape[1], oof_CT.shape[1])
    weights_BT = (rank_BT < size) / size
    return weights_BT[0] if counts_BC is None else weights_BT


SELECTORS: dict[str, Selector] = {"greedy": greedy, "equal": equal}


@dataclass(frozen=True)
class CorrectedScore:
    """An estimate of the error that a selected ensemble makes on new cases."""

    mae_months: float
    ci95: tuple[float, float]
    num_rounds: int


def bias_corrected_mae(
    oof_CT: np.ndarray,
    actual_C: np.ndarray,
    selector: Selector,
    *,
    max_members: int | None = None,
    num_rounds: int = 200,
    seed: int = 0,
) -> CorrectedScore | None:
    """Error of the whole selection, each time scored on cases that it did not see.

    The cases are drawn with replacement, the selection is repeated on the draw, and the cases left out score it.
    Its mean is slightly pessimistic, as a draw holds only 63 % of the cases.

    Source: Tsamardinos et al., "Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation" (BBC-CV), Machine Learning 107, 2018.

    Args:
        oof_CT: As in `greedy`.
        actual_C: As in `greedy`.
        selector: One of `SELECTORS`.
        max_members: Passed on to it.
        num_rounds: Bootstrap rounds.
        seed: Of the draws.

    Returns:
        The estimate with its 95 % percentile interval, or None when too few cases leave none out.
    """
    num_cases = len(actual_C)
    counts_BC = np.random.default_rng(seed).multinomial(num_cases, np.full(num_cases, 1 / num_cases), num_rounds)
    counts_BC = counts_BC[(counts_BC == 0).any(axis=1)]
    if len(counts_BC) == 0:
        return None
    weights_BT = selector(oof_CT, actual_C, max_members=max_members, counts_BC=counts_BC)
    error_CB = np.abs(oof_CT @ weights_BT.T - actual_C[:, None])
    out_BC = counts_BC == 0
    mae_B = (error_CB.T * out_BC).sum(axis=1) / out_BC.sum(axis=1)
    low, high = np.percentile(mae_B, [2.5, 97.5])
    return CorrectedScore(float(mae_B.mean()), (float(low), float(high)), len(mae_B))


def _check(oof_CT: np.ndarray, actual_C: np.ndarray, max_members: int | None) -> None:
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


def _shares(counts_BC: np.ndarray | None, num_cases: int) -> np.ndarray:
    counts = np.ones((1, num_cases)) if counts_BC is None else counts_BC
    return counts / counts.sum(axis=1, keepdims=True)
