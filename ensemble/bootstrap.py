"""How good a selected ensemble is on new cases: the whole selection repeated on bootstrap draws.

The cases are drawn with replacement, the selection, from pruning to the combination, is repeated on the draw, and the
cases left out score it. Its mean is slightly pessimistic, as a draw holds only 63 % of the cases. The search is not
repeated: that it stopped trials by these same cases stays uncorrected.

Source: Tsamardinos et al., "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation"
(BBC-CV), Machine Learning 107, 2018.

Shape letters: C cases, T candidates, B rounds, E members.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ensemble.robust import case_weights
from ensemble.select import COMBINING, METHODS, Rules, select
from search.greedy import shares

ROUNDS = 200
AUTO = "auto"
MEAN = {"rule": "mean", "trim": 0.0}


@dataclass(frozen=True)
class CorrectedScore:
    """An estimate, in months: of the error that a selected ensemble makes on new cases, or of what it gains there."""

    months: float
    ci95: tuple[float, float]
    num_rounds: int


@dataclass(frozen=True)
class Repeated:
    """What each method made of each round, on the cases that the round left out."""

    counts_BC: np.ndarray
    """``(B, C)`` how often each round drew each case."""
    error_BC: Mapping[str, np.ndarray]
    """By method, ``(B, C)`` absolute error in months; NaN where the round drew the case."""
    weights_BT: Mapping[str, np.ndarray]
    """By method, ``(B, T)`` what each round selected."""
    chosen_B: tuple[str, ...]
    """Method that each round would have chosen; none where no combining one was repeated."""

    def scored_on(self, error_TC: np.ndarray, combination: Mapping[str, Any]) -> "Repeated":
        """The same selections and choices, scored on other errors ``(T, C)`` of the same candidates and cases."""
        error_BC = {
            name: _errors(weights_BT, self.counts_BC, error_TC, combination)
            for name, weights_BT in self.weights_BT.items()
        }
        return replace(self, error_BC=error_BC)

    def best(self) -> str:
        """The combining method of lowest corrected error; of equal ones the first."""
        return min((name for name in COMBINING if name in self.error_BC), key=lambda name: self.of(name).months)

    def of(self, asked: str) -> CorrectedScore:
        """Corrected error of one method that was fixed beforehand, or of `AUTO`."""
        return _score(np.nanmean(self._errors_of(asked), axis=1))

    def gain(self, asked: str, over: str) -> CorrectedScore:
        """Paired difference of two methods' errors, from round to round: what another draw would have selected by
        either is part of its interval, which is a wide one, as each round is scored on the third that it left out."""
        return _score(np.nanmean(self._errors_of(asked) - self._errors_of(over), axis=1))

    def _errors_of(self, asked: str) -> np.ndarray:
        """``(B, C)`` errors; of `AUTO` each round's by the method that it would have chosen."""
        if asked != AUTO:
            return self.error_BC[asked]
        return np.stack([self.error_BC[name][index] for index, name in enumerate(self.chosen_B)])


def repeat(
    error_TC: np.ndarray,
    rules: Rules,
    *,
    methods: tuple[str, ...] = tuple(METHODS),
    combination: Mapping[str, Any] = MEAN,
    cost_T: np.ndarray | None = None,
    num_rounds: int = ROUNDS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Repeated | None:
    """Repeat the selection by each method.

    Args:
        error_TC: ``(T, C)`` signed out-of-fold errors in months, finite, one row a candidate.
        rules: What may be chosen.
        methods: Names in `METHODS`.
        combination: How members are combined, as `robust.parse` gives it.
        cost_T: ``(T,)`` what each candidate costs.
        num_rounds: Bootstrap rounds.
        seed: Of the draws.
        progress: Called with the number of rounds done and in all.

    Returns:
        None when so few cases are there that no round leaves one out.
    """
    num_cases = error_TC.shape[1]
    counts_BC = np.random.default_rng(seed).multinomial(num_cases, np.full(num_cases, 1 / num_cases), num_rounds)
    counts_BC = counts_BC[(counts_BC == 0).any(axis=1)]
    if len(counts_BC) == 0:
        return None
    weights_BT = {name: np.zeros((len(counts_BC), len(error_TC))) for name in methods}
    alone = replace(rules, max_members=1)
    for index, counts_C in enumerate(counts_BC):
        share_C = shares(counts_C, num_cases)
        for name in methods:
            weights_BT[name][index] = select(
                error_TC, share_C, name, alone if name == "single" else rules, cost_T=cost_T
            )
        progress(index + 1, len(counts_BC))
    error_BC = {name: _errors(weights_BT[name], counts_BC, error_TC, combination) for name in methods}
    return Repeated(counts_BC, error_BC, weights_BT, _choices(counts_BC, error_BC))


def _choices(counts_BC: np.ndarray, error_BC: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The method that each round would have chosen: choosing among methods is part of what is repeated.

    The choice falls on the cases that the round drew, each with the mean of its errors in the rounds that left it out.
    """
    names = [name for name in COMBINING if name in error_BC]
    if not names:
        return ()
    errors = [_case_errors(error_BC[name]) for name in names]
    known_C = np.isfinite(errors[0])
    share_BC = counts_BC[:, known_C] / counts_BC[:, known_C].sum(axis=1, keepdims=True)
    choice_B = np.stack([share_BC @ error_C[known_C] for error_C in errors]).argmin(axis=0)
    return tuple(names[choice] for choice in choice_B)


def _case_errors(error_BC: np.ndarray) -> np.ndarray:
    """``(C,)`` absolute error of each case, the mean over rounds that left it out; NaN where none did."""
    left_out_C = np.isfinite(error_BC).sum(axis=0)
    return np.where(left_out_C > 0, np.nansum(error_BC, axis=0) / np.maximum(left_out_C, 1), np.nan)


def _errors(
    weights_BT: np.ndarray, counts_BC: np.ndarray, error_TC: np.ndarray, combination: Mapping[str, Any]
) -> np.ndarray:
    """``(B, C)`` absolute error of what each round selected, on the cases that it left out."""
    error_BC = np.full(counts_BC.shape, np.nan)
    for weights_T, counts_C, error_C in zip(weights_BT, counts_BC, error_BC, strict=True):
        out = np.flatnonzero(counts_C == 0)
        error_C[out] = np.abs(combined(error_TC, weights_T, combination, out))
    return error_BC


def combined(
    error_TC: np.ndarray,
    weights_T: np.ndarray,
    combination: Mapping[str, Any] = MEAN,
    rows: np.ndarray | slice = slice(None),
) -> np.ndarray:
    """Signed error of an ensemble, ``(C,)`` or of the cases in `rows`, as its members are combined."""
    members = np.flatnonzero(weights_T)
    error_EC = error_TC[members][:, rows]
    return (case_weights(error_EC, weights_T[members], dict(combination)) * error_EC).sum(axis=0)


def _score(mae_B: np.ndarray) -> CorrectedScore:
    low, high = np.percentile(mae_B, [2.5, 97.5])
    return CorrectedScore(float(mae_B.mean()), (float(low), float(high)), len(mae_B))
