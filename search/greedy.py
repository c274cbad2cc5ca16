"""Forward selection of an ensemble on out-of-fold predictions: pure NumPy.

Shape letters: C cases, T trials.
"""

import numpy as np

MAX_PICKS = 50
TIE_DECIMALS = 9
"""Errors are compared to a billionth of a month, so that rounding in the last bit never decides between trials."""
_CELLS = 1 << 16
"""Errors that are summed at a time: 512 KiB stay in a core's own cache."""


def greedy(
    oof_CT: np.ndarray,
    actual_C: np.ndarray,
    *,
    max_picks: int = MAX_PICKS,
    max_members: int | None = None,
    counts_C: np.ndarray | None = None,
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
        counts_C: ``(C,)`` how often each case counts, as in a bootstrap round; None counts each case once.

    Returns:
        ``(T,)`` non-negative weights summing to 1.

    Raises:
        ValueError: Shapes do not fit, a number is not finite, or a bound is below 1.
    """
    check(oof_CT, actual_C, max_members)
    if max_picks < 1:
        raise ValueError(f"max_picks must be 1 or more, got {max_picks}.")
    error_TC = np.ascontiguousarray((oof_CT - actual_C[:, None]).T)
    return forward(error_TC, shares(counts_C, len(actual_C)), max_picks=max_picks, max_members=max_members)


def forward(
    error_TC: np.ndarray, share_C: np.ndarray, *, max_picks: int = MAX_PICKS, max_members: int | None = None
) -> np.ndarray:
    """`greedy` on checked errors.

    Args:
        error_TC: ``(T, C)`` signed errors in months, one row a trial; in this order a step reads memory in sequence.
        share_C: ``(C,)`` share of each case, summing to 1.
        max_picks: As in `greedy`.
        max_members: As in `greedy`.

    Returns:
        ``(T,)`` non-negative weights summing to 1.
    """
    num_trials, num_cases = error_TC.shape
    limit = min(max_members or num_trials, num_trials)
    picks_T, sum_C = np.zeros(num_trials, np.int64), np.zeros(num_cases, error_TC.dtype)
    best_T, best_mae = picks_T, np.inf
    candidates, candidate_SC = np.arange(num_trials), error_TC
    for step in range(1, max_picks + 1):
        mae_S = np.round(mean_absolute(candidate_SC, sum_C, share_C) / step, TIE_DECIMALS)
        choice = int(mae_S.argmin())
        picks_T[candidates[choice]] += 1
        sum_C += candidate_SC[choice]
        if mae_S[choice] < best_mae:
            best_T, best_mae = picks_T.copy(), mae_S[choice]
        if len(candidates) > limit and np.count_nonzero(picks_T) == limit:  # from here on, repeats only
            candidates = np.flatnonzero(picks_T)
            candidate_SC = error_TC[candidates]
    return best_T / best_T.sum()


def mean_absolute(error_SC: np.ndarray, offset_C: np.ndarray, share_C: np.ndarray) -> np.ndarray:
    """``(S,)`` weighted mean over cases of ``|error + offset|``, a few rows at a time: no large array is made."""
    rows = max(1, _CELLS // len(share_C))
    mean_S = np.empty(len(error_SC))
    buffer = np.empty((min(rows, len(error_SC)), len(share_C)), error_SC.dtype)
    for start in range(0, len(error_SC), rows):
        part = error_SC[start : start + rows]
        shifted = np.add(part, offset_C, out=buffer[: len(part)])
        mean_S[start : start + rows] = np.abs(shifted, out=shifted) @ share_C
    return mean_S


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


def shares(counts_C: np.ndarray | None, num_cases: int) -> np.ndarray:
    """``(C,)`` share of each case, summing to 1; equal shares without counts."""
    return np.full(num_cases, 1 / num_cases) if counts_C is None else counts_C / counts_C.sum()
