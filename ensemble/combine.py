"""From studies to an ensemble: choose members on the out-of-fold tables, and gather the evidence.

Shape letters: C cases, T candidates.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ensemble.bootstrap import AUTO, ROUNDS, repeat
from ensemble.candidates import Candidates, CombineError, gather
from ensemble.combination import Combination
from ensemble.costs import Budget, measured, spent
from ensemble.noise import as_served, measure
from ensemble.robust import parse
from ensemble.scores import scores, served_scores
from ensemble.select import COMBINING, METHODS, Rules, select
from preprocessing.storage import AnyPath
from search.greedy import shares

__all__ = ["Combination", "CombineError", "combine"]

TRIM = 0.2
"""Of a trimmed mean: it cuts any one of five members that fails grossly, and nothing while the members agree."""
WEIGHTS_NOTES = {
    "folds": (
        "Method and weights are chosen on estimated errors as served: a member is served as the average of its fold "
        "models, and the noise of training that this average takes away is taken from its out-of-fold errors first. "
        "{source} Figures that are not called as served are those of single fold models."
    ),
    "refit": (
        "Weights are fitted on out-of-fold predictions, each made by the one fold model that never saw the case. "
        "A member is served as one model of the same configuration, trained once more on all folds: one model stands "
        "for one, so the weights stay as fitted. It learnt from more cases than the models of the figures here."
    ),
}
SOURCES = {
    True: "A second partition tells that noise.",
    False: "That noise is taken to be what it is in other trials, which does for weights and not for a figure; a "
    "second partition would tell: search with --partitions 2.",
}


def combine(
    *studies: str | Path | AnyPath,
    method: str = AUTO,
    max_members: int = 8,
    rule: str = "trimmed_mean",
    fitted: str = "folds",
    budget: Budget | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Combination:
    """Choose members and weights from the out-of-fold tables of studies; the locked test is not touched.

    Args:
        studies: Folders of studies on the same cohort, local or fsspec URIs.
        method: ``auto``, which takes the one of lowest bias-corrected error, or a name in `METHODS`.
        max_members: Upper bound on different members.
        rule: One of `robust.RULES`: how members are combined where they disagree grossly.
        progress: Called with the bootstrap rounds done and in all.

        fitted: What members are served as, and the weights are fitted for: ``folds``, the average of their fold
            models, or ``refit``, one model trained on all folds; see `Combination.refit`.
        budget: Upper bound on what the members cost together, measured on this machine: such a bundle records what was
            measured, so that another build has another version.

    Raises:
        CombineError: No trial is complete, or they do not describe the same cases.
        ValueError: No member is allowed, or the budget holds none.
    """
    candidates = gather(*studies)
    cost_T = costs_of(candidates, budget.name, budget.device, fitted) if budget else None
    rules = Rules(max_members=max_members, budget=budget.limit if budget else None)
    combination = parse({"rule": rule, "trim": TRIM if rule == "trimmed_mean" else 0.0})
    error_TC, share_C = candidates.error_TC, shares(None, len(candidates.cases))
    noise = measure(error_TC, candidates.second_error_TC, candidates.study_T) if fitted == "folds" else None
    if noise is not None:
        error_TC = as_served(error_TC, noise, candidates.num_folds)
    names = COMBINING if method == AUTO else (method,)
    repeated = repeat(
        error_TC,
        rules,
        methods=tuple(name for name in METHODS if name in (*names, "single")),
        combination=combination,
        cost_T=cost_T,
        num_rounds=ROUNDS,
        progress=progress,
    )
    chosen = (repeated.best() if repeated else "equal") if method == AUTO else method
    weights_T = select(error_TC, share_C, chosen, rules, cost_T=cost_T)
    of_single_models = repeated.scored_on(candidates.error_TC, combination) if repeated and noise else repeated
    evidence = scores(candidates, weights_T, combination, rules, chosen, method, of_single_models, cost_T)
    if noise is not None and noise.num_measured and repeated:
        evidence |= served_scores(error_TC, weights_T, combination, method, repeated, noise)
    if budget is not None and cost_T is not None:
        evidence["budget"] = {**asdict(budget), "spent": round(float(cost_T[weights_T > 0].sum()), 3)}
    source = SOURCES[noise is not None and noise.num_measured > 0]
    evidence["weights_note"] = WEIGHTS_NOTES[fitted].format(source=source)
    return Combination(candidates, weights_T, combination, fitted, evidence)


def costs_of(candidates: Candidates, name: str, device: str, fitted: str = "folds") -> np.ndarray:
    """``(T,)`` what each candidate takes of a budget as it is served, measured on this machine."""
    about = candidates.studies[0].about
    configs = [candidate.trial.config for candidate in candidates.trials]
    num_models = 1 if fitted == "refit" else candidates.num_folds
    return spent(measured(configs, int(about["recipe"]["size"]), device), name, num_models)
