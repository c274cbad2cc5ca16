"""Which labelled cases a bundle has met: there its errors are far too small, its intervals hold too often.

It was trained on those of its out-of-fold table, which are kept by id, sex and bone age, and no pictures. One that is
calibrated to a site was fitted to the cases of that site, of which it keeps a salted SHA-256 each: who has a case can
ask whether it is among them, and who has the bundle alone reads none. That names nobody, and hides nobody from one who
tries all ids, sexes and ages. So it keeps those of its cohort's locked test too, and knows a folder
of them for what it is.

So a case that was renamed is not found; and where two hospitals both count their children from 1, a case now and then
agrees with a stranger in all three by accident.

Shape letters: C cases.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ensemble.bundle import OOF_FILE, Bundle
from preprocessing.source import Source, problem, problem_table
from preprocessing.storage import read_json

SITE_FILE = "evidence/site_cases.json"
"""Of a bundle that is calibrated to a site; one of a release before has none."""
LOCKED_FILE = "evidence/locked_cases.json"
"""Of its cohort's locked test; a bundle that was built away from its cohort has none, nor one of a release before."""
TRAINING_CASE, SITE_CASE, LOCKED_CASE = "training_case", "site_case", "locked_case"
"""Reasons for which a case is left out."""
_MET = {TRAINING_CASE: "trained", SITE_CASE: "calibrated", LOCKED_CASE: "tested"}
"""What such a case was for the bundle, as a verb before "on"."""


def seen(bundle: Bundle, source: Source) -> np.ndarray:
    """Find the cases that a bundle was trained on, or calibrated to its site on.

    Args:
        bundle: Whose training is asked about; the locked test of its cohort was no part of it.
        source: Labelled cases.

    Returns:
        ``(C,)`` bool in the order of ``source.cases``: id, sex and bone age are those of such a case. Which cases a
        site's bundle of a release before was calibrated on is not known.

    Raises:
        BundleError: The bundle holds no out-of-fold table.
    """
    return _trained_on(bundle, source.cases) | _kept_in(bundle, SITE_FILE, source.cases)


def is_locked_test(bundle: Bundle, source: Source) -> bool:
    """Whether most of the labelled cases are of the locked test of a bundle's cohort, by id, sex and bone age."""
    return 2 * int(_kept_in(bundle, LOCKED_FILE, source.cases).sum()) > len(source.cases)


def locked(bundle: Bundle, source: Source) -> np.ndarray:
    """Find the cases of the locked test of a bundle's cohort, by id, sex and bone age.

    Args:
        bundle: Whose cohort is asked about.
        source: Labelled cases.

    Returns:
        ``(C,)`` bool in the order of ``source.cases``. Where the bundle was trained on most cases, the source is what
        its cohort was prepared from, and all others are taken for the locked test.

    Raises:
        BundleError: The bundle holds no out-of-fold table.
    """
    is_trained_C = _trained_on(bundle, source.cases)
    is_training_folder = 2 * int(is_trained_C.sum()) > len(is_trained_C)
    return _kept_in(bundle, LOCKED_FILE, source.cases) | (~is_trained_C & is_training_folder)


