"""Whether a family of alterations makes more errors: one test a family, whose unit is the case.

The levels of a family are asked of the same cases, and their errors come together: a case that is wrong when it is
turned by 10 degrees is often wrong at 15. So a case counts once, by the mean over the levels of what became of it.

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
    p: float
    """One-sided: small where it is more often."""


def rise(before_C: np.ndarray, after_LC: np.ndarray) -> Rise:
    """McNemar's test for pairs in clusters, one-sided, with one case gained and one lost added.

    With one level it is McNemar's own, without those two; they keep a few cases that differ from proving too much,
    above all where no case is marked as it is, by luck, and each level is compared with that same luck.

    Source: Durkalski et al., "Analysis of clustered matched-pair data", Statistics in Medicine 2003; the two cases are
    those of Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", ibid. 2005.

    Args:
        before_C: ``(C,)`` bool, the mark of each case as it is.
        after_LC: ``(L, C)`` float, 1 where it is marked after the alteration, 0 where not, NaN where that level says
            nothing of the case.
    """
    said_LC = np.isfinite(after_LC)
    num_C = np.maximum(1, said_LC.sum(axis=0))
    change_C = np.where(said_LC, after_LC - before_C, 0.0).sum(axis=0) / num_C
    z = change_C.sum() / sqrt(float(np.square(change_C).sum()) + 2)
    before = float(before_C.sum())
    return Rise(before, before + float(change_C.sum()), 0.5 * erfc(z / sqrt(2)))
