"""The stress test: every alteration of the suite on the same labelled cases, against their answers as they are.

A refusal is a judgement of the file; a failure is none, such as a service that breaks. Both are counted, apart.

Shape letters: C cases.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ensemble.alterations import Alteration
from ensemble.answers import BATCH
from ensemble.chronology import PUBLISHED, Norms
from ensemble.compare import holm, mcnemar
from ensemble.families import FAILED, REFUSED, RIGHT, WRONG
from ensemble.material import ages, drawn, levels, permuted
from ensemble.measures import chronological_of
from ensemble.significance import clinically_significant, judged_by
from ensemble.subjects import Answer, Query, Subject
from preprocessing.limits import MAX_BYTES, read_limited
from preprocessing.radiograph import RadiographError
from preprocessing.source import Source
from preprocessing.storage import AnyPath
from search.metrics import mean_ci95, rounded


class StressError(ValueError):
    """There is nothing to put under stress, or not in the way that was asked for."""


def stress(
    subject: Subject,
    source: Source,
    suite: list[Alteration],
    *,
    norms: Norms = PUBLISHED,
    num_cases: int = 100,
    seed: int = 0,
    states_age: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Ask for each case as it is and after each alteration.

    Args:
        subject: Who answers.
        source: Labelled radiographs that the subject was not trained on.
        suite: What is done to them.
        norms: Of healthy children, by which an error is clinically significant; a bundle may carry its own.
        num_cases: At most so many cases, drawn once.
        seed: Of that draw, of the alterations' noise and of the bootstrap.
        states_age: Whether the chronological age is stated with every case, as `ensemble.material.ages` has it; a
            system that has no place for it is asked without, and without the alterations of it.
        progress: Called with the number of cases done and of all.

    Returns:
        ``n`` cases, of which ``undecoded`` hold no picture and are asked as they are alone; ``norms``;
        ``stated_ages``, the numbers of cases whose chronological age was ``of_source`` and ``of_reference``, null where
        none was stated; ``clean`` and ``alterations``: for each its family, level, cases ``asked``, shares ``rejected``
        and ``failed``, and their reasons; for those that can be answered also the ``marks`` of the cases that were
        altered, one letter each (see `ensemble.families`), the error, its paired change with a 95 % interval (null of
        fewer than 10 cases), the mean shift, the shares that moved by more than 6 and 12 months, the clinically
        significant errors (McNemar, p after Holm), the coverage of the 90 % interval (null where an answer has
        none), and the share with a warning that the clean picture did not have.

    Raises:
        StressError: No case can be decoded and is answered as it is, or the suite alters a chronological age that is
            not stated, or that no other case can lend.
    """
    rows = drawn(source, num_cases, seed)
    age_C, num_said = ages(source.cases.iloc[rows])
    check_ages(suite, len(rows), states_age)
    anothers_C = permuted(age_C, seed)
    asked: list[list[Answer]] = []
    for done, (row, age, anothers) in enumerate(zip(rows, age_C, anothers_C, strict=True), start=1):
        sex = str(source.cases["sex"].iloc[row])
        both = (float(age), float(anothers)) if states_age else (None, None)
        asked.append(_ask(subject, source.folder / source.paths[row], sex, both, suite, [seed, int(row)]))
        progress(done, len(rows))
    altered_C = np.array([len(answers) == 1 + len(suite) for answers in asked], bool)
    altered = [answers for answers in asked if len(answers) == 1 + len(suite)]
    if not any(answers[0].months is not None for answers in altered):
        raise StressError("A stress test needs 1 case or more that is answered as it is; none was. Name other cases.")
    cases = source.cases.iloc[rows]
    clean = [answers[0] for answers in altered]
    measured = [
        _measure(cases[altered_C], clean, [answers[index] for answers in altered], alteration, norms, seed)
        for index, alteration in enumerate(suite, start=1)
    ]
    tested = [row for row in measured if "significant_errors" in row]
    for row, p in zip(tested, holm([row["significant_errors"]["p"] for row in tested]), strict=True):
        row["significant_errors"]["p_holm"] = p
    return {
        "n": len(cases),
        "undecoded": int((~altered_C).sum()),
        "seed": seed,
        "norms": judged_by(norms),
        "stated_ages": {"of_source": num_said, "of_reference": len(rows) - num_said} if states_age else None,
        "clean": _clean(cases, [answers[0] for answers in asked], norms, seed)
        | {"marks": _marks(cases[altered_C], clean, norms)},
        "alterations": measured,
    }


def check_ages(suite: list[Alteration], num_cases: int, states_age: bool) -> None:
    """Refuse a suite that alters an age that is not stated, or takes another case's where there is one case."""
    for alteration in suite:
        if alteration.age != "as it is" and not states_age:
            raise StressError(f"{alteration.level} needs an age that is stated. State it, or leave the alteration out.")
        if alteration.age == "another's" and num_cases < 2:
            raise StressError(f"{alteration.level} needs 2 cases or more, got {num_cases}. Name more, or leave it out.")


