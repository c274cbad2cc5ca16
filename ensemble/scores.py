"""What is known of a selection: how good it is, and how much of that is the selection's own luck.

Every figure is rounded: the last bits differ between machines, the bundle's version must not.

Shape letters: C cases, T candidates, M members.
"""

from typing import Any

import numpy as np

from ensemble.bootstrap import AUTO, CorrectedScore, Repeated, combined
from ensemble.candidates import Candidates
from ensemble.costs import Budget
from ensemble.noise import Noise
from ensemble.robust import case_weights, spread
from ensemble.select import Rules, correlation, select
from search.greedy import shares
from search.metrics import bootstrap_ci95
from search.trial import all_outcomes

OPTIMISTIC = "Optimistic: the members were selected on these same cases. Do not quote it."
CORRECTED = (
    "BBC-CV: the whole selection from the complete trials, pruning, weights, combination and the choice of the method "
    "included, repeated on bootstrap draws and scored on the cases left out. What the search stopped by these same "
    "cases is not repeated, and so not corrected. Where members are served as folds, the noise of training that is "
    "taken off before weights are fitted is estimated once, on all cases, and not again in each draw. Errors are those "
    "before any correction of the months."
)
AS_SERVED = (
    "The same with each member as the mean of its fold models: an estimate, single models' errors less the noise of "
    "training that a second partition tells."
)
GAIN = "Paired, of single fold models: what another draw of the cases would have selected is part of the interval."
FEW = 4
"""Members below which an ensemble that was left to choose them has few: see `ensemble.select.Rules`."""


def scores(
    candidates: Candidates,
    weights_T: np.ndarray,
    combination: dict[str, Any],
    rules: Rules,
    method: str,
    asked: str,
    repeated: Repeated | None,
    cost_T: np.ndarray | None = None,
) -> dict[str, Any]:
    """The evidence of a selection, for a manifest.

    Args:
        candidates: What was chosen from.
        weights_T: ``(T,)`` what was chosen.
        combination: How the members are combined.
        rules: What might have been chosen.
        method: That chose.
        asked: The method asked for: ``auto`` or `method` itself.
        repeated: The selection repeated on bootstrap draws; None with too few cases.
        cost_T: ``(T,)`` what each candidate costs, where the rules have a budget.
    """
    error_TC, share_C = candidates.error_TC, shares(None, len(candidates.cases))
    kept = np.flatnonzero(weights_T)
    weights_M, error_MC = weights_T[kept], error_TC[kept]
    error_C = combined(error_TC, weights_T, combination)
    equal_C = combined(error_TC, select(error_TC, share_C, "equal", rules, cost_T=cost_T), combination)
    correlation_MM = correlation(error_MC, share_C)
    mae_T = np.abs(error_TC).mean(axis=1)
    may_T = np.ones(len(mae_T), bool) if rules.budget is None or cost_T is None else cost_T <= rules.budget
    oracle = np.abs(error_MC).min(axis=0).mean()
    found = {
        "method": method,
        "method_asked": asked,
        "max_members": rules.max_members,
        "num_cases": len(share_C),
        "trials_stopped": num_stopped(candidates),
        "candidates": [
            {"study": candidate.study_name, "trial": candidate.trial.number, "oof_mae_months": _round(mae)}
            for candidate, mae in zip(candidates.trials, mae_T, strict=True)
        ],
        "best_single_oof_mae_months": _round(mae_T[may_T].min()),
        "equal_weights_oof_mae_months": _round(np.abs(equal_C).mean()),
        "ensemble_oof_mae_months": {"value": _round(np.abs(error_C).mean()), "note": OPTIMISTIC},
        "bias_corrected_mae_months": None,
        "disagreement": disagreement(error_MC, weights_M, combination),
        "error_correlation": [[_round(value) for value in row] for row in correlation_MM],
        "effective_members": _round(1 / np.square(weights_M).sum()),
        "effective_independent_members": _round(1 / (weights_M @ correlation_MM @ weights_M)),
        "oracle": {
            "value": _round(oracle),
            "gap": _round(np.abs(error_C).mean() - oracle),
            "note": "Each case answered by whichever member errs least: no weights can reach it.",
        },
    }
    if repeated is not None:
        found["bias_corrected_mae_months"] = {**corrected(repeated.of(asked)), "note": CORRECTED}
        found["bias_corrected_by_method"] = {name: corrected(repeated.of(name)) for name in repeated.error_BC}
        found["gain_over_best_single"] = gained(repeated, asked) | {"note": GAIN}
    return found


