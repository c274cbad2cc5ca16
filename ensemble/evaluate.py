"""How good a bundle is on labelled cases, each figure with what is needed to judge it.

Shape letters: C cases, M monthly bins.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble import measures
from ensemble.answers import BATCH, EvaluationError, file_batches, predict_cases
from ensemble.bundle import Bundle
from ensemble.chronology import PUBLISHED, Norms
from ensemble.locked import keep_figures, note_reading, open_test
from ensemble.plausible import impossible_ages, in_doubt
from ensemble.predictions import join, read_predictions, read_references
from ensemble.predictor import Predictor
from ensemble.unseen import SITE_FILE, is_locked_test, leave_out
from preprocessing import cohort as cohort_folder
from preprocessing.cohort import Cohort
from preprocessing.prepare import NEAR_DUPLICATE, ChunkResult
from preprocessing.sources import Source, SourceOptions, problem_table, read_source
from preprocessing.standardize import Reading
from preprocessing.storage import AnyPath, as_path
from search.metrics import beside_median

PURPOSE = "to measure how good it is"
"""Of an evaluation, unless the caller says another."""


@dataclass(frozen=True)
class Evaluation:
    """A bundle measured on one source."""

    report: dict[str, Any]
    """The figures, as JSON values."""
    cases: pd.DataFrame
    """One row a case, as `ensemble.measures` has it."""
    rejected: pd.DataFrame
    """One row a file or label that was not used: case_id, file, reason, detail."""
    norms: Norms = PUBLISHED
    """Of healthy children, by which errors were found clinically significant: the bundle's."""


def evaluate_table(
    predictions: str | Path | AnyPath,
    source: str | Path | AnyPath | None = None,
    options: SourceOptions | None = None,
    *,
    column: str = "",
    unit: str = "",
    command: str = "evaluate",
    purpose: str = PURPOSE,
) -> Evaluation:
    """Measure the predictions of any system.

    Args:
        predictions: A CSV or Parquet file with an id and a predicted bone age a row.
        source: References: labelled pictures, a cohort (its locked test) or a table; None where the predictions' own
            table holds them.
        options: What looking at the source does not show; ``trust_unit`` holds for the predictions too.
        column: Of the predictions; empty to look for it.
        unit: Of the predictions; empty to go by the column's name.
        command: That asks, as `ensemble.locked.open_test` has it.
        purpose: What for.

    Raises:
        EvaluationError: The cohort locks no test split.
        SourceError: A table cannot be read, or the two share no case.
    """
    options = options or SourceOptions()
    predicted, unanswered = read_predictions(predictions, column=column, unit=unit, trust_unit=options.trust_unit)
    about: dict[str, Any] = {"predictions": Path(str(predictions)).name, "source": "a table of predictions"}
    if source is not None and _is_cohort(as_path(source)):
        cohort = Cohort.load(source)
        rows, about["locked_test"] = open_test(cohort, None, command=command, purpose=purpose)
        references = Source(as_path(source), _cases_at(cohort, rows), problem_table([]), cohort.notes())
    else:
        references = read_references(predictions if source is None else source, options)
    cases, unmatched = join(predicted, references.cases, unanswered)
    rejected = pd.concat([references.problems, unmatched], ignore_index=True)
    report = {
        **about,
        **measures.figures(cases),
        **in_doubt(cases),
        **impossible_ages(cases, references.notes),
        **_of_rejected(rejected),
    }
    return Evaluation(report, cases, rejected)


