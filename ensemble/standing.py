"""How a bundle stands: its intervals by profile, sex and age band, and its error beside that of whom it would replace.

The stress test alters a hundred cases in a hundred ways, far too few cases to tell two good bundles apart, or to
measure a band of age. Pictures as they are cost one answer each, so that here many of them are asked, of both bundles.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ensemble.answers import file_batches, predict_cases
from ensemble.compare import compare
from ensemble.coverage import coverage
from ensemble.material import drawn
from ensemble.measures import intervals_of
from ensemble.predictor import Predictor
from preprocessing.source import Source, problem_table
from search.metrics import rounded

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
        ``asked`` cases, of which ``n`` were answered, and ``reasons``, by code, why the others were not: the reader
        refuses them, and the same for every profile, as it does wrong inputs; ``profiles``: for each its ``n``,
        ``mae_months`` and ``coverage`` as `ensemble.coverage` has it, None without intervals; ``champion``, its
        version, or None; and ``comparison`` as `ensemble.compare.compare` has it, the champion being a, by the
        bundle's norms.

    Raises:
        EvaluationError: A bundle answers none of the cases.
        ComparisonError: No case is answered by both.
    """
    rows = drawn(source, num_cases, seed)
    cases = source.cases.iloc[rows].reset_index(drop=True)
    chosen = Source(source.folder, cases, problem_table([]), hidden=source.hidden)
    total = len(rows) * (len(predictor.profiles) + (champion is not None))

    def answers(who: Predictor, profile: str, turn: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        batches = file_batches(chosen.folder, chosen.paths, who)

        def show(done: int, _: int) -> None:
            progress(turn * len(rows) + done, total)

        return predict_cases(who, cases, batches, chosen.problems, chosen.folder, show, profile=profile)

    said = {profile: answers(predictor, profile, turn) for turn, profile in enumerate(predictor.profiles)}
    answered, refused = said["full"]
    found: dict[str, Any] = {
        "asked": len(rows),
        "n": len(answered),
        "reasons": {str(code): int(count) for code, count in refused["reason"].value_counts().items()},
        "profiles": {profile: _of_profile(table, seed) for profile, (table, _) in said.items()},
        "champion": None,
        "comparison": None,
    }
    if champion is not None:
        others, _ = answers(champion, "full", len(said))
        found |= {
            "champion": champion.bundle.version,
            "comparison": compare(others, answered, norms=predictor.norms, seed=seed),
        }
    return found


def _of_profile(cases: pd.DataFrame, seed: int) -> dict[str, Any]:
    actual_C, is_male_C = cases["bone_age_months"].to_numpy(np.float64), cases["is_male"].to_numpy(bool)
    intervals_CL2 = intervals_of(cases)
    return {
        "n": len(cases),
        "mae_months": rounded(np.abs(cases["predicted_months"].to_numpy(np.float64) - actual_C).mean()),
        "coverage": None if intervals_CL2 is None else coverage(actual_C, intervals_CL2, is_male_C, seed=seed),
    }
