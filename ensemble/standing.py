"""How a bundle stands: its intervals by sex and age band, and its error beside that of the bundle it would replace.

The stress test alters a hundred cases in a hundred ways, far too few cases to tell two good bundles apart, or to
measure a band of age. Pictures as they are cost one answer each, so that here many of them are asked, of both bundles.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ensemble.answers import predict_source
from ensemble.compare import compare
from ensemble.coverage import coverage
from ensemble.measures import intervals_of
from ensemble.predictor import Predictor
from preprocessing.source import Source

NUM_CASES = 1000
"""At most so many, drawn once: paired, errors that differ by half a month show with them."""


def standing(
    predictor: Predictor,
    champion: Predictor | None,
    source: Source,
    *,
    num_cases: int = NUM_CASES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Ask a bundle, and the one whose place it may take, for the same cases as they are.

    Args:
        predictor: Of the bundle.
        champion: Of the one whose place it may take; None where there is none.
        source: Labelled radiographs that neither was trained on.
        num_cases: At most so many cases.
        seed: Of their draw and of the bootstrap.
        progress: Called with the answers so far and in all.

    Returns:
        ``n`` answered; ``coverage`` as `ensemble.coverage` has it, None without intervals; ``champion``, its version,
        or None; and ``comparison`` as `ensemble.compare.compare` has it, the champion being a.

    Raises:
        EvaluationError: A bundle answers none of the cases.
        ComparisonError: No case is answered by both.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(source.cases))[:num_cases])
    drawn = Source(source.folder, source.cases.iloc[rows].reset_index(drop=True), source.problems, hidden=source.hidden)
    total = len(rows) * (1 if champion is None else 2)
    cases, _ = predict_source(predictor, drawn, lambda done, _: progress(done, total))
    found: dict[str, Any] = {"n": len(cases), "coverage": _coverage(cases, seed), "champion": None, "comparison": None}
    if champion is not None:
        others, _ = predict_source(champion, drawn, lambda done, _: progress(len(rows) + done, total))
        found |= {"champion": champion.bundle.version, "comparison": compare(others, cases, seed=seed)}
    return found


def _coverage(cases: pd.DataFrame, seed: int) -> dict[str, Any] | None:
    intervals_CL2 = intervals_of(cases)
    if intervals_CL2 is None:
        return None
    actual_C, is_male_C = cases["bone_age_months"].to_numpy(np.float64), cases["is_male"].to_numpy(bool)
    return coverage(actual_C, intervals_CL2, is_male_C, seed=seed)
