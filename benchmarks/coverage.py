"""How often intervals hold the bone age of cases never seen: ``python -m benchmarks.coverage REGISTRY COHORT``.

The cases are the locked test of the cohort. Printed are coverage and width of each level, overall and for each sex and
band of the reference bone age, with the sex given and with the sex withheld; beside them what cross-validation found of
single fold models. The verdict is on the 90 % interval: 87 to 93 % of all cases, 84 to 96 % of each group of 60 cases
or more.
"""

import argparse
import json
from typing import Any

import numpy as np

from ensemble.calibration import of_profile
from ensemble.conformal import LEVELS
from ensemble.coverage import coverage
from ensemble.prediction import Prediction
from ensemble.predictor import Predictor
from ensemble.registry import registry_or_bundle
from preprocessing.cohort import Cohort
from preprocessing.progress import Progress

OVERALL, GROUP, GROUP_CASES = (0.87, 0.93), (0.84, 0.96), 60


def ends(predictions: list[Prediction]) -> np.ndarray:
    """``(C, 3, 2)`` months."""
    return np.array([[prediction.intervals[level] for level in LEVELS] for prediction in predictions])


def measured(predictor: Predictor, cohort: Cohort, profile: str, *, known: bool) -> dict[str, Any]:
    """Coverage on the locked test, the sex given or withheld; and the mean absolute error."""
    rows = cohort.test_rows()
    is_male = cohort.cases["is_male"].to_numpy(bool)[rows]
    actual = cohort.cases["bone_age_months"].to_numpy(np.float64)[rows]
    given = is_male if known else np.full(len(rows), None)
    progress = Progress("radiographs predicted", len(rows))
    predictions: list[Prediction] = []
    for start in range(0, len(rows), 256):
        batch = slice(start, start + 256)
        predictions += predictor.predict(np.asarray(cohort.pixels[rows[batch]]), given[batch], profile=profile)
        progress(len(predictions))
    error = np.abs(np.array([prediction.bone_age_months for prediction in predictions]) - actual)
    return {"mae_months": float(error.mean()), **coverage(actual, ends(predictions), is_male)}


def lines(name: str, report: dict[str, Any]) -> list[str]:
    """A table for a person."""
    found = [f"{name}: {report['n']} cases" + (f", MAE {report['mae_months']:.2f}" if "mae_months" in report else "")]
    groups = [{"sex": "all", "bone_age_years": ("", ""), **report}, *report["groups"]]
    for group in groups:
        low, high = group["bone_age_years"]
        years = f"{low:>2} to {high:>2}" if low != "" else "all ages"
        found.append(
            f"  {group['sex']:<7} {years:<9} {group['n']:>5}  "
            + "  ".join(
                f"{level['level']} %: {100 * level['share']:5.1f} [{100 * level['ci95'][0]:5.1f}, "
                f"{100 * level['ci95'][1]:5.1f}], {level['width_months']:5.1f} months"
                for level in group["levels"]
            )
        )
    return found


def verdict(report: dict[str, Any]) -> dict[str, bool]:
    """Whether the 90 % interval holds what it should."""
    middle = LEVELS.index(90)
    large = [group["levels"][middle]["share"] for group in report["groups"] if group["n"] >= GROUP_CASES]
    return {
        "overall_87_to_93": OVERALL[0] <= report["levels"][middle]["share"] <= OVERALL[1],
        "groups_84_to_96": all(GROUP[0] <= share <= GROUP[1] for share in large),
        "at_least_1000_cases": report["n"] >= 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("registry", help="registry or bundle")
    parser.add_argument("cohort", help="cohort whose locked test is predicted")
    parser.add_argument("--version", default="champion")
    parser.add_argument("--profile", default="full", help="which members answer: full (default) or fast")
    parser.add_argument("--given-only", action="store_true", help="leave the sex withheld out: half the time")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    bundle = registry_or_bundle(options.registry, options.version)
    if options.profile not in bundle.manifest["profiles"]:
        parser.error(f"{bundle.version} has no profile {options.profile}.")
    fitted = of_profile(bundle.manifest, options.profile)
    if fitted is None:
        parser.error(f"{bundle.version} holds no calibration of profile {options.profile}: build it again.")
    cohort, predictor = Cohort.load(options.cohort), Predictor(bundle)
    if cohort.recipe.hash != bundle.recipe.hash:
        parser.error("the cohort was prepared by another recipe than the bundle's.")
    reports = {"sex given": measured(predictor, cohort, options.profile, known=True)}
    if not options.given_only:
        reports["sex withheld"] = measured(predictor, cohort, options.profile, known=False)
    promised = fitted["intervals"]["out_of_fold"]
    found = {"bundle": bundle.version, "out of fold": promised, **reports, "verdict": verdict(reports["sex given"])}
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name, report in (("out of fold", promised), *reports.items()):
        print("\n".join(lines(name, report)))
    print(found["verdict"])


if __name__ == "__main__":
    main()
