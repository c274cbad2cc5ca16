"""The student of an ensemble: one network of the fast profile's configuration, taught by what all members say."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ensemble.candidates import Candidate, CombineError
from ensemble.combination import Combination
from ensemble.profiles import fastest
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
        combination: The teacher.
        cohort: The one of its studies; the locked test is not touched.
        device: ``cpu`` or a CUDA device.
        report: Called with the fold after each measurement.

    Returns:
        The same with a student; the bundle takes it where it errs less than the member that it stands for.

    Raises:
        CombineError: The cohort is another one, or no member is fast.
        TrainingError: The student cannot be trained.
    """
    combination.check_cohort(cohort)
    candidates, members, teacher = combination.candidates, combination.members, combination.out_of_fold
    place = fastest(combination.answered_MC - candidates.actual_C, combination.counted(members))
    if place is None:
        raise CombineError("Each member is more than half of the work, so none is a fast one. Allow more members.")
    said_CM = teacher["distribution_CM"]
    teacher_NM = np.full((len(cohort.cases), said_CM.shape[1]), np.nan, np.float32)
    row_of_case = {case_id: row for row, case_id in enumerate(cohort.cases["case_id"])}
    teacher_NM[[row_of_case[case_id] for case_id in teacher["case_id"]]] = said_CM
    study, trial = candidates.studies[members[place].study], members[place].trial
    made = distill(study.folder, trial.config, cohort, teacher_NM, number=trial.number, device=device, report=report)
    return replace(combination, student=Candidate(len(candidates.studies), f"{study.name}, distilled", made))
