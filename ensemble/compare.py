"""Two systems on the same cases: paired differences, tests for them, and how far the two agree with each other.

Shape letters: C cases, K kinds of value.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ensemble.chronology import PUBLISHED, Norms
from ensemble.measures import chronological_of
from ensemble.significance import clinically_significant, judged_by
from search.metrics import agreement_limits, mean_ci95, rounded, share_ci95


class ComparisonError(ValueError):
    """The two have no case in common."""


def compare(a: pd.DataFrame, b: pd.DataFrame, *, norms: Norms = PUBLISHED, seed: int = 0) -> dict[str, Any]:
    """Compare two tables of predictions, as `ensemble.measures` has them, on the cases that both answered.

    Differences are b minus a: below 0, b errs less. Wilcoxon's signed-rank test asks whether absolute errors differ,
    McNemar's exact test whether clinically significant errors (and errors above 12 months) became more or fewer.

    Args:
        a: The one that stands.
        b: The one that may take its place.
        norms: Of healthy children, by which an error of either is clinically significant.
        seed: Of the bootstrap: 95 % percentile intervals from 2,000 paired resamples of the cases;
            null of fewer than 10 cases.

    Returns:
        ``n``, ``only_a`` and ``only_b`` (cases that one alone answered), ``mae_a_months``, ``mae_b_months``,
        ``mae_difference_months`` with ``mae_difference_ci95``, ``wilcoxon_p``, ``significant_errors`` and
        ``above_12_months`` (see `mcnemar`), ``norms`` (their source), and ``agreement`` of b with a.

    Raises:
        ComparisonError: No case was answered by both.
    """
    cases = a.merge(b[["case_id", "predicted_months"]], on="case_id", suffixes=("", "_b"), validate="one_to_one")
    if cases.empty:
        raise ComparisonError("The two must have answered the same cases, and share none. Name one source for both.")
    actual_C = cases["bone_age_months"].to_numpy(np.float64)
    one_C, other_C = (cases[name].to_numpy(np.float64) for name in ("predicted_months", "predicted_months_b"))
    is_male_C, chronological_C = cases["is_male"].to_numpy(bool), chronological_of(cases)
    error_KC = np.abs(np.stack([one_C, other_C]) - actual_C)
    difference_C = error_KC[1] - error_KC[0]
    rows = mean_ci95(np.stack([*error_KC, difference_C, other_C - one_C]), seed=seed)
    wrong = [clinically_significant(actual_C, x, is_male_C, chronological_C, norms) for x in (one_C, other_C)]
    apart_C = np.abs(other_C - one_C)
    return {
        "n": len(cases),
        "only_a": len(a) - len(cases),
        "only_b": len(b) - len(cases),
        "mae_a_months": rounded(error_KC[0].mean()),
        "mae_a_ci95": rows[0],
        "mae_b_months": rounded(error_KC[1].mean()),
        "mae_b_ci95": rows[1],
        "mae_difference_months": rounded(difference_C.mean()),
        "mae_difference_ci95": rows[2],
        "wilcoxon_p": wilcoxon_p(difference_C),
        "significant_errors": mcnemar(*wrong),
        "norms": judged_by(norms),
        "above_12_months": mcnemar(error_KC[0] > 12, error_KC[1] > 12),
        "agreement": {
            "difference_months": rounded((other_C - one_C).mean()),
            "difference_ci95": rows[3],
            **agreement_limits(other_C - one_C, seed=seed),
            "within_6_months": rounded((apart_C <= 6).mean()),
            "within_6_ci95": share_ci95(apart_C <= 6),
            "within_12_months": rounded((apart_C <= 12).mean()),
            "within_12_ci95": share_ci95(apart_C <= 12),
            "concordance": concordance(one_C, other_C),
        },
    }


def wilcoxon_p(difference_C: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 where nothing differs (Wilcoxon, Biometrics Bulletin 1945)."""
    if not difference_C.any():
        return 1.0
    return _significant_digits(stats.wilcoxon(difference_C).pvalue)


def mcnemar(before_C: np.ndarray, after_C: np.ndarray) -> dict[str, Any]:
    """Whether a mark became more or less frequent among the same cases: McNemar's exact test (Psychometrika 1947).

    Args:
        before_C: ``(C,)`` bool.
        after_C: ``(C,)`` bool.

    Returns:
        ``before`` and ``after`` (cases), ``gained`` (only after), ``lost`` (only before), and ``p``, two-sided.
    """
    gained, lost = int((after_C & ~before_C).sum()), int((before_C & ~after_C).sum())
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return {
        "before": int(before_C.sum()),
        "after": int(after_C.sum()),
        "gained": gained,
        "lost": lost,
        "p": _significant_digits(p),
    }


def holm(p_values: list[float]) -> list[float]:
    """p adjusted for their number (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = _significant_digits(highest)
    return adjusted


def concordance(one_C: np.ndarray, other_C: np.ndarray) -> float:
    """Lin's concordance correlation coefficient (Biometrics 1989); 1 where both say the same of every case."""
    apart = float(np.square(one_C - other_C).mean())
    if apart == 0:
        return 1.0
    within = float(one_C.var() + other_C.var() + (one_C.mean() - other_C.mean()) ** 2)
    return rounded(1 - apart / within)


def _significant_digits(p: float) -> float:
    """Three digits that mean something, so that a small p is not rounded to 0."""
    return float(f"{float(p):.3g}")