def gained(repeated: Repeated, asked: str) -> dict[str, Any]:
    """What a selection gains over the best single trial, as a manifest holds it."""
    gain = repeated.gain(asked, "single")
    return {"months": _round(gain.months), "ci95": [_round(bound) for bound in gain.ci95]}


def num_stopped(candidates: Candidates) -> int:
    """Trials that the studies' searches stopped early."""
    ended = (outcome for study in candidates.studies for outcome in all_outcomes(study.folder))
    return sum(outcome["state"] == "stopped" for outcome in ended)


def served_scores(
    served_TC: np.ndarray,
    weights_T: np.ndarray,
    combination: dict[str, Any],
    asked: str,
    repeated: Repeated,
    noise: Noise,
) -> dict[str, Any]:
    """The evidence of a selection by the errors that members make as means of their fold models.

    Args:
        served_TC: ``(T, C)`` estimated errors as served; see `ensemble.noise`.
        weights_T: ``(T,)`` what was chosen.
        combination: How the members are combined.
        asked: The method asked for, or ``auto``.
        repeated: The selection repeated on bootstrap draws, scored on these errors.
        noise: That was taken off; measured.
    """
    return {
        "as_served_mae_months": {**corrected(repeated.of(asked)), "note": AS_SERVED},
        "as_served": {
            "best_single_mae_months": _round(np.abs(served_TC).mean(axis=1).min()),
            "optimistic_mae_months": _round(np.abs(combined(served_TC, weights_T, combination)).mean()),
            "gain_over_best_single": gained(repeated, asked),
            "noise_share": _round(noise.share),
            "noise_correlation": _round(noise.correlation),
            "candidates_measured": noise.num_measured,
            "cases_measured": noise.num_cases,
        },
    }


def disagreement(error_MC: np.ndarray, weights_M: np.ndarray, combination: dict[str, Any]) -> dict[str, Any]:
    """How many cases the members disagree grossly about, and what the rule made of them.

    Returns:
        ``cases``, and where there are any their MAE under the plain mean and under the rule, with the paired interval
        of the difference (rule less mean).
    """
    weights_MC = case_weights(error_MC, weights_M, combination)
    cut = np.flatnonzero((weights_MC != weights_M[:, None]).any(axis=0))
    found: dict[str, Any] = {"cases": len(cut), "largest_spread_months": _round(spread(error_MC, weights_M).max())}
    if len(cut):
        robust_W = np.abs((weights_MC * error_MC).sum(axis=0)[cut])
        mean_W = np.abs(weights_M @ error_MC[:, cut])
        found |= {"rule_mae_months": _round(robust_W.mean()), "mean_mae_months": _round(mean_W.mean())}
        found["change_ci95"] = bootstrap_ci95((robust_W - mean_W)[None])[0]
    return found


def corrected(score: CorrectedScore) -> dict[str, Any]:
    """A corrected score as a manifest holds it."""
    return {
        "value": _round(score.months),
        "ci95": [_round(bound) for bound in score.ci95],
        "rounds": score.num_rounds,
    }


