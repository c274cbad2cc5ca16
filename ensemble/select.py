"""Which candidates join the ensemble, and with what weight: pure NumPy on out-of-fold errors.

The way of a selection, the same for every method, and repeated as a whole where its error is estimated:

1. prune: leave out what errs far more than the best, then all but the best of each group that errs alike;
2. weigh what is left by one of `METHODS`;
3. keep the heaviest that the budget and the number of members allow, and weigh these again.

Shape letters: C cases, T candidates, S those in hand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from search.greedy import TIE_DECIMALS, forward, mean_absolute

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``(error_SC, share_C) -> weights_S``; candidates come in the order of their error, the best first."""

NUM_SPLITS, MAX_PICKS_OF_BAG = 5, 20
_ROUNDING = 1e-9
SMALLEST_BAG = 8
"""Candidates; so few are weighed by one selection, without bags, which would only make the weights equal."""
LEAST_SQUARES_SHRINK = 0.25
"""Of 0, a quarter and a half, on pools of recorded trials (5 folds of `rsna_100`, weights from 60 to 1,956 cases,
errors on 1,960 others), the one that was never more than 0.02 months behind the best."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What may be chosen."""

    max_members: int | None = 8
    """Different candidates at most. Four to eight are enough: Pan et al., Radiol Artif Intell 2019, found the best
    ensemble of 48 challenge entries to have four."""
    max_pool: int = 64
    """Candidates of lowest error that are looked at."""
    max_error_ratio: float = 1.5
    """Candidates whose error is above so many times the best one's are left out."""
    max_correlation: float = 0.98
    """Of two candidates whose errors correlate more, the worse is left out: it is a near copy."""
    budget: float | None = None
    """Upper bound on the members' costs together, in the unit of the costs."""

    def __post_init__(self) -> None:
        if self.max_members is not None and self.max_members < 1:
            raise ValueError(f"An ensemble needs 1 member or more, got a limit of {self.max_members}.")
        if self.max_pool < 1 or self.max_error_ratio < 1:
            raise ValueError(
                f"max_pool and max_error_ratio must be 1 or more, got {self.max_pool} and {self.max_error_ratio}."
            )
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"A budget must be above 0, got {self.budget}.")


def select(
    error_TC: np.ndarray,
    share_C: np.ndarray,
    method: str,
    rules: Rules,
    *,
    cost_T: np.ndarray | None = None,
) -> np.ndarray:
    """Weights of all candidates, by the way that the module describes.

    Args:
        error_TC: ``(T, C)`` signed out-of-fold errors in months, finite, one row a candidate.
        share_C: ``(C,)`` share of each case, summing to 1.
        method: A name in `METHODS`.
        rules: What may be chosen.
        cost_T: ``(T,)`` what each candidate costs; needed where the rules have a budget.

    Returns:
        ``(T,)`` non-negative weights summing to 1. They belong to their candidates, whatever the order of these.

    Raises:
        ValueError: The budget holds no candidate.
    """
    weights_T = np.zeros(len(error_TC))
    if rules.budget is not None:
        assert cost_T is not None, "a budget needs costs"
        if not (cost_T <= rules.budget).any():
            raise ValueError(
                f"The budget must hold one candidate, got {rules.budget:g}; the least is {cost_T.min():g}."
            )
    kept = prune(error_TC, share_C, rules, cost_T)
    weigh = METHODS[method]
    weights_S = weigh(error_TC[kept], share_C)
    heaviest = [index for index in np.argsort(-weights_S.round(12), kind="stable") if weights_S[index] > 0]
    members: list[int] = []
    spent = 0.0
    for index in heaviest:
        price = 0.0 if cost_T is None or rules.budget is None else float(cost_T[kept[index]])
        if len(members) != rules.max_members and spent + price <= (rules.budget or 0.0):
            members.append(index)
            spent += price
    if len(members) < len(heaviest):
        kept = kept[np.sort(members)]
        weights_S = weigh(error_TC[kept], share_C)
    weights_T[kept] = weights_S
    return weights_T


