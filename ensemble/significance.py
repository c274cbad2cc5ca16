"""Clinically significant errors: those that would move a child between delayed, normal and advanced.

The class is the bone age against the chronological age, in standard deviations of healthy children, by the same norms
as an answer's own judgement (`ensemble.chronology`): published ones, or those that the bundle carries. Where the
chronological age is unknown, a child is taken whose bone age is exactly the mean of its age: then an error counts when
it exceeds the limit itself. That is stricter for children who were near the limit, and milder for those beyond it, and
the report says how many cases were judged so.

Source of the definition: Santomartino et al., "Evaluating the robustness of a deep learning bone age algorithm to
clinical image variation", Radiology: Artificial Intelligence 2024; Beheshtian et al., Radiology 2023.

Shape letters: C cases.
"""

import numpy as np

from ensemble.chronology import LIMIT_SDS, PUBLISHED, Norms


def clinically_significant(
    actual_C: np.ndarray,
    predicted_C: np.ndarray,
    is_male_C: np.ndarray,
    chronological_C: np.ndarray | None = None,
    norms: Norms = PUBLISHED,
) -> np.ndarray:
    """Which errors would change the class of the child.

    Args:
        actual_C: ``(C,)`` reference bone age, in months.
        predicted_C: ``(C,)`` predicted bone age, in months.
        is_male_C: ``(C,)`` bool.
        chronological_C: ``(C,)`` in months, NaN where unknown; None where it is unknown for all.
        norms: What children of that age are like. Beyond their ages the last standard deviation is taken, and the
            mean goes on month by month; a sex that they leave out is judged by the published ones (see `judged_by`).

    Returns:
        ``(C,)`` bool.
    """
    mean_C, sd_C = np.empty(len(actual_C)), np.empty(len(actual_C))
    for sex, of_sex_C in (("female", ~is_male_C), ("male", is_male_C)):
        ages, means, sds = np.array((norms if sex in norms.rows else PUBLISHED).rows[sex]).T
        age_C = _continued(actual_C[of_sex_C], means, ages)
        if chronological_C is not None:
            known_C = chronological_C[of_sex_C]
            age_C = np.where(np.isfinite(known_C), known_C, age_C)
        mean_C[of_sex_C], sd_C[of_sex_C] = _continued(age_C, ages, means), np.interp(age_C, ages, sds)
    before_C, after_C = (np.sign(x) * (np.abs(x) > LIMIT_SDS * sd_C) for x in (actual_C - mean_C, predicted_C - mean_C))
    return before_C != after_C


def judged_by(norms: Norms) -> str:
    """What is cited with a count of such errors: the norms' source, and the published one for a sex they leave out."""
    missing = [sex for sex in PUBLISHED.rows if sex not in norms.rows]
    return "; ".join([norms.source, *(f"{sex} children by {PUBLISHED.source}" for sex in missing)])


def _continued(at_C: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolate, and go on with a slope of one beyond either end."""
    inside_C = np.clip(at_C, known[0], known[-1])
    return np.interp(inside_C, known, values) + (at_C - inside_C)
