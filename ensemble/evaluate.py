"""How good a bundle is on labelled cases, each figure with what is needed to judge it.

Shape letters: C cases, M monthly bins.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble import measures
from ensemble.predictions import join, read_predictions, read_references
from ensemble.predictor import Prediction, Predictor
from preprocessing import cohort as cohort_folder
from preprocessing.cohort import Cohort
from preprocessing.prepare import NEAR_DUPLICATE, ChunkResult, read_chunk, stated, thread_map
from preprocessing.sources import SourceOptions, problem, problem_table, read_source
from preprocessing.standardize import Reading
from preprocessing.storage import AnyPath, as_path
from search.metrics import bootstrap_ci95, rounded

BATCH = 32
"""Files read and predicted at a time, so that memory does not grow with the folder."""
_CASE_COLUMNS = ["case_id", "sex", "is_male", "bone_age_months", "chronological_age_months", "file"]
_OF_MEMBERS = {"members_disagree", "sex_improbable", "sex_unknown"}
"""Warnings that speak of the answer and not of how the picture was taken."""


class EvaluationError(ValueError):
    """There is nothing to measure, or it does not fit the bundle."""


@dataclass(frozen=True)
class Evaluation:
    """A bundle measured on one source."""

    report: dict[str, Any]
    """The figures, as JSON values."""
    cases: pd.DataFrame
    """One row a case, as `ensemble.measures` has it."""
    rejected: pd.DataFrame
    """One row a file or label that was not used: case_id, file, reason, detail."""


def beside_median(cases: pd.DataFrame, training_median_months: float, *, seed: int = 0) -> dict[str, Any]:
    """What it costs to look at no picture: the error of saying the training median to every case, and the gain over it.

    Args:
        cases: bone_age_months, predicted_months.
        training_median_months: What the median predictor says.
        seed: Of the bootstrap, which is paired: 95 % percentile intervals from 2,000 resamples of the cases.
    """
    actual_C, predicted_C = cases["bone_age_months"].to_numpy(float), cases["predicted_months"].to_numpy(float)
    of_median_C = np.abs(training_median_months - actual_C)
    gain_C = of_median_C - np.abs(predicted_C - actual_C)
    median_ci, gain_ci = bootstrap_ci95(np.stack([of_median_C, gain_C]), seed=seed)
    return {
        "median_predictor_mae_months": rounded(of_median_C.mean()),
        "median_predictor_ci95": median_ci,
        "gain_over_median_months": rounded(gain_C.mean()),
        "gain_over_median_ci95": gain_ci,
    }


def evaluate_table(
    predictions: str | Path | AnyPath,
    source: str | Path | AnyPath | None = None,
    options: SourceOptions | None = None,
    *,
    column: str = "",
    unit: str = "",
) -> Evaluation:
    """Measure the predictions of any system.

    Args:
        predictions: A CSV or Parquet file with an id and a predicted bone age a row.
        source: References: labelled pictures, a cohort (its locked test) or a table; None where the predictions' own
            table holds them.
        options: What looking at the source does not show.
        column: Of the predictions; empty to look for it.
        unit: Of the predictions; empty to go by the column's name.

    Raises:
        SourceError: A table cannot be read, or the two share no case.
    """
    predicted = read_predictions(predictions, column=column, unit=unit)
    references, problems = read_references(predictions if source is None else source, options)
    cases, unmatched = join(predicted, references)
    rejected = pd.concat([problems, unmatched], ignore_index=True)
    report = {
        "predictions": Path(str(predictions)).name,
        "source": "a table of predictions",
        **measures.figures(cases),
        **_of_rejected(rejected),
    }
    return Evaluation(report, cases, rejected)


def evaluate(
    predictor: Predictor,
    source: str | Path | AnyPath,
    options: SourceOptions | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Predict all cases of a source and measure the result.

    Args:
        predictor: With the bundle to measure.
        source: Labelled pictures in any layout, or a cohort: then its locked test split and nothing else.
        options: What looking at the source does not show.
        progress: Called with the number of cases done and of all cases.

    Raises:
        EvaluationError: No case can be used, or the cohort was prepared by another recipe.
        SourceError: The folder is in no known layout.
    """
    folder = as_path(source)
    bundle = predictor.bundle
    about: dict[str, Any] = {"bundle": bundle.version, "recipe": bundle.recipe.hash}
    if (folder / cohort_folder.MARKER).exists():
        cohort = Cohort.load(folder)
        cohort.verify()
        if not len(cohort.test_rows()):
            raise EvaluationError(f"{folder} locks no test split. Prepare it with --test above 0, or name other cases.")
        same = cohort.hash == bundle.manifest["provenance"]["cohort_hash"]
        about |= {"source": "locked test of a cohort", "cohort_of_bundle": same}
        cases, rejected = _locked_test(cohort, predictor), problem_table([])
        batches = _cohort_batches(cohort)
    else:
        found = read_source(folder, options)
        about |= {"source": "labelled folder"}
        cases, rejected = found.cases, found.problems
        batches = _file_batches(found.folder, found.paths, predictor)
    predictions, problems = _predict(predictor, cases, batches, progress)
    rejected = pd.concat([rejected, problem_table(problems)], ignore_index=True)
    reasons = rejected["reason"].value_counts().to_dict()
    if not predictions:
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.items()) or "it has no case"
        raise EvaluationError(
            f"{folder} holds no labelled radiograph that can be used: {listed}. "
            "Name a folder with a CSV of id, boneage, male and the pictures."
        )
    table = tabulate(cases, predictions)
    report = {
        **about,
        **measures.figures(table),
        **beside_median(table, bundle.training_median_months),
        **_of_rejected(rejected),
    }
    return Evaluation(report, table, rejected)