def evaluate(
    predictor: Predictor,
    source: str | Path | AnyPath,
    options: SourceOptions | None = None,
    *,
    profile: str = "full",
    command: str = "evaluate",
    purpose: str = PURPOSE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Predict all cases of a source and measure the result.

    Cases that the bundle was trained or calibrated on are left out, and counted: see `ensemble.unseen`. A reading of a
    cohort's locked test is noted in the registry that the bundle lies in: see `ensemble.locked`. So is that of a folder
    with the same cases, and of one where it was trained on most: the cohort was prepared from it, and the others are
    its locked test.

    Args:
        predictor: With the bundle to measure.
        source: Labelled pictures in any layout, or a cohort: then its locked test split and nothing else.
        options: What looking at the source does not show.
        profile: Which members answer.
        command: That asks, for the note of a locked test that is read.
        purpose: What for.
        progress: Called with the number of cases done and of all cases.

    Raises:
        EvaluationError: No case can be used or is new to the bundle, or what `check` refuses.
        SourceError: The folder is in no known layout.
    """
    folder = as_path(source)
    bundle = predictor.bundle
    about: dict[str, Any] = {"bundle": bundle.version, "profile": profile, "recipe": bundle.recipe.hash}
    cohort = check(bundle, folder, profile=profile)
    if cohort:
        rows, reading = open_test(cohort, bundle, command=command, purpose=purpose, profile=profile)
        same = cohort.hash == bundle.manifest["provenance"]["cohort_hash"]
        about |= {"source": "locked test of a cohort", "cohort_of_bundle": same, "locked_test": reading}
        found = Source(folder, _cases_at(cohort, rows), problem_table([]), cohort.notes())
    else:
        found = read_source(folder, options)
        about |= {"source": "labelled folder"}
    # of its own cohort's locked test it was trained on none, but a site's may lie there
    if not about.get("cohort_of_bundle") or SITE_FILE in bundle.manifest["files"]:
        found, about["training_cases"] = leave_out(bundle, found)
        if found.cases.empty and about["training_cases"]["left_out"]:
            raise EvaluationError(
                f"{folder}: {bundle.version} was trained or calibrated on every case of it that can be read, so that "
                "none is left to measure it by. Name cases that it has not seen, or its cohort for the locked test."
            )
        if not cohort and (about["training_cases"]["is_training_folder"] or is_locked_test(bundle, found)):
            own = bundle.manifest["provenance"]["cohort_hash"]
            about["locked_test"] = note_reading(own, bundle, command=command, purpose=purpose, profile=profile)
    batches = _cohort_batches(cohort, found.cases) if cohort else file_batches(found.folder, found.paths, predictor)
    table, rejected = predict_cases(predictor, found.cases, batches, found.problems, folder, progress, profile=profile)
    report = {
        **about,
        **measures.figures(table, norms=predictor.norms),
        **beside_median(
            table["bone_age_months"].to_numpy(float),
            table["predicted_months"].to_numpy(float),
            bundle.training_median_months,
        ),
        **impossible_ages(table, found.notes),
        **_of_rejected(rejected),
    }
    if cohort:
        keep_figures(bundle, report)
    return Evaluation(report, table, rejected, predictor.norms)


def check(bundle: Bundle, source: str | Path | AnyPath, *, profile: str = "full") -> Cohort | None:
    """Refuse what cannot be measured, before a reading of a locked test is noted.

    Args:
        bundle: That is to answer.
        source: As `evaluate` takes it; of a folder nothing is looked at.
        profile: Which members are to answer.

    Returns:
        The source where it is a cohort.

    Raises:
        EvaluationError: There is no such profile, or the cohort was prepared by another recipe.
    """
    profiles = bundle.manifest["profiles"]
    if profile not in profiles:
        raise EvaluationError(f"{bundle.version} has the profiles {', '.join(profiles)}, got {profile!r}.")
    cohort = Cohort.load(source) if _is_cohort(as_path(source)) else None
    if cohort and cohort.recipe.hash != bundle.recipe.hash:
        raise EvaluationError(
            f"The cohort must be prepared by the bundle's recipe {bundle.recipe.hash[:12]}, got "
            f"{cohort.recipe.hash[:12]}. Evaluate on the labelled folder instead."
        )
    return cohort


def _is_cohort(folder: AnyPath) -> bool:
    return (folder / cohort_folder.MARKER).exists()


def _cases_at(cohort: Cohort, rows: np.ndarray) -> pd.DataFrame:
    return cohort.cases.iloc[rows].reset_index(drop=True)


def _of_rejected(rejected: pd.DataFrame) -> dict[str, Any]:
    return {
        "rejected": len(rejected),
        "rejected_reasons": rejected["reason"].value_counts().to_dict(),
        "rejected_files": rejected.to_dict("records"),
    }


def _cohort_batches(cohort: Cohort, cases: pd.DataFrame) -> Iterator[ChunkResult]:
    rows = np.flatnonzero(cohort.cases["case_id"].isin(cases["case_id"]))
    findings = {
        case_id: tuple(finding for finding in found if finding.code != NEAR_DUPLICATE)
        for case_id, found in cohort.findings().items()
    }
    case_ids = cohort.cases["case_id"].to_numpy()
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        pixels_BVHW = cohort.pixels[batch]
        yield [Reading(p, findings.get(i, ()), None) for p, i in zip(pixels_BVHW, case_ids[batch], strict=True)]
