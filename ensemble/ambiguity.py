"""How much less the mean of k fold models errs than one of them, measured without a reference.

A member answers as the mean of its fold models, while its out-of-fold residuals are those of one. Of any case, the
squared error of a mean of models is the mean of their squared errors, less their mean squared distance from that mean,
which is called their ambiguity. Out of fold the former is known, and the latter asks for no reference, only for
pictures that none of the models has seen: those of the locked test, whose references stay locked. Intervals are fitted
to residuals that are smaller by it (`ensemble.conformal`), and BBC-CV is restated for the ensemble as it is served.

Source: Krogh and Vedelsby, "Neural network ensembles, cross validation, and active learning", NIPS 7, 1995.

Shape letters: C cases, K folds, N pictures.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEAST_KEPT = 0.5
"""Of squared residuals at least: a category whose few residuals happen to be small must not lose its intervals. Where
it was measured, 0.07 and 0.09 of all squared residuals were ambiguity."""


@dataclass(frozen=True)
class FoldAnswers:
    """What each fold's models say of pictures that none has seen."""

    months_KN: np.ndarray
    """``(K, N)`` months, members combined as they are served."""
    is_male_N: np.ndarray
    """``(N,)`` bool."""

    def ambiguity(self, move: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        """Mean squared distance of the folds' answers from their mean, in months squared, rounded to tenths: the last
        bits differ between machines, a bundle's version must not.

        Args:
            move: What corrects answers before they are served: months and bool is male, ``(N,)`` each, to months.
        """
        served_KN = np.stack([move(months_N, self.is_male_N) for months_N in self.months_KN])
        return round(float(np.square(served_KN - served_KN.mean(axis=0)).mean()), 1)


def kept(residual_C: np.ndarray, ambiguity: float) -> float:
    """What residuals of single models keep of their length where the mean of models is served.

    Args:
        residual_C: ``(C,)`` months.
        ambiguity: Months squared; 0: one model is served.

    Returns:
        Root of the share of their mean square that is left; that all of them shrink alike is an assumption.
    """
    if not ambiguity:
        return 1.0
    return math.sqrt(max(1 - ambiguity / max(float(np.square(residual_C).mean()), ambiguity), LEAST_KEPT))
