"""How much less the mean of k fold models errs than one of them, measured without a reference.

A member answers as the mean of its fold models, while its out-of-fold residuals are those of one. Of any case, the
squared error of a mean of models is the mean of their squared errors, less their mean squared distance from that mean,
which is called their ambiguity. Out of fold the former is known, and the latter asks for no reference, only for
pictures that none of the models has seen: those of the locked test, whose references stay locked. Intervals are fitted
to residuals that are smaller by it (`ensemble.conformal`).

Source: Krogh and Vedelsby, "Neural network ensembles, cross validation, and active learning", NIPS 7, 1995.

Shape letters: K folds, N pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FoldAnswers:
    """What each fold's models say of pictures that none has seen."""

    months_KN: np.ndarray
    """``(K, N)`` months, members combined as they are served."""
    is_male_N: np.ndarray
    """``(N,)`` bool."""

    def ambiguity(self, move: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        """Mean squared distance of the folds' answers from their mean, in months squared.

        Args:
            move: What corrects answers before they are served: months and bool is male, ``(N,)`` each, to months.
        """
        served_KN = np.stack([move(months_N, self.is_male_N) for months_N in self.months_KN])
        return float(np.square(served_KN - served_KN.mean(axis=0)).mean())
