"""Which trials join the ensemble, and with what weight: pure NumPy on out-of-fold predictions.

Shape letters: C cases, T trials, B bootstrap rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search.greedy import TIE_DECIMALS, check, greedy, shares

Selector = Callable[..., np.ndarray]
"""``(oof_CT, actual_C, *, max_members, counts_BC) -> weights``, as `greedy` documents it."""


def equal(
    oof_CT: np.ndarray,
    actual_C: np.ndarray,
    *,
    max_members: int | None = None,
    counts_BC: np.ndarray | None = None,
) -> np.ndarray:
    """The same weight for each of the `max_members` trials of lowest MAE, or for all; arguments as in `greedy`."""
    check(oof_CT, actual_C, max_members)
    shares_BC = shares(counts_BC, len(actual_C))
    mae_BT = np.round(shares_BC @ np.abs(oof_CT - actual_C[:, None]), TIE_DECIMALS)
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
