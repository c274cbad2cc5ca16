"""The noise of training in the candidates' errors, and the errors that they make as they are served.

An out-of-fold error is that of one model. Trained again, on other folds and from another seed, the candidate would err
otherwise: a part of its error is noise, of which the mean of k fold models keeps a k-th. So a noisy candidate is worth
more than its out-of-fold error says, and some of what members gain from each other there, their fold models gain
alone. A second partition (``search run --partitions 2``) tells how much: its predictions of the same cases come from
other trainings, and half the second moment of the difference is that of the noise. Without one, the noise is taken to
be what it was in trials that were measured, and less where candidates err too much alike for that, since it is not all
that they differ in. Weights by it are better than those by single models' errors, and nearly as good as with each
candidate's own (on drawn candidates: tests/test_ensemble_noise.py).

With G the second moments of single models' errors and S those of their noise, means of k models have G - (1 - 1/k) S.
`as_served` moves the errors to these moments by the linear map that changes them least, which is the optimal transport
between centred normal distributions (Olkin and Pukelsheim, Linear Algebra Appl. 48, 1982; Peyré and Cuturi,
"Computational optimal transport", 2019, remark 2.31). Whatever weighs or scores errors then does so as they will be.

Shape letters: C cases, T candidates, P pairs of candidates.
"""

from dataclasses import dataclass

import numpy as np

MIN_CASES = 100
"""Cases on both partitions from which a candidate's noise counts as measured: its variance is then known to 15 %."""
TYPICAL_SHARE, TYPICAL_CORRELATION = 0.2, 0.1
"""Taken for weights where nothing was measured; for a figure they would be a guess. By the spread of fold models on
radiographs that none had seen, the shares of 37 small networks at 64 px were 0.11 to 0.31, 0.20 on average, and the
median correlation 0.01 (5 folds, n = 1,960); of five residual networks at 128 px 0.18 to 0.30, and 0.13 (3 folds,
n = 106). Pools of the 37 then err a third of a month less on those 1,960 than with weights for single models drawn half
way to equal ones."""
LARGEST_PART = 0.7
"""Of what a candidate and the one most like it differ in, at most so much is taken for noise that was not measured. On
the pools of the 37, 0.6 to 0.9 did equally well."""
_FLOOR = 1e-9
"""Of an eigenvalue, as a share of the largest: below lies rounding."""
_TINY = 1e-12


@dataclass(frozen=True)
class Noise:
    """What training again would change."""

    moment_TT: np.ndarray
    """``(T, T)`` second moments of the noise of single models, in months squared."""
    share: float
    """Of the second moment of a single model's error, the mean over the candidates that were measured, or typical."""
    correlation: float
    """Between the noises of two candidates of a study, the mean over the pairs that were measured: two trainings on the
    same folds stray alike."""
    num_measured: int
    """Candidates that were measured; to the others their mean share and correlation are given, or typical ones."""
    num_cases: int
    """Cases, at least, on which a candidate was measured; 0 where none was."""


def measure(error_TC: np.ndarray, second_TC: np.ndarray, study_T: np.ndarray) -> Noise:
    """Noise of the candidates, by the cases that they predicted on both partitions.

    Args:
        error_TC: ``(T, C)`` signed out-of-fold errors in months, on the first partition.
        second_TC: ``(T, C)`` the same on the second; NaN where that fold was not trained.
        study_T: ``(T,)`` study of each candidate. Only candidates of one study share their second folds, so only
            between them a correlation is measured.
    """
    known_TC = np.isfinite(second_TC)
    num_known_T = known_TC.sum(axis=1)
    is_measured_T = num_known_T >= MIN_CASES
    change_TC = np.where(known_TC, error_TC - second_TC, 0.0)
    both_TT = known_TC.astype(float) @ known_TC.T.astype(float)
    half_TT = change_TC @ change_TC.T / np.maximum(both_TT, 1) / 2
    own_T, noise_T = np.square(error_TC).mean(axis=1), np.diag(half_TT)
    share_T = noise_T[is_measured_T] / own_T[is_measured_T]
    share = float(share_T.mean()) if share_T.size else TYPICAL_SHARE
    is_pair_TT = np.logical_and.outer(is_measured_T, is_measured_T) & (both_TT >= MIN_CASES)
    is_pair_TT &= np.equal.outer(study_T, study_T) & ~np.eye(len(study_T), dtype=bool)
    assumed_T = np.minimum(share, LARGEST_PART * (1 - _nearest(error_TC)))
    deviation_T = np.sqrt(np.where(is_measured_T, noise_T, assumed_T * own_T))
    scale_TT = np.outer(deviation_T, deviation_T)
    is_pair_TT &= scale_TT > 0
    alike_P = half_TT[is_pair_TT] / scale_TT[is_pair_TT]
    correlation = float(alike_P.mean()) if alike_P.size else TYPICAL_CORRELATION
    moment_TT = np.where(is_pair_TT, half_TT, max(0.0, correlation) * scale_TT)
    np.fill_diagonal(moment_TT, deviation_T**2)
    num_cases = int(num_known_T[is_measured_T].min()) if is_measured_T.any() else 0
    return Noise(_power(moment_TT, 1.0), share, correlation, int(is_measured_T.sum()), num_cases)


def as_served(error_TC: np.ndarray, noise: Noise, num_models: int) -> np.ndarray:
    """Errors with the second moments that candidates have as means of models: estimates, not measured errors.

    Args:
        error_TC: ``(T, C)`` signed out-of-fold errors of single models, in months.
        noise: Of these candidates.
        num_models: k, how many models a member's answer is the mean of.

    Returns:
        ``(T, C)`` float64; with one model the errors themselves.
    """
    if num_models == 1:
        return error_TC
    single_TT = error_TC @ error_TC.T / error_TC.shape[1]
    mean_TT = single_TT - (1 - 1 / num_models) * noise.moment_TT
    root_TT, inverse_TT = _power(single_TT, 0.5), _power(single_TT, -0.5)
    return inverse_TT @ _power(root_TT @ _power(mean_TT, 1.0) @ root_TT, 0.5) @ inverse_TT @ error_TC


def _nearest(error_TC: np.ndarray) -> np.ndarray:
    """``(T,)`` the largest correlation of a candidate's errors with those of another, about zero; 0 of one alone."""
    moment_TT = error_TC @ error_TC.T
    scale_T = np.sqrt(np.maximum(np.diag(moment_TT), _TINY))
    alike_TT = moment_TT / np.outer(scale_T, scale_T)
    np.fill_diagonal(alike_TT, 0.0)
    return np.clip(alike_TT.max(axis=1), 0.0, 1.0)


def _power(moment_TT: np.ndarray, exponent: float) -> np.ndarray:
    """Power of a symmetric matrix, its eigenvalues not below a floor: what is estimated pair by pair may have negative
    ones, and copies of one candidate have zeros."""
    value_T, vector_TT = np.linalg.eigh(moment_TT)
    value_T = np.maximum(value_T, _FLOOR * max(float(value_T[-1]), _FLOOR))
    return (vector_TT * value_T**exponent) @ vector_TT.T