def table(candidates: Candidates, weights_T: np.ndarray, evidence: dict[str, Any], *, longest: int = 24) -> list[str]:
    """What was chosen and how good it is, in lines for a person; of many candidates the best."""
    lines = ["trial  backbone              OOF MAE   weight"]
    rows = sorted(
        zip(candidates.trials, weights_T, evidence["candidates"], strict=True), key=lambda row: row[2]["oof_mae_months"]
    )
    for place, (candidate, weight, figures) in enumerate(rows):
        if place >= longest and not weight:
            continue
        number = f"{candidate.study}-{candidate.trial.number}" if len(candidates.studies) > 1 else ""
        share = f"{weight:8.3f}" if weight else "       -"
        backbone = candidate.trial.config.backbone
        lines.append(f"{number or candidate.trial.number:>5}  {backbone:<20} {figures['oof_mae_months']:8.2f} {share}")
    if len(rows) > longest:
        lines.append(f"of {len(rows)} candidates, those with a weight and the {longest} best")
    lines += ["", f"method {evidence['method']}" + (", chosen by BBC-CV" if evidence["method_asked"] == AUTO else "")]
    if few := few_line(weights_T, evidence):
        lines.append(few)
    lines += [
        f"best single trial          {evidence['best_single_oof_mae_months']:6.2f} months",
        f"equal weights              {evidence['equal_weights_oof_mae_months']:6.2f} months",
        f"ensemble, same cases       {evidence['ensemble_oof_mae_months']['value']:6.2f} months   "
        "optimistic: the members were selected on them",
    ]
    if score := evidence["bias_corrected_mae_months"]:
        low, high = score["ci95"]
        lines.append(
            f"ensemble, BBC-CV           {score['value']:6.2f} months   "
            f"95 % interval {low:.2f} to {high:.2f} (corrected for the selection, {evidence['num_cases']} cases)"
        )
        gain = evidence["gain_over_best_single"]
        low, high = gain["ci95"]
        lines.append(
            f"  less best single trial   {gain['months']:+6.2f} months   95 % interval {low:+.2f} to {high:+.2f}   "
            "of single fold models"
        )
    if "as_served" in evidence:
        lines.append(served_line(evidence))
        gain = evidence["as_served"]["gain_over_best_single"]
        low, high = gain["ci95"]
        lines.append(
            f"  less best single trial   {gain['months']:+6.2f} months   95 % interval {low:+.2f} to {high:+.2f}; "
            f"{evidence['as_served']['noise_share']:.0%} of a single model's squared error is noise"
        )
    lines.append(
        f"weight is spread over {evidence['effective_members']:.1f} members, "
        f"whose errors count as {evidence['effective_independent_members']:.1f} independent ones"
    )
    if budget := evidence.get("budget"):
        bound = Budget(name=budget["name"], limit=budget["limit"], device=budget["device"])
        lines.append(f"members cost {bound.in_words(budget['spent'])}")
    lines.append(f"the best member for each case would reach {evidence['oracle']['value']:.2f} months")
    return lines


def few_line(weights_T: np.ndarray, evidence: dict[str, Any]) -> str:
    """Why a build by default has fewer members than usual, for a person; nothing where it has enough, or was told to.

    Args:
        weights_T: ``(T,)`` what was chosen.
        evidence: Of the selection, as `scores` has it, with its ``budget`` where there is one.
    """
    num_complete, num_members = len(weights_T), np.count_nonzero(weights_T)
    if num_members >= FEW or evidence["method_asked"] != AUTO or evidence["max_members"] < FEW:
        return ""
    why = []
    if num_complete < FEW:
        why.append(f"only {num_complete} trial{'s are' if num_complete > 1 else ' is'} complete")
    if others := num_complete - num_members:
        left = "the other one is" if others == 1 else f"the other {others} trials are each"
        budget = ", beyond the budget" if "budget" in evidence else ""
        why.append(f"{left} far behind, a near copy{budget} or of no help to lower the error")
    return f"{num_members} member{'s' if num_members > 1 else ''}, fewer than the usual {FEW}: {', and '.join(why)}"


def served_line(evidence: dict[str, Any]) -> str:
    """The error as served, for a person, where it is known."""
    score = evidence["as_served_mae_months"]
    low, high = score["ci95"]
    return (
        f"as served, BBC-CV          {score['value']:6.2f} months   95 % interval {low:.2f} to {high:.2f} (estimated: "
        "members as means of their fold models)"
    )


def _round(value: float) -> float:
    return round(float(value), 6)
