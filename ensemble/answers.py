"""A source of labelled cases, predicted: one row for each case with an answer, and a reason for each without.

Files are read by all cores a few batches ahead of the predictor, so that memory does not grow with the folder.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pandas as pd

from ensemble.measures import OF_ANSWER
from ensemble.predictor import Prediction, Predictor
from ensemble.printed import tally
from preprocessing.prepare import ChunkResult, read_chunk, stated, thread_map
from preprocessing.sources import Source, problem, problem_table
from preprocessing.standardize import Reading
from preprocessing.storage import AnyPath

BATCH = 32
"""Files read and predicted at a time, so that memory does not grow with the folder."""
_CASE_COLUMNS = ["case_id", "sex", "is_male", "bone_age_months", "chronological_age_months", "file"]


class EvaluationError(ValueError):
    """There is nothing to measure, or it does not fit the bundle."""


def predict_source(
    predictor: Predictor, source: Source, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict all cases of a source that has been read: the cases with an answer, and what was not used and why.

    Raises:
        EvaluationError: No case can be used.
    """
    batches = file_batches(source.folder, source.paths, predictor)
    return predict_cases(predictor, source.cases, batches, source.problems, source.folder, progress)


def predict_cases(
    predictor: Predictor,
    cases: pd.DataFrame,
    batches: Iterator[ChunkResult],
    rejected: pd.DataFrame,
    folder: AnyPath,
    progress: Callable[[int, int], None],
    *,
    profile: str = "full",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As `predict_source`, of batches of readings, or of errors in their place, in the order of `cases`.

    Args:
        predictor: Answers.
        cases: One row a reading.
        batches: Readings.
        rejected: What was not even read; the result adds to it.
        folder: Named in the error.
        progress: Called with the number of cases done and of all.
        profile: Which members answer.
    """
    predictions, problems = _predict(predictor, cases, batches, progress, profile)
    rejected = pd.concat([rejected, problem_table(problems)], ignore_index=True)
    if not predictions:
        reasons = rejected["reason"].value_counts().to_dict()
        listed = tally(reasons) or "it has no case"
        raise EvaluationError(
            f"{folder} holds no labelled radiograph that can be used: {listed}. "
            "Name a folder with a CSV of id, boneage, male and the pictures."
        )
    return tabulate(cases, predictions), rejected


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
        findings=[",".join(sorted({f.code for f in p.warnings} - OF_ANSWER)) for p in chosen],
        warnings=[" ".join(warning.message for warning in prediction.warnings) for prediction in chosen],
    )
    for level in chosen[0].intervals:
        for place, end in enumerate(("low", "high")):
            table[f"{end}_{level}"] = [prediction.intervals[level][place] for prediction in chosen]
    table["distribution"] = pd.Series([prediction.distribution for prediction in chosen], table.index, dtype=object)
    return table.reset_index(drop=True)


def file_batches(folder: AnyPath, files: list[str], predictor: Predictor) -> Iterator[ChunkResult]:
    """Readings, or errors in their place, read by all cores a few batches ahead of the predictor."""
    chunks = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    yield from thread_map(partial(read_chunk, folder=folder, reader=predictor.reader), chunks)


def _predict(
    predictor: Predictor,
    cases: pd.DataFrame,
    batches: Iterator[ChunkResult],
    progress: Callable[[int, int], None],
    profile: str,
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
            predicted = predictor.predict(pixels_BVHW, is_male[list(usable)], warnings, profile=profile)
            predictions |= zip(usable, predicted, strict=True)
        done += len(results)
        progress(done, len(cases))
    return predictions, problems