def leave_out(bundle: Bundle, source: Source, *, learns: bool = False) -> tuple[Source, dict[str, Any]]:
    """Leave the cases out that a bundle has met: nothing can be measured, or learnt of a site, by them.

    Args:
        bundle: That has met them.
        source: Labelled cases.
        learns: Whether something is learnt from the others; then the locked test of its cohort is left out too.

    Returns:
        The source without them, among whose problems they are, as `TRAINING_CASE`, `SITE_CASE` or `LOCKED_CASE`; and
        as JSON values ``left_out`` and ``of`` (cases), ``is_training_folder`` (most were trained on: it is what the
        cohort was prepared from, and the rest its locked test), and ``says``, a sentence for a person.

    Raises:
        BundleError: The bundle holds no out-of-fold table.
    """
    cases = source.cases
    is_trained_C = _trained_on(bundle, cases)
    is_locked_C = _kept_in(bundle, LOCKED_FILE, cases) & learns
    is_seen_C = is_trained_C | is_locked_C | _kept_in(bundle, SITE_FILE, cases)
    reasons = np.select([is_trained_C, is_locked_C], [TRAINING_CASE, LOCKED_CASE], SITE_CASE)[is_seen_C].tolist()
    known = [
        problem(
            str(case["case_id"]),
            str(case["file"]),
            reason,
            f"By id, sex and bone age it is a case that {bundle.version} was {_MET[reason]} on.",
        )
        for case, reason in zip(cases[is_seen_C].to_dict("records"), reasons, strict=True)
    ]
    problems = pd.concat([source.problems, problem_table(known)], ignore_index=True)
    left = replace(source, cases=cases[~is_seen_C].reset_index(drop=True), problems=problems)
    is_training_folder = 2 * reasons.count(TRAINING_CASE) > len(cases)
    about = {"left_out": len(known), "of": len(cases), "is_training_folder": is_training_folder}
    said = [_of_cases(bundle, set(reasons), len(known), len(cases))]
    if is_training_folder:
        said.append("Most were, so these are taken for its cohort's locked test.")
    elif is_locked_test(bundle, left):
        said.append("By these three they are of its cohort's locked test.")
    site = (bundle.manifest["calibration"] or {}).get("site")
    if site and SITE_FILE not in bundle.manifest["files"]:
        said.append(
            f"Which cases of {site['name']} it was calibrated on is not kept, so they may be among these: calibrate "
            f"{site['parent']} again to have them left out."
        )
    return left, about | {"says": " ".join(said)}


def salted(cases: pd.DataFrame, salt: str) -> dict[str, Any]:
    """What `SITE_FILE` holds of the cases that a bundle is calibrated on, and `LOCKED_FILE` of the locked ones.

    Args:
        cases: case_id, is_male, bone_age_months.
        salt: Of the bundle, or of its cohort, so that those of another cannot be matched.

    Returns:
        ``salt``; and ``cases_sha256``, of each case's salt, id, sex and bone age, sorted.
    """
    return {"salt": salt, "cases_sha256": sorted(set(_digests(cases, salt)))}


def _trained_on(bundle: Bundle, cases: pd.DataFrame) -> np.ndarray:
    known = pd.read_parquet(bundle.file(OOF_FILE), columns=["case_id", "is_male", "bone_age_months"])
    return np.asarray(_names(cases).isin(_names(known)), bool)


def _kept_in(bundle: Bundle, name: str, cases: pd.DataFrame) -> np.ndarray:
    """``(C,)`` bool: which cases a file of salted digests holds; none where the bundle has no such file."""
    if name not in bundle.manifest["files"]:
        return np.zeros(len(cases), bool)
    kept = read_json(bundle.file(name))
    known = set(kept["cases_sha256"])
    return np.array([digest in known for digest in _digests(cases, kept["salt"])], bool)


def _of_cases(bundle: Bundle, reasons: set[str], num_seen: int, num_cases: int) -> str:
    if num_seen:
        met = " or ".join(verb for reason, verb in _MET.items() if reason in reasons)
        return (
            f"Left out: {num_seen} of {num_cases} cases, which {bundle.version} was {met} on by their id, sex and bone "
            f"age. The figures are of the other {num_cases - num_seen}."
        )
    met = "trained or calibrated" if SITE_FILE in bundle.manifest["files"] else "trained"
    return (
        f"None of the cases has id, sex and bone age of one that {bundle.version} was {met} on; "
        "a case that was renamed would not be noticed."
    )


def _digests(cases: pd.DataFrame, salt: str) -> list[str]:
    """One SHA-256 a case, of what `_names` names it by."""
    rows = [
        [salt, case_id, "male" if is_male else "female", f"{months:.2f}"] for case_id, is_male, months in _names(cases)
    ]
    return [hashlib.sha256(json.dumps(row).encode()).hexdigest() for row in rows]


def _names(cases: pd.DataFrame) -> pd.Index:
    """One key a case; hundredths of a month, since a unit that was turned into months and back rounds."""
    return pd.MultiIndex.from_arrays(
        [cases["case_id"].astype(str), cases["is_male"].astype(bool), cases["bone_age_months"].astype(float).round(2)]
    )