def prune(error_TC: np.ndarray, share_C: np.ndarray, rules: Rules, cost_T: np.ndarray | None = None) -> np.ndarray:
    """Numbers of the candidates worth weighing, the one of lowest error first.

    Pruning the library before the selection gains as much as the selection itself (Caruana et al., "Getting the most
    out of ensemble selection", ICDM 2006). Near copies are found by the correlation of their errors: going from the
    best to the worst, a candidate is left out where it errs almost as one that was kept.
    """
    mae_T = np.round(mean_absolute(error_TC, np.zeros(error_TC.shape[1], error_TC.dtype), share_C), TIE_DECIMALS)
    if rules.budget is not None and cost_T is not None:
        mae_T[cost_T > rules.budget] = np.inf
    order = mae_T.argsort(kind="stable")
    order = order[mae_T[order] <= rules.max_error_ratio * mae_T[order[0]]]
    copied_SS = correlation(error_TC[order[: 2 * rules.max_pool]], share_C) > rules.max_correlation
    kept: list[int] = []
    for index in range(len(copied_SS)):
        if not copied_SS[index, kept].any():
            kept.append(index)
    return order[kept[: rules.max_pool]]


def correlation(error_SC: np.ndarray, share_C: np.ndarray) -> np.ndarray:
    """``(S, S)`` Pearson correlation of signed errors; 0 beside one whose error never varies, 1 on the diagonal."""
    scaled_SC = (error_SC - (error_SC @ share_C)[:, None]) * np.sqrt(share_C)
    norm_S = np.sqrt(np.square(scaled_SC).sum(axis=1))
    scaled_SC /= np.where(norm_S > _ROUNDING, norm_S, np.inf)[:, None]
    matrix_SS = scaled_SC @ scaled_SC.T
    np.fill_diagonal(matrix_SS, 1)
    return matrix_SS


def bagged_greedy(error_SC: np.ndarray, share_C: np.ndarray) -> np.ndarray:
    """Mean weights of forward selections with replacement, each from a random two thirds of the candidates.

    The candidates are split into thirds, several times, and each third is left out once: all take part equally often.
    One selection follows the noise of the cases; the mean of many from different candidates does so less. On drawn
    errors (`benchmarks.select`, Nov 2026) halves gained more at 300 cases and lost from 1,000 on; two thirds never did.

    Source: Caruana et al., ICML 2004, section 2.3 (bagged ensemble selection).
    """
    num = len(error_SC)
    if num <= SMALLEST_BAG:
        return forward(error_SC, share_C)
    rng = np.random.default_rng(0)
    weights_S = np.zeros(num)
    for _ in range(NUM_SPLITS):
        thirds = np.array_split(rng.permutation(num), 3)
        for left_out in thirds:
            bag = np.setdiff1d(np.arange(num), left_out)
            weights_S[bag] += forward(error_SC[bag], share_C, max_picks=MAX_PICKS_OF_BAG)
    return weights_S / weights_S.sum()


def least_squares(error_SC: np.ndarray, share_C: np.ndarray) -> np.ndarray:
    """The mixture of least mean square error on the simplex, drawn a quarter of the way to equal weights.

    With G the second moments of the errors, w'Gw is minimised over w >= 0 with sum 1. It is homogeneous, so that the
    solution of the non-negative least squares problem ``|L'w|^2 + (1'w - 1)^2``, G = LL', is proportional to that
    minimum (Lawson & Hanson, "Solving least squares problems", 1974). Shrunk weights for the Super Learner's convex
    combination (van der Laan et al., 2007): on few cases, the optimum follows their noise.
    """
    moment_SS = (error_SC * share_C) @ error_SC.T
    scale = float(np.trace(moment_SS)) / len(moment_SS) or 1.0
    factor_SS = np.linalg.cholesky(moment_SS / scale + 1e-9 * np.eye(len(moment_SS)))
    weights_S, _ = nnls(np.vstack([factor_SS.T, np.ones(len(moment_SS))]), np.append(np.zeros(len(moment_SS)), 1.0))
    has_any = weights_S > 0
    return (1 - LEAST_SQUARES_SHRINK) * weights_S / weights_S.sum() + LEAST_SQUARES_SHRINK * has_any / has_any.sum()


def equal(error_SC: np.ndarray, share_C: np.ndarray) -> np.ndarray:
    """The same weight for each."""
    return np.full(len(error_SC), 1 / len(error_SC))


def single(error_SC: np.ndarray, share_C: np.ndarray) -> np.ndarray:
    """All weight for the candidate of lowest error."""
    return np.eye(1, len(error_SC))[0]


METHODS: dict[str, Method] = {
    "greedy": bagged_greedy,
    "least_squares": least_squares,
    "equal": equal,
    "single": single,
}
COMBINING = ("greedy", "least_squares", "equal")
"""Those that combine, among which ``auto`` chooses; ``single`` is what they are compared with."""
