"""How much better the challenger is, as observations that a confidence sequence can take.

Positive is better: the champion's absolute error less the challenger's, in months.

Paired (shadow): one difference a subject, clipped to a year either way, since a bet needs bounds; where one image sets
the arms more than a year apart in error, a year is counted.

Two groups (split, canary): each subject shows one arm only. With p the probability of the arm it met, c the mean error
of all subjects before it and y its own, s (y - c) / p with s = 1 for the champion and -1 for the challenger has the
true difference as its mean whatever p was, so the share may change while the experiment runs (inverse propensity
weighting with a baseline: Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, "Anytime-valid off-policy inference for
contextual bandits", ACM/IMS J. Data Science 1(3), 2024). Errors count as three years at most.

Shape letters: U units in the order of their first reading.
"""

import numpy as np

from serve.readings import Units

PAIR_BOUND_MONTHS = 12.0
ERROR_BOUND_MONTHS = 36.0


def paired(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Differences of the units that both arms scored, with their bounds, for `confidence_sequence`."""
    both_U = ~np.isnan(units.champion_U) & ~np.isnan(units.challenger_U)
    champion, challenger, reference = (
        values_U[both_U] for values_U in (units.champion_U, units.challenger_U, units.reference_U)
    )
    difference = np.abs(champion - reference) - np.abs(challenger - reference)
    return np.clip(difference, -PAIR_BOUND_MONTHS, PAIR_BOUND_MONTHS), np.full(len(difference), PAIR_BOUND_MONTHS)


def weighted(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Weighted errors of all units, with their bounds, for `confidence_sequence`."""
    answered_U = np.where(units.is_challenger_U, units.challenger_U, units.champion_U)
    error_U = np.minimum(np.abs(answered_U - units.reference_U), ERROR_BOUND_MONTHS)
    before_U = np.concatenate([[0.0], np.cumsum(error_U)[:-1]]) / np.maximum(np.arange(len(error_U)), 1)
    probability_U = np.where(units.is_challenger_U, units.share_U, 1 - units.share_U)
    sign_U = np.where(units.is_challenger_U, -1.0, 1.0)
    bound_U = ERROR_BOUND_MONTHS / np.minimum(units.share_U, 1 - units.share_U)
    return sign_U * (error_U - before_U) / probability_U, bound_U
