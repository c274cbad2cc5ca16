"""Does the ensemble keep what it says: ``python -m benchmarks.ensemble STUDY... --cohort COHORT [--refit]``.

Builds the ensemble of finished studies without publishing it, then opens the locked test: the ensemble and its best
single member by out-of-fold error, each as it would be served, case by case: a member is the mean of its fold models,
or with ``--refit`` one model trained on all folds, which is trained now where that is not done. Three claims are
judged, each said to hold or not:

1. the ensemble beats its best single member: the paired 95 % interval of the difference excludes zero;
2. BBC-CV's interval covers the error on the locked test; and, judged beside it, the two differ by no more than chance
   explains: the 95 % interval of the difference, by the spread of both, since the locked test is a sample too;
3. the selection's own out-of-fold score is optimistic: below the corrected one.

Like is held against like. BBC-CV as served (see `ensemble.ambiguity`) is held against the ensemble as served. Where it
cannot be stated, BBC-CV speaks of single models, and is held against ensembles of single fold models, drawn one a
member, which are worse than the means that are served. Refitted members are single models.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.bundle import Bundle
from ensemble.combine import combine
from ensemble.fold_models import with_fold_answers
from ensemble.predictor import Predictor
from ensemble.robust import combine_members
from preprocessing.cohort import Cohort
from preprocessing.progress import counting
from search.metrics import bootstrap_ci95
from search.model import load_model, sex_codes
from search.predict import predict


def models_of_members(bundle: Bundle, cohort: Cohort) -> list[np.ndarray]:
    """Of each member, ``(k, L, 240)`` distributions of its models on the locked test; k is 1 for a refitted one."""
    sex, rows = sex_codes(cohort.cases["is_male"]), cohort.test_rows()
    found: list[np.ndarray] = []
    show = counting("models on the locked test")
    total = sum(len(member.files) for member in bundle.members)
    for member in bundle.members:
        said = []
        for file in member.files:
            said.append(predict(load_model(file, member.config), cohort.view(member.config.view), sex, rows, "cpu"))
            show(len(said) + sum(len(each) for each in found), total)
        found.append(np.stack(said).astype(np.float64))
    return found


def errors(bundle: Bundle, cohort: Cohort) -> dict[str, np.ndarray]:
    """``(L,)`` absolute errors on the locked test: of the ensemble, its best member, and of one model a member."""
    rows = cohort.test_rows()
    actual_L = cohort.cases["bone_age_months"].to_numpy(np.float64)[rows]
    members = models_of_members(bundle, cohort)
    weights_E = np.array([member.weight for member in bundle.members])
    rule = bundle.manifest["combination"]
    mae = {(row["study"], row["trial"]): row["oof_mae_months"] for row in bundle.manifest["evidence"]["candidates"]}
    best = int(np.argmin([mae[member.study, member.trial] for member in bundle.members]))
    means_EBM = np.stack([said.mean(axis=0) for said in members])
    months_L = combine_members(means_EBM, weights_E, rule)[1]
    singles = [
        np.abs(combine_members(np.stack([said[fold] for said in members]), weights_E, rule)[1] - actual_L)
        for fold in range(min(len(said) for said in members))
    ]
    return {
        "ensemble": np.abs(months_L - actual_L),
        "best member": np.abs(combine_members(means_EBM[[best]], np.ones(1), rule)[1] - actual_L),
        "ensemble of single models": np.mean(singles, axis=0),
    }


def served(bundle: Bundle, cohort: Cohort) -> np.ndarray:
    """``(L,)`` absolute errors of the answers that a service would give, calibration included."""
    rows, cases = cohort.test_rows(), cohort.cases
    answers = Predictor(bundle).predict(cohort.pixels[rows], cases["is_male"].to_numpy()[rows])
    months = np.array([answer.bone_age_months for answer in answers])
    return np.abs(months - cases["bone_age_months"].to_numpy(np.float64)[rows])


def half_width(interval: Sequence[float]) -> float:
    """Of a 95 % interval."""
    return (interval[1] - interval[0]) / 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ensemble", description=__doc__)
    parser.add_argument("studies", nargs="+", metavar="study")
    parser.add_argument("--cohort", required=True, help="that the studies used")
    parser.add_argument("--method", default="auto", help="(default auto)")
    parser.add_argument("--refit", action="store_true", help="serve each member as one model, trained on all folds")
    options = parser.parse_args()
    cohort, fitted = Cohort.load(options.cohort), "refit" if options.refit else "folds"
    combination = combine(*options.studies, method=options.method, fitted=fitted, progress=counting("bootstrap rounds"))
    print("\n".join(combination.table()), flush=True)
    if options.refit:
        combination.refit(cohort)
    else:
        combination = with_fold_answers(combination, cohort, progress=counting("fold models on unseen pictures"))
    with tempfile.TemporaryDirectory() as folder:
        combination.write(Path(folder))
        bundle = Bundle.load(folder)
        found = errors(bundle, cohort) | {"as served": served(bundle, cohort)}
    evidence = combination.evidence
    single = evidence["bias_corrected_mae_months"]
    served_score, optimistic = evidence.get("as_served_mae_months"), evidence["ensemble_oof_mae_months"]["value"]
    score, scored = (served_score, "ensemble") if served_score else (single, "ensemble of single models")
    change_L = found["ensemble"] - found["best member"]
    figures = {name: (float(error_L.mean()), bootstrap_ci95(error_L[None])[0]) for name, error_L in found.items()}
    gain, gain_ci = float(change_L.mean()), bootstrap_ci95(change_L[None])[0]
    print(f"\nlocked test, n = {len(change_L)}")
    for name, (mae, (low, high)) in figures.items():
        print(f"  {name:<31} {mae:6.2f} months   95 % interval {low:.2f} to {high:.2f}")
    print(f"  ensemble less best member       {gain:+6.2f} months   paired, {gain_ci[0]:+.2f} to {gain_ci[1]:+.2f}")
    mae, mae_ci = figures[scored]
    difference, reach = mae - score["value"], math.hypot(*(half_width(ci) for ci in (score["ci95"], mae_ci)))
    print(
        f"  {scored} less BBC-CV {difference:+6.2f} months   {difference - reach:+.2f} to {difference + reach:+.2f}; "
        f"BBC-CV {score['value']:.2f}, {score['ci95'][0]:.2f} to {score['ci95'][1]:.2f}"
    )
    claims: dict[str, Any] = {
        "beats its best member": gain_ci[1] < 0,
        "BBC-CV's interval covers the locked test": score["ci95"][0] <= mae <= score["ci95"][1],
        "chance explains their difference": abs(difference) <= reach,
        "its own score is optimistic": bool(optimistic < single["value"]),
    }
    for claim, holds in claims.items():
        print(f"  {claim}: {'holds' if holds else 'does not hold'}")
    summary = {
        "name": "ensemble",
        "n": len(change_L),
        "members": fitted,
        "bbc_cv": single,
        "bbc_cv_as_served": served_score,
        "optimistic": optimistic,
        "gain_over_best_member": {"months": gain, "ci95": gain_ci},
        "locked_test_less_bbc_cv": {"months": difference, "ci95": [difference - reach, difference + reach]},
        "locked_test": {name: {"mae": mae, "ci95": ci} for name, (mae, ci) in figures.items()},
        "claims": claims,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
