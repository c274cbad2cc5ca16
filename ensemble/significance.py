"""Clinically significant errors: those that would move a child between delayed, normal and advanced.

The class is the bone age against the chronological age, in standard deviations of healthy children
(`ensemble.chronology`). Where the chronological age is unknown, a child is taken whose bone age is exactly right for
it: then an error counts when it exceeds the limit itself. That is stricter for children who were near the limit, and
milder for those beyond it, and the report says how many cases were judged so.

Source of the definition: Santomartino et al., "Evaluating the robustness of a deep learning bone age algorithm to
clinical image variation", Radiology: Artificial Intelligence 2024; Beheshtian et al., Radiology 2023.

Shape letters: C cases.
"""

import numpy as np

from ensemble.chronology import LIMIT_SDS, sd_months

_REACH_MONTHS = {"female": (12.0, 180.0), "male": (12.0, 204.0)}
"""Ages of the table; beyond them its last standard deviation is taken."""


def clinically_significant(
    actual_C: np.ndarray, predicted_C: np.ndarray, is_male_C: np.ndarray, chronological_C: np.ndarray | None = None
) -> np.ndarray:
    """Which errors would change the class of the child.

    Args:
        actual_C: ``(C,)`` reference bone age, in months.
        predicted_C: ``(C,)`` predicted bone age, in months.
        is_male_C: ``(C,)`` bool.
        chronological_C: ``(C,)`` in months, NaN where unknown; None where it is unknown for all.

    Returns:
        ``(C,)`` bool.
    """
    known_C = np.zeros(len(actual_C), bool) if chronological_C is None else np.isfinite(chronological_C)
    at_C = actual_C if chronological_C is None else np.where(known_C, chronological_C, actual_C)
    limit_C = LIMIT_SDS * np.array([_sd(age, is_male) for age, is_male in zip(at_C, is_male_C, strict=True)])
    before_C, after_C = (np.sign(x) * (np.abs(x) > limit_C) for x in (actual_C - at_C, predicted_C - at_C))
    return before_C != after_C


def _sd(months: float, is_male: bool) -> float:
    sex = "male" if is_male else "female"
    sd = sd_months(float(np.clip(months, *_REACH_MONTHS[sex])), sex)
    assert sd is not None, "the table holds every age within its reach"
    return sd
