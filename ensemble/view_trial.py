"""Which test-time views help an ensemble: tried out of fold, and kept only where the paired interval says so.

Shape letters: M members, C cases, B monthly bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ensemble.candidates import Candidate
from ensemble.combination import Combination
from ensemble.fold_models import summed
from ensemble.robust import combine_members
from ensemble.views import GROUPS, IDENTITY
from preprocessing.cohort import Cohort
from search.metrics import bootstrap_ci95
from search.model import sex_codes

WITH_VIEWS = "Optimistic: the members were selected, and the views kept, on these same cases."
WITHOUT_VIEWS = "Of the picture alone: the selection was made, and this measured, without the views that are served."


def with_views(
    combination: Combination,
    cohort: Cohort,
    groups: Sequence[str],
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Combination:
    """Try groups of views, and give the ensemble those that help.

    Every fold model answers the cases of its own fold once more as each view shows them. Of the groups that lower the
    error, with the whole 95 % interval of the paired difference below zero, the best joins; then the others are tried
    beside it. Under a latency budget, a group that does not fit is left out.

    Args:
        combination: The ensemble without views.
        cohort: Of its studies; the locked test is not touched.
        groups: Names in `GROUPS`.
        device: ``cpu`` or a CUDA device.
        progress: Called with the fold models done and in all.

    Returns:
        The ensemble with its views, and with ``views`` in its evidence: what each group changed, and whether it was
        kept. Where one was, the evidence says which of its scores are of the picture alone, what the ensemble with
        views scores on the same cases, and what it spends of a budget of latency.

    Raises:
        ValueError: There is no such group.
        CombineError: The cohort is not that of the studies.
    """
    if unknown := [group for group in groups if group not in GROUPS]:
        raise ValueError(f"Views are tried in groups, {', '.join(GROUPS)}, got {unknown[0]!r}.")
    combination.check_cohort(cohort)
    actual_C, whole_MCB = combination.candidates.actual_C, combination.member_distributions
    sums = {group: np.zeros_like(whole_MCB) for group in groups}
    total, done = len(combination.members) * cohort.num_folds, 0
    for index, member in enumerate(combination.members):
        for fold in range(cohort.num_folds):
            of_fold_C = combination.candidates.cases["fold"].to_numpy() == fold
            for group in groups:
                sums[group][index, of_fold_C] = summed_of_fold(member, cohort, fold, GROUPS[group], device)
            progress(done := done + 1, total)

    def error(kept: list[str]) -> np.ndarray:
        num_views = 1 + sum(len(GROUPS[group]) for group in kept)
        mean_MCB = (whole_MCB + sum(sums[group] for group in kept)) / num_views
        months_C = combine_members(mean_MCB, combination.weights_M, combination.combination)[1]
        return np.abs(months_C - actual_C)

    kept: list[str] = []
    tried: dict[str, dict[str, Any]] = {}
    while rest := [group for group in groups if group not in kept]:
        before_C = error(kept)
        for group in rest:
            change_C = error([*kept, group]) - before_C
            tried[group] = {
                "views": list(GROUPS[group]),
                "beside": list(kept),
                "change_months": round(float(change_C.mean()), 4),
                "ci95": bootstrap_ci95(change_C[None])[0],
                "fits_budget": _fits(combination, [*kept, group]),
                "kept": False,
            }
        helping = [group for group in rest if tried[group]["ci95"][1] < 0 and tried[group]["fits_budget"]]
        if not helping:
            break
        best = min(helping, key=lambda group: tried[group]["change_months"])
        kept.append(best)
        tried[best]["kept"] = True
    views = (IDENTITY, *(view for group in kept for view in GROUPS[group]))
    mean_MCB = (whole_MCB + sum(sums[group] for group in kept)) / len(views)
    evidence = combination.evidence | {"views": tried}
    if kept:
        evidence |= _served(combination.evidence, float(error(kept).mean()), len(views))
    return replace(combination, views=views, distributions_of_views=mean_MCB if kept else None, evidence=evidence)


def _served(evidence: dict[str, Any], mae_months: float, num_views: int) -> dict[str, Any]:
    """What changes in the evidence of a selection that was made without views, now that they are served."""
    without = {
        name: evidence[name] | {"note": f"{evidence[name]['note']} {WITHOUT_VIEWS}"}
        for name in ("ensemble_oof_mae_months", "bias_corrected_mae_months", "as_served_mae_months")
        if evidence.get(name)
    }
    found: dict[str, Any] = {"with_views_oof_mae_months": {"value": round(mae_months, 6), "note": WITH_VIEWS}}
    budget = evidence.get("budget")
    if budget and budget["name"] == "latency_ms":
        found["budget"] = budget | {"spent": round(budget["spent"] * num_views, 3)}
    return without | found


def summed_of_fold(member: Candidate, cohort: Cohort, fold: int, views: Sequence[str], device: str) -> np.ndarray:
    """``(cases of the fold, 240)`` sum of a fold model's distributions over views, cases in the order of case_id."""
    rows, sex = cohort.fold_rows(fold), sex_codes(cohort.cases["is_male"])
    return summed(member, fold, cohort.view(member.trial.config.view)[rows], sex[rows], views, device)


def _fits(combination: Combination, groups: list[str]) -> bool:
    """Whether a latency budget, where there is one, holds the ensemble with these views too."""
    budget = combination.evidence.get("budget")
    num_views = 1 + sum(len(GROUPS[group]) for group in groups)
    return not budget or budget["name"] != "latency_ms" or bool(budget["spent"] * num_views <= budget["limit"])
