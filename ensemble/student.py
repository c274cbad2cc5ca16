"""The student of an ensemble: one network of the fast profile's configuration, taught by what all members say.

Shape letters: C cases, N cases of the cohort, B monthly bins.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ensemble.candidates import Candidate, CombineError
from ensemble.combination import Combination
from ensemble.out_of_fold import distributions
from ensemble.profiles import fastest
from ensemble.view_trial import summed_of_fold
from preprocessing.cohort import Cohort
from search.distill import distill
from search.train import Measurement


def distilled(
    combination: Combination,
    cohort: Cohort,
    *,
    device: str = "cpu",
    report: Callable[[int, Measurement], None] = lambda fold, measurement: None,
) -> Combination:
    """Teach a network by what an ensemble says out of fold; what is trained already is left alone.

    Args:
        combination: The teacher, with its views.
        cohort: The one of its studies; the locked test is not touched.
        device: ``cpu`` or a CUDA device.
        report: Called with the fold after each measurement.

    Returns:
        The same with a student, who is asked with the views too; the bundle takes it where it errs less than the member
        that it stands for.

    Raises:
        CombineError: The cohort is another one, or no member is fast.
        TrainingError: The student cannot be trained.
    """
    combination.check_cohort(cohort)
    candidates, members, teacher = combination.candidates, combination.members, combination.out_of_fold
    place = fastest(combination.answered_MC - candidates.actual_C, combination.counted(members))
    if place is None:
        raise CombineError("Each member is more than half of the work, so none is a fast one. Allow more members.")
    said_CB = teacher["distribution_CM"]
    teacher_NB = np.full((len(cohort.cases), said_CB.shape[1]), np.nan, np.float32)
    row_of_case = {case_id: row for row, case_id in enumerate(cohort.cases["case_id"])}
    teacher_NB[[row_of_case[case_id] for case_id in teacher["case_id"]]] = said_CB
    study, trial = candidates.studies[members[place].study], members[place].trial
    made = distill(study.folder, trial.config, cohort, teacher_NB, number=trial.number, device=device, report=report)
    student = Candidate(len(candidates.studies), f"{study.name}, distilled", made)
    seen_1CB = _with_views(student, combination, cohort, device) if len(combination.views) > 1 else None
    return replace(combination, student=student, distributions_of_student=seen_1CB)


def _with_views(student: Candidate, combination: Combination, cohort: Cohort, device: str) -> np.ndarray:
    """``(1, C, 240)`` what it says out of fold on average over the picture itself and the other views."""
    said_1CB = distributions([student])
    for fold in range(cohort.num_folds):
        of_fold_C = combination.candidates.cases["fold"].to_numpy() == fold
        said_1CB[0, of_fold_C] += summed_of_fold(student, cohort, fold, combination.views[1:], device)
    return said_1CB / len(combination.views)
