"""Who is put under stress: a bundle, or whoever else answers radiographs with bone ages, as endpoint.py over HTTP."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ensemble.predictor import Predictor
from preprocessing.prepare import num_cores, single_thread
from preprocessing.radiograph import RadiographError
from preprocessing.standardize import Reading


@dataclass(frozen=True)
class Answer:
    """What was said of one file."""

    months: float | None
    """None where it was refused, or nothing was said."""
    interval90: tuple[float, float] | None = None
    """Low and high end, both finite, in months; None where there is no such interval."""
    reason: str = ""
    """Why there is no bone age: a code of the gate, ``http_400`` and the like, ``timeout``, ``no_answer``,
    ``impossible_age``."""
    is_failure: bool = False
    """Whether nobody judged the file: the service broke (5xx), was busy, not found, silent, or said no bone age. A
    refusal is a judgement, and only that is the right answer to a wrong input."""
    warnings: tuple[str, ...] = ()
    """Codes of what the answer warns of."""


@dataclass(frozen=True)
class Query:
    """One file, and what is stated of the child."""

    data: bytes
    sex: str | None = None
    """``male``, ``female``, or None where none is stated."""
    chronological_age_months: float | None = None
    """None where none is stated."""


Subject = Callable[[Sequence[Query]], list[Answer]]
"""From queries to as many answers."""


def bundle_subject(predictor: Predictor) -> Subject:
    """A bundle, asked as the service asks it: the whole path from the file's bytes on."""
    pool = ThreadPoolExecutor(num_cores(), "stress", initializer=single_thread)
    reader = predictor.reader

    def read(query: Query) -> Reading | str:
        try:
            return reader.read(query.data)
        except RadiographError as error:
            return error.code

    def ask(queries: Sequence[Query]) -> list[Answer]:
        readings = list(pool.map(read, queries))
        usable = [index for index, reading in enumerate(readings) if isinstance(reading, Reading)]
        answers = [Answer(None, reason=str(reading)) for reading in readings]
        if usable:
            asked = [queries[index] for index in usable]
            chosen = [reading for reading in readings if isinstance(reading, Reading)]
            predictions = predictor.predict(
                np.stack([reading.pixels for reading in chosen]),
                np.array([None if query.sex is None else query.sex == "male" for query in asked], dtype=object),
                [
                    reading.warnings(sex=query.sex, chronological_age_months=query.chronological_age_months)
                    for reading, query in zip(chosen, asked, strict=True)
                ],
            )
            for index, query, said in zip(usable, asked, predictions, strict=True):
                age = query.chronological_age_months
                prediction = said if age is None else said.beside(age, query.sex)
                codes = tuple(warning.code for warning in prediction.warnings)
                answers[index] = Answer(prediction.bone_age_months, prediction.intervals.get(90), warnings=codes)
        return answers

    return ask