def tabulate(cases: pd.DataFrame, predictions: Mapping[int, Prediction]) -> pd.DataFrame:
    """Cases that were predicted, as `ensemble.measures` wants them, with spread_months and warnings beside.

    Args:
        cases: As `preprocessing.source.Source.cases` has them.
        predictions: By row number of `cases`; one or more.
    """
    rows = sorted(predictions)
    known = [name for name in _CASE_COLUMNS if name in cases]
    chosen = [predictions[row] for row in rows]
    table = cases.loc[rows, known].assign(
        predicted_months=[prediction.bone_age_months for prediction in chosen],
        spread_months=[prediction.spread_months for prediction in chosen],
        findings=[",".join(sorted({f.code for f in p.warnings} - _OF_MEMBERS)) for p in chosen],
        warnings=[" ".join(warning.message for warning in prediction.warnings) for prediction in chosen],
    )
    for level in chosen[0].intervals:
        for place, end in enumerate(("low", "high")):
            table[f"{end}_{level}"] = [prediction.intervals[level][place] for prediction in chosen]
    table["distribution"] = pd.Series([prediction.distribution for prediction in chosen], table.index, dtype=object)
    return table.reset_index(drop=True)


def _of_rejected(rejected: pd.DataFrame) -> dict[str, Any]:
    return {
        "rejected": len(rejected),
        "rejected_reasons": rejected["reason"].value_counts().to_dict(),
        "rejected_files": rejected.to_dict("records"),
    }


def _locked_test(cohort: Cohort, predictor: Predictor) -> pd.DataFrame:
    if cohort.recipe.hash != predictor.bundle.recipe.hash:
        raise EvaluationError(
            f"The cohort must be prepared by the bundle's recipe {predictor.bundle.recipe.hash[:12]}, got "
            f"{cohort.recipe.hash[:12]}. Evaluate on the labelled folder instead."
        )
    return cohort.cases.iloc[cohort.test_rows()].reset_index(drop=True)


def _cohort_batches(cohort: Cohort) -> Iterator[ChunkResult]:
    rows = cohort.test_rows()
    findings = {
        case_id: tuple(finding for finding in found if finding.code != NEAR_DUPLICATE)
        for case_id, found in cohort.findings().items()
    }
    case_ids = cohort.cases["case_id"].to_numpy()
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        pixels_BVHW = cohort.pixels[batch]
        yield [Reading(p, findings.get(i, ()), None) for p, i in zip(pixels_BVHW, case_ids[batch], strict=True)]


def _file_batches(folder: AnyPath, files: list[str], predictor: Predictor) -> Iterator[ChunkResult]:
    """Readings, or errors in their place, read by all cores a few batches ahead of the predictor."""
    chunks = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    yield from thread_map(partial(read_chunk, folder=folder, reader=predictor.reader), chunks)


def _predict(
    predictor: Predictor,
    cases: pd.DataFrame,
    batches: Iterator[ChunkResult],
    progress: Callable[[int, int], None],
) -> tuple[dict[int, Prediction], list[dict[str, str]]]:
    """Predictions by row number of `cases`, and a problem for each row without one."""
    is_male, labels = cases["is_male"].to_numpy(bool), stated(cases)
    predictions: dict[int, Prediction] = {}
    problems = []
    done = 0
    for results in batches:
        usable: dict[int, Reading] = {}
        for row, result in enumerate(results, start=done):
            if isinstance(result, Reading):
                usable[row] = result
            else:
                case_id, file = str(cases.at[row, "case_id"]), str(cases.at[row, "file"])
                problems.append(problem(case_id, file, result.code, str(result)))
        if usable:
            pixels_BVHW = np.stack([reading.pixels for reading in usable.values()])
            warnings = [reading.warnings(**labels[row]) for row, reading in usable.items()]
            predicted = predictor.predict(pixels_BVHW, is_male[list(usable)], warnings)
            predictions |= zip(usable, predicted, strict=True)
        done += len(results)
        progress(done, len(cases))
    return predictions, problems
