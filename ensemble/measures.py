"""All figures of a table of predictions, each with what is needed to judge it.

A table has one row a case: case_id, is_male, bone_age_months, predicted_months; and where they are known
distribution (240 probabilities), low_80, high_80, low_90, ... (ends of the intervals in months, of any level in
percent; NaN in cases that lack one), chronological_age_months, and findings (what was noticed of the picture, as words
with commas between).

Shape letters: C cases, K kinds of value.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ensemble.chronology import PUBLISHED, Norms
from ensemble.conformal import LEVELS
from ensemble.coverage import coverage
from ensemble.significance import clinically_significant, judged_by
from search.figures import confusion_matrix
from search.metrics import agreement_limits, mean_ci95, measure, rounded, share_ci95
from search.months import NUM_BINS

NUM_WORST = 10
"""Largest errors listed."""
PLAIN = "nothing noticed"
"""Acquisition style of a picture that needed no repair and gave no warning."""
OF_ANSWER = frozenset({"members_disagree", "sex_improbable", "sex_unknown"})
"""Warnings that speak of the answer and not of how the picture was taken: no findings."""


def figures(cases: pd.DataFrame, *, norms: Norms = PUBLISHED, seed: int = 0) -> dict[str, Any]:
    """Measure a table of predictions.

    Args:
        cases: As the module says; at least one row.
        norms: Of healthy children, by which an error is clinically significant: those of the bundle that answered.
        seed: Of the bootstrap: 95 % percentile intervals from 2,000 resamples of the cases; see `search.metrics`.

    Returns:
        What `search.metrics.measure` gives, and ``significant_errors``, ``agreement`` (Bland and Altman), ``styles``
        (by what was noticed of the picture), ``confusion`` (years), ``worst``; ``coverage`` where the table has
        intervals.

    Raises:
        ValueError: No case, or a number that is not finite.
    """
    actual_C, predicted_C = (cases[name].to_numpy(np.float64) for name in ("bone_age_months", "predicted_months"))
    is_male_C = cases["is_male"].to_numpy(bool)
    distribution_CM = np.stack(cases["distribution"].to_list()) if "distribution" in cases else None
    found = measure(actual_C, predicted_C, is_male_C, distribution_CM, seed=seed)
    found |= {
        "significant_errors": _significant(cases, actual_C, predicted_C, is_male_C, norms),
        "agreement": {"bias_months": found["bias_months"], **agreement_limits(predicted_C - actual_C, seed=seed)},
        "styles": styles(cases, predicted_C - actual_C, seed=seed),
        "confusion": confusion(cases).to_numpy().tolist(),
        "worst": worst(cases).to_dict("records"),
    }
    levels = levels_of(cases)
    intervals_CL2 = intervals_of(cases, levels)
    if intervals_CL2 is not None:
        found["coverage"] = coverage(actual_C, intervals_CL2, is_male_C, levels=levels, seed=seed)
    return found


def levels_of(cases: pd.DataFrame) -> list[int]:
    """Levels of the intervals that the table has both ends of, in percent, ascending."""
    named = [int(found[1]) for name in cases if (found := re.fullmatch(r"low_(\d+)", str(name)))]
    return sorted(level for level in named if f"high_{level}" in cases)


def intervals_of(cases: pd.DataFrame, levels: Sequence[int] = LEVELS) -> np.ndarray | None:
    """``(C, L, 2)`` ends of the intervals in months, NaN where a case lacks one; None where no case has any."""
    names = [f"{end}_{level}" for level in levels for end in ("low", "high")]
    ends_CL2 = cases.reindex(columns=names).to_numpy(np.float64).reshape(len(cases), len(levels), 2)
    return ends_CL2 if np.isfinite(ends_CL2).all(axis=2).any() else None


def chronological_of(cases: pd.DataFrame) -> np.ndarray | None:
    """``(C,)`` chronological ages in months, NaN where unknown; None where the table has none."""
    name = "chronological_age_months"
    return cases[name].to_numpy(np.float64) if name in cases else None


def styles(cases: pd.DataFrame, error_C: np.ndarray, *, seed: int = 0) -> list[dict[str, Any]]:
    """Error by acquisition style: pictures of which nothing was noticed, and those of each finding; most cases first.

    A picture with two findings counts in both groups. Empty where the table says nothing of the pictures.
    """
    if "findings" not in cases:
        return []
    codes_C = [frozenset(filter(None, text.split(","))) for text in cases["findings"]]
    rows = []
    for code in [None, *sorted({code for codes in codes_C for code in codes})]:
        chosen_C = np.array([not codes if code is None else code in codes for codes in codes_C])
        if not chosen_C.any():
            continue
        error = error_C[chosen_C]
        mae_ci, bias_ci = mean_ci95(np.stack([np.abs(error), error]), seed=seed)
        rows.append(
            {
                "style": code or PLAIN,
                "n": len(error),
                "mae_months": rounded(np.abs(error).mean()),
                "mae_ci95": mae_ci,
                "bias_months": rounded(error.mean()),
                "bias_ci95": bias_ci,
            }
        )
    return sorted(rows, key=lambda row: -row["n"])


def confusion(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases by year of the reference and of the prediction, the likeliest where there is a distribution."""
    if "distribution" not in cases:
        months = cases["predicted_months"].clip(0, NUM_BINS - 1).astype(int)
        cases = cases.assign(distribution=list(np.eye(NUM_BINS, dtype=np.float32)[months]))
    return confusion_matrix(cases)


def worst(cases: pd.DataFrame, num_cases: int = NUM_WORST) -> pd.DataFrame:
    """The largest errors, largest first: case_id, sex, bone_age_months, predicted_months, error_months."""
    error = cases["predicted_months"] - cases["bone_age_months"]
    order = error.abs().sort_values(ascending=False, kind="stable").index[:num_cases]
    chosen = cases.loc[order]
    return pd.DataFrame(
        {
            "case_id": chosen["case_id"].astype(str),
            "sex": np.where(chosen["is_male"], "male", "female"),
            "bone_age_months": chosen["bone_age_months"].round(2),
            "predicted_months": chosen["predicted_months"].round(2),
            "error_months": error.loc[order].round(2),
        }
    )


def _significant(
    cases: pd.DataFrame, actual_C: np.ndarray, predicted_C: np.ndarray, is_male_C: np.ndarray, norms: Norms
) -> dict[str, Any]:
    chronological_C = chronological_of(cases)
    wrong_C = clinically_significant(actual_C, predicted_C, is_male_C, chronological_C, norms)
    known = 0 if chronological_C is None else int(np.isfinite(chronological_C).sum())
    return {
        "n": int(wrong_C.sum()),
        "share": rounded(wrong_C.mean()),
        "ci95": share_ci95(wrong_C),
        "with_chronological_age": known,
        "norms": judged_by(norms),
    }
