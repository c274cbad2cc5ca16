"""Which labelled cases a bundle was trained on: there its errors are far too small, its intervals hold too often.

The bundle keeps its training cases by id, sex and bone age, in its out-of-fold table, and no pictures. So a case that
was renamed is not found; and where two hospitals both count their children from 1, a case now and then agrees with a
stranger in all three by accident.

Shape letters: C cases.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ensemble.bundle import OOF_FILE, Bundle
from preprocessing.source import Source, problem, problem_table

TRAINING_CASE = "training_case"
"""Reason for which a case is left out."""


def seen(bundle: Bundle, source: Source) -> np.ndarray:
    """Find the cases that a bundle was trained on.

    Args:
        bundle: Whose training is asked about; the locked test of its cohort was no part of it.
        source: Labelled cases.

    Returns:
        ``(C,)`` bool in the order of ``source.cases``: id, sex and bone age are those of a training case.

    Raises:
        BundleError: The bundle holds no out-of-fold table.
    """
    known = pd.read_parquet(bundle.file(OOF_FILE), columns=["case_id", "is_male", "bone_age_months"])
    return np.asarray(_names(source.cases).isin(_names(known)), bool)


def leave_out(bundle: Bundle, source: Source) -> tuple[Source, dict[str, Any]]:
    """Leave the cases out that a bundle was trained on: nothing can be measured, or learnt of a site, by them.

    Returns:
        The source without them, among whose problems they are, as `TRAINING_CASE`; and as JSON values ``left_out`` and
        ``of`` (cases), ``is_training_folder`` (most are left out: it is what the cohort was prepared from, and the
        rest its locked test), and ``says``, a sentence for a person.

    Raises:
        BundleError: The bundle holds no out-of-fold table.
    """
    is_seen_C = seen(bundle, source)
    detail = f"By id, sex and bone age it is a case that {bundle.version} was trained on."
    known = [
        problem(str(case["case_id"]), str(case["file"]), TRAINING_CASE, detail)
        for case in source.cases[is_seen_C].to_dict("records")
    ]
    problems = pd.concat([source.problems, problem_table(known)], ignore_index=True)
    left = replace(source, cases=source.cases[~is_seen_C].reset_index(drop=True), problems=problems)
    about = {"left_out": len(known), "of": len(source.cases), "is_training_folder": 2 * len(known) > len(source.cases)}
    return left, about | {"says": _sentence(bundle.version, len(known), len(source.cases))}


def _sentence(version: str, num_seen: int, num_cases: int) -> str:
    if not num_seen:
        return (
            f"None of the cases has id, sex and bone age of one that {version} was trained on; "
            "a case that was renamed would not be noticed."
        )
    said = (
        f"Left out: {num_seen} of {num_cases} cases, which {version} was trained on by their id, sex and bone age. "
        f"The figures are of the other {num_cases - num_seen}."
    )
    return said + (" Most were, so these are taken for its cohort's locked test." if 2 * num_seen > num_cases else "")


def _names(cases: pd.DataFrame) -> pd.Index:
    """One key a case; hundredths of a month, since a unit that was turned into months and back rounds."""
    return pd.MultiIndex.from_arrays(
        [cases["case_id"].astype(str), cases["is_male"].astype(bool), cases["bone_age_months"].astype(float).round(2)]
    )
