"""A confidence sequence for a mean: an interval that may be looked at after every observation, and acted on.

An ordinary 95 % interval that is watched until it excludes zero does so sooner or later, whatever the truth. A
confidence sequence contains the true mean at all times at once with probability 1 - alpha, so peeking is safe and a
decision may be taken whenever it allows one.

The construction is a bet against each candidate mean m (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 86(1), 2024). Capital grows by 1 + lambda (z_t - m) an observation, is a non-negative
martingale under the true m, and exceeds 2 / alpha with probability alpha / 2 at most, ever (Ville's inequality); the
interval is the set of m against which neither the bet that the mean is larger nor the one that it is smaller has won
that much. The capital is divided once over stakes lambda on a geometric grid and left there, as a universal portfolio
does (Orabona and Jun, IEEE Trans. Inf. Theory 70(1), 2024): nothing is estimated, no stake is tuned on the data, and
where all bounds are equal the order of the observations does not matter.

It holds for every sample size and every distribution within the bounds: no normality, no least number of observations.
What it asks for: each observation has the same mean, given those before it.

Shape letters: N observations in the order in which they came, S stakes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

_LARGEST_STAKE = 0.9
"""Share of the capital that the worst possible observation takes; at 1 it could take all."""
_STAKES_S = _LARGEST_STAKE * 2.0 ** -np.arange(10)


@dataclass(frozen=True)
class Interval:
    """A confidence sequence at one moment."""

    mean: float
    """Of the observations."""
    lower: float
    upper: float
    n: int

    def excludes_zero(self) -> bool:
        """Whether a difference is shown."""
        return self.lower > 0 or self.upper < 0


def confidence_sequence(z_N: np.ndarray, bound_N: np.ndarray, alpha: float = 0.05) -> Interval:
    """The interval after all observations so far.

    Args:
        z_N: ``(N,)`` observations with one common mean.
        bound_N: ``(N,)`` positive, known before each observation: ``|z| <= bound`` surely, and the mean lies within the
            least of them.
        alpha: Probability, at most, that the true mean is ever outside.

    Raises:
        ValueError: There is no observation, or one exceeds its bound.
    """
    _check(z_N, bound_N, alpha)
    widest, target = float(bound_N.min()), np.log(2 / alpha)

    def excess(mean: float, side: float) -> float:
        return float(log_capital(z_N, bound_N, side=side, mean=mean)[-1] - target)

    # the capital of "the mean is larger" falls as the candidate grows, so its one crossing bounds the mean from below
    ends = []
    for side in (1.0, -1.0):
        least, most = -side * widest * (1 - 1e-9), side * widest
        crosses = excess(least, side) > 0 > excess(most, side)
        ends.append(float(brentq(excess, least, most, args=(side,), xtol=1e-6 * widest)) if crosses else least)
    return Interval(float(z_N.mean()), ends[0], ends[1], len(z_N))


def log_capital(
    z_N: np.ndarray,
    bound_N: np.ndarray,
    times_N: np.ndarray | None = None,
    *,
    side: float = 1.0,
    mean: float = 0.0,
) -> np.ndarray:
    """Logarithm of the capital after each observation, of a bet against a candidate mean.

    Args:
        z_N: ``(N,)`` as in `confidence_sequence`.
        bound_N: ``(N,)`` as in `confidence_sequence`.
        times_N: ``(N,)`` how often each was observed in a row; None is once.
        side: 1 bets that the true mean is larger than the candidate, -1 that it is smaller.
        mean: The candidate, within the least bound.

    Returns:
        ``(N,)``; with probability alpha at most it ever exceeds log(1 / alpha) while the bet is wrong.
    """
    worst_N = bound_N + side * mean  # what the worst observation is off by; a stake is a share of the capital lost then
    relative_N = side * (z_N - mean) / worst_N
    growth_NS = np.log1p(relative_N[:, None] * _STAKES_S)
    wealth_NS = np.cumsum(growth_NS if times_N is None else times_N[:, None] * growth_NS, axis=0)
    top_N = wealth_NS.max(axis=1)
    return top_N + np.log(np.exp(wealth_NS - top_N[:, None]).mean(axis=1))


def anytime_p(z_N: np.ndarray, bound_N: np.ndarray, times_N: np.ndarray | None = None) -> float:
    """A p-value of "the mean is zero" that may be looked at at any time; 1 with no observation.

    One over the mean of the two capitals, which is an e-value; the value now, not the least so far.

    Args:
        z_N: ``(N,)`` as in `confidence_sequence`.
        bound_N: ``(N,)`` as in `confidence_sequence`.
        times_N: As in `log_capital`; where all bounds are equal, equal observations may so be counted together.
    """
    if not len(z_N):
        return 1.0
    capital = [log_capital(z_N, bound_N, times_N, side=side)[-1] for side in (1.0, -1.0)]
    return float(min(1.0, np.exp(-np.logaddexp(*capital)) * 2))


def _check(z_N: np.ndarray, bound_N: np.ndarray, alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, got {alpha}.")
    if not len(z_N):
        raise ValueError("A confidence sequence needs an observation, got none.")
    if not (np.abs(z_N) <= bound_N * (1 + 1e-9)).all():
        raise ValueError("Every observation must lie within its bound.")
