"""Whether a family of alterations makes more errors: at all its levels together, or greatly at one of them.

The levels of a family are asked of the same cases, and their errors come together: a case that is wrong when it is
turned by 10 degrees is often wrong at 15. So together a case counts once, by the mean over the levels of what became of
it. A harm of one level alone is diluted in that mean, so that each level is tested, too.

Shape letters: C cases, L levels.
"""

from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

RIGHT, WRONG, REFUSED, FAILED = ".!rf"
"""Marks of a case in a report: without and with a clinically significant error, refused, and not judged at all."""


@dataclass(frozen=True)
class Rise:
    """How much more often a mark is seen after the alterations of a family."""

    before: float
    """Cases marked as they are."""
    after: float
    """Cases marked after an alteration, the mean over the levels."""
    worst: int
    """The level after which most cases are marked."""
    p: float
    """One-sided: small where it is more often. Of the levels together or of the one that rises most, twice the smaller
    (Bonferroni; the latter also times the number of levels)."""


def rise(before_C: np.ndarray, after_LC: np.ndarray) -> Rise:
    """Test a family.

    Args:
        before_C: ``(C,)`` bool, the mark of each case as it is.
        after_LC: ``(L, C)`` float, 1 where it is marked after the alteration, 0 where not, NaN where that level says
            nothing of the case.
    """
    change_LC = np.where(np.isfinite(after_LC), after_LC - before_C, 0.0)
    together_C = change_LC.sum(axis=0) / np.maximum(1, np.isfinite(after_LC).sum(axis=0))
    of_level_L = change_LC.sum(axis=1)
    p, p_level = _mcnemar(together_C), min(map(_mcnemar, change_LC))
    if len(change_LC) > 1:
        p = min(1.0, 2 * min(p, len(change_LC) * p_level))
    before = float(before_C.sum())
    return Rise(before, before + float(together_C.sum()), int(of_level_L.argmax()), p)


def _mcnemar(change_C: np.ndarray) -> float:
    """McNemar's test for pairs in clusters, one-sided, with one case gained and one lost added.

    Those two keep a few cases that differ from proving too much, above all where no case is marked as it is, by luck,
    and each level is compared with that same luck.

    Source: Durkalski et al., "Analysis of clustered matched-pair data", Statistics in Medicine 2003; the two cases are
    those of Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", ibid. 2005.
    """
    z = float(change_C.sum()) / sqrt(float(np.square(change_C).sum()) + 2)
    return 0.5 * erfc(z / sqrt(2))
