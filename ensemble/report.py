"""One HTML page about a whole run: cohort, search, ensemble, locked test and an answer over HTTP."""

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble.bundle import Bundle
from ensemble.documents import pareto_drawing, selection_scores
from ensemble.evaluate import evaluate
from ensemble.figures import bone_age_histogram, distribution, scale, stretched
from ensemble.predictor import Predictor, in_words
from preprocessing import page
from preprocessing.charts import svg
from preprocessing.cohort import Cohort
from preprocessing.storage import AnyPath, as_path, read_json
from search.figures import agreement, bland_altman
from search.trial import all_outcomes, read_study

STRIP_LENGTH = 8
"""Radiographs in the strip, for each sex."""
NUM_WORST = 6
"""Largest errors shown with their pictures."""


class ReportError(ValueError):
    """The folders named do not belong together."""


def render(
    bundle: Bundle,
    *,
    study: str | Path | AnyPath,
    cohort: str | Path | AnyPath,
    answer: str | Path | AnyPath | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Measure the bundle on the locked test and describe how it came about, on one page without any outer resource.

    That is a reading of the locked test like any other: it is noted in the bundle's registry, and the page says which.

    Args:
        bundle: The ensemble.
        study: Where its trials are.
        cohort: What they were trained on.
        answer: What ``python -m serve.ask --out`` wrote.
        progress: Called while the locked test is predicted.

    Raises:
        ReportError: Study, cohort, answer and bundle do not belong together.
        EvaluationError: The cohort has no locked test.
    """
    about, opened = read_study(study), Cohort.load(cohort)
    trained_on = bundle.manifest["provenance"]["cohort_hash"]
    for name, found in (("study", about["cohort_hash"]), ("cohort", opened.hash)):
        if found != trained_on:
            raise ReportError(
                f"{bundle.version} was trained on the cohort {trained_on[:12]}, the {name} given has "
                f"{found[:12]}. Name the {name} it came from."
            )
    answered = _answer(answer, bundle) if answer else None  # refused before the test is read
    purpose = "to describe a run on a page"
    evaluation = evaluate(Predictor(bundle), cohort, command="report", purpose=purpose, progress=progress)
    template = page.environment(Path(__file__).parent / "templates", words=in_words).get_template("report.html")
    return template.render(
        bundle=bundle,
        evidence=bundle.manifest["evidence"],
        provenance=bundle.manifest["provenance"],
        study=about,
        cohort=_describe_cohort(opened),
        strip=_strip(opened),
        trials=_leaderboard(study, bundle),
        members=_members(bundle),
        test=evaluation.report,
        worst=_worst(evaluation.cases, opened),
        scale=_scale(evaluation.report),
        scores=selection_scores(bundle.manifest["evidence"]),
        profiles=bundle.manifest["profiles"],
        pareto=pareto_drawing(bundle.folder, bundle.manifest["files"]),
        answer=answered,
        pictures={
            "histogram": svg(bone_age_histogram(opened.cases), "Number of cases by bone age, sex and split"),
            "agreement": svg(agreement(evaluation.cases), "Predicted against reference bone age, locked test"),
            "bland_altman": svg(bland_altman(evaluation.cases), "Bland-Altman plot of the locked test"),
        },
    )


def _describe_cohort(cohort: Cohort) -> dict[str, Any]:
    cases = cohort.cases
    rows = []
    for name, chosen in (
        ("search, in " + str(cohort.num_folds) + " folds", ~cases["is_test"]),
        ("locked test", cases["is_test"]),
        ("all", cases["is_test"] | True),
    ):
        part = cases[chosen]
        ages = part["bone_age_months"]
        rows.append(
            {
                "name": name,
                "n": len(part),
                "girls": int((~part["is_male"]).sum()),
                "boys": int(part["is_male"].sum()),
                "median": in_words(ages.median()) if len(part) else "",
                "range": f"{in_words(ages.min())} to {in_words(ages.max())}" if len(part) else "",
            }
        )
    folds = [int((cases["fold"] == fold).sum()) for fold in range(cohort.num_folds)]
    return {
        "name": Path(cohort.source).name,
        "n": len(cases),
        "size": cohort.recipe.size,
        "rows": rows,
        "folds": folds,
        "hash": cohort.hash,
    }


def _strip(cohort: Cohort) -> list[dict[str, Any]]:
    """For each sex, cases outside the locked test, evenly spaced over the bone ages that occur."""
    cases = cohort.cases[~cohort.cases["is_test"]]
    strips = []
    for name, is_male in (("Girls", False), ("Boys", True)):
        of_sex = cases[cases["is_male"] == is_male].sort_values("bone_age_months")
        if of_sex.empty:
            continue
        ages = of_sex["bone_age_months"]
        low, high = np.percentile(ages, [2, 98])
        wanted = np.linspace(low, high, min(STRIP_LENGTH, len(ages)))
        rows = list(dict.fromkeys((ages - months).abs().idxmin() for months in wanted))
        pictures = [
            {
                "src": page.embed(page.radiograph(cohort.pixels[row, 0])),
                "bone_age": in_words(ages[row]),
            }
            for row in rows
        ]
        strips.append({"name": name, "pictures": pictures})
    return strips


def _leaderboard(study: str | Path | AnyPath, bundle: Bundle) -> list[dict[str, Any]]:
    """Every trial, best first; those without an error behind."""
    name = read_study(study)["name"]
    weights = {member.trial: member.weight for member in bundle.members if member.study == name}
    candidates = [row for row in bundle.manifest["evidence"]["candidates"] if row["study"] == name]
    pooled = {row["trial"]: row["oof_mae_months"] for row in candidates}
    rows = []
    for outcome in all_outcomes(study):
        number, config = outcome["number"], outcome["config"]
        rows.append(
            {
                "number": number,
                "backbone": config["backbone"],
                "settings": (
                    f"head {config['head']}, learning rate {config['learning_rate']:.2g}, "
                    f"augmentation {config['augmentation']:.2f}"
                ),
                "state": outcome["state"],
                "reason": outcome.get("reason") or "",
                "folds": outcome.get("fold_mae_months") or [],
                "oof": pooled.get(number),
                "weight": weights.get(number),
            }
        )
    return sorted(rows, key=lambda row: (row["oof"] is None, row["oof"] or 0.0, row["number"]))


def _members(bundle: Bundle) -> list[dict[str, Any]]:
    return [
        {
            "trial": member.trial,
            "backbone": member.config.backbone,
            "weight": member.weight,
            "folds": len(member.files),
        }
        for member in sorted(bundle.members, key=lambda member: -member.weight)
    ]


def _worst(cases: pd.DataFrame, cohort: Cohort) -> list[dict[str, Any]]:
    row_of_case = dict(zip(cohort.cases["case_id"], cohort.cases.index, strict=True))
    cases = cases.assign(error=cases["predicted_months"] - cases["bone_age_months"])
    largest = cases["error"].abs().sort_values(ascending=False).index[:NUM_WORST]
    return [
        {
            "case_id": case["case_id"],
            "sex": case["sex"],
            "error": case["error"],
            "src": page.embed(page.radiograph(cohort.pixels[row_of_case[case["case_id"]], 0])),
            "reference": in_words(case["bone_age_months"]),
            "predicted": in_words(case["predicted_months"]),
        }
        for case in cases.loc[largest].to_dict("records")
    ]


def _scale(test: dict[str, Any]) -> list[dict[str, Any]]:
    """The two errors of the locked test on one scale."""
    ours = {"name": "this ensemble", "kind": "ours", "value": test["mae_months"], "ci95": test["mae_ci95"]}
    median = {"value": test["median_predictor_mae_months"], "ci95": test["median_predictor_ci95"]}
    return scale([ours, {"name": "median predictor", "kind": "median", **median}])


def _answer(path: str | Path | AnyPath, bundle: Bundle) -> dict[str, Any]:
    record = read_json(as_path(path))
    try:
        answer, true_months = record["answer"], record.get("bone_age_months_true")
        if answer["version"] != bundle.version:
            raise ReportError(
                f"{path} was answered by {answer['version']}, not by {bundle.version}. Ask the service again."
            )
        return {
            **answer,
            "case_id": record.get("case_id") or record.get("file"),
            "sex": record["sex"],
            "true_months": true_months,
            "error": None if true_months is None else answer["bone_age_months"] - true_months,
            "picture": _thumbnail(record.get("image_png_base64")),
            "curve": svg(distribution(answer, true_months), "Predicted distribution of the bone age"),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is no answer that python -m serve.ask wrote ({error}).") from None


def _thumbnail(encoded: str | None) -> str | None:
    """The picture, stretched to be seen on a page; drawn anew, so that nothing but pixels comes from the file."""
    try:
        picture = stretched(base64.b64decode(encoded or "", validate=True))
    except binascii.Error:
        return None
    return page.embed(picture) if picture else None