def _ask(
    subject: Subject,
    path: AnyPath,
    sex: str,
    stated_ages: tuple[float | None, float | None],
    suite: list[Alteration],
    seed: list[int],
) -> list[Answer]:
    """The answer to a case as it is, and to each of its alterations; without these where it holds no picture.

    Args:
        subject: Who is asked.
        path: Of the radiograph.
        sex: As the source says it.
        stated_ages: Chronological ages, the case's own and another's; None states none.
        suite: What is done.
        seed: Of what is drawn.
    """
    try:
        data = read_limited(path)
    except OSError:
        return [Answer(None, reason="unreadable")]
    if len(data) > MAX_BYTES:  # cut short here: what anybody said of it would not be said of the file
        return [Answer(None, reason="too_large")]
    queries = [Query(data, sex, stated_ages[0])]
    try:
        image_HW = levels(data)
    except RadiographError:
        return subject(queries)
    answers: list[Answer] = []
    for index, alteration in enumerate(suite, start=1):
        if len(queries) == BATCH:  # a hundred altered files of a large radiograph are a gigabyte
            answers += subject(queries)
            queries = []
        rng = np.random.default_rng([*seed, index])
        altered = alteration.file(data, image_HW, rng)
        queries.append(Query(altered, alteration.sex_of(sex), alteration.age_of(*stated_ages)))
    return answers + subject(queries)


def _clean(cases: pd.DataFrame, answers: list[Answer], norms: Norms, seed: int) -> dict[str, Any]:
    answered_C = np.array([answer.months is not None for answer in answers])
    found = _unanswered(answers)
    actual_C, said_C, is_male_C = _of(cases, answers, answered_C)
    error_C = np.abs(said_C - actual_C)
    ends = [answer.interval90 for answer in answers if answer.months is not None]
    return found | {
        "answered": int(answered_C.sum()),
        "mae_months": rounded(error_C.mean()),
        "mae_ci95": mean_ci95(error_C[None], seed=seed)[0],
        "significant_errors": int(_significant(cases, actual_C, said_C, is_male_C, answered_C, norms).sum()),
        "coverage_90": _coverage(actual_C, ends),
    }


def _measure(
    cases: pd.DataFrame, clean: list[Answer], altered: list[Answer], alteration: Alteration, norms: Norms, seed: int
) -> dict[str, Any]:
    answered_C = np.array([answer.months is not None for answer in altered])
    new = [bool(set(a.warnings) - set(c.warnings)) for a, c in zip(altered, clean, strict=True) if a.months is not None]
    row: dict[str, Any] = {
        "family": alteration.family,
        "level": alteration.level,
        "is_wrong": alteration.is_wrong,
        "asked": len(altered),
        **_unanswered(altered),
        "warned": _share(np.array(new)) if new else None,
    }
    both_C = answered_C & np.array([answer.months is not None for answer in clean])
    row["answered"] = int(both_C.sum())
    if not alteration.is_wrong:
        row["marks"] = _marks(cases, altered, norms)
    if alteration.is_wrong or not both_C.any():
        return row
    actual_C, before_C, is_male_C = _of(cases, clean, both_C)
    _, after_C, _ = _of(cases, altered, both_C)
    change_C, shift_C = np.abs(after_C - actual_C) - np.abs(before_C - actual_C), after_C - before_C
    change_ci, shift_ci = mean_ci95(np.stack([change_C, shift_C]), seed=seed)
    ends = [answer.interval90 for answer, both in zip(altered, both_C, strict=True) if both]
    return row | {
        "mae_months": rounded(np.abs(after_C - actual_C).mean()),
        "mae_change_months": rounded(change_C.mean()),
        "mae_change_ci95": change_ci,
        "shift_months": rounded(shift_C.mean()),
        "shift_ci95": shift_ci,
        "moved_6_months": _share(np.abs(shift_C) > 6),
        "moved_12_months": _share(np.abs(shift_C) > 12),
        "significant_errors": mcnemar(
            _significant(cases, actual_C, before_C, is_male_C, both_C, norms),
            _significant(cases, actual_C, after_C, is_male_C, both_C, norms),
        ),
        "coverage_90": _coverage(actual_C, ends),
    }


def _of(cases: pd.DataFrame, answers: list[Answer], chosen_C: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    said = [answer.months for answer, is_chosen in zip(answers, chosen_C, strict=True) if is_chosen]
    chosen = cases[chosen_C]
    return chosen["bone_age_months"].to_numpy(float), np.array(said, float), chosen["is_male"].to_numpy(bool)


def _significant(
    cases: pd.DataFrame,
    actual_C: np.ndarray,
    said_C: np.ndarray,
    is_male_C: np.ndarray,
    chosen_C: np.ndarray,
    norms: Norms,
) -> np.ndarray:
    return clinically_significant(actual_C, said_C, is_male_C, chronological_of(cases[chosen_C]), norms)


def _coverage(actual_C: np.ndarray, ends: list[tuple[float, float] | None]) -> float | None:
    if any(pair is None for pair in ends):
        return None
    return _share(np.array([pair[0] <= actual <= pair[1] for actual, pair in zip(actual_C, ends, strict=True) if pair]))


def _share(hits_C: np.ndarray) -> float:
    return rounded(hits_C.mean())


def _unanswered(answers: list[Answer]) -> dict[str, Any]:
    """Shares refused and failed, and how often for which reason."""
    none = [answer for answer in answers if answer.months is None]
    return {
        "rejected": rounded(sum(not answer.is_failure for answer in none) / len(answers)),
        "failed": rounded(sum(answer.is_failure for answer in none) / len(answers)),
        "reasons": dict(Counter(answer.reason for answer in none).most_common()),
    }


def _marks(cases: pd.DataFrame, answers: list[Answer], norms: Norms) -> str:
    """One letter a case."""
    answered_C = np.array([answer.months is not None for answer in answers])
    actual_C, said_C, is_male_C = _of(cases, answers, answered_C)
    wrong_C = iter(_significant(cases, actual_C, said_C, is_male_C, answered_C, norms))
    return "".join(
        (WRONG if next(wrong_C) else RIGHT) if answer.months is not None else FAILED if answer.is_failure else REFUSED
        for answer in answers
    )
