"""What a policy makes of a report: go on, grow, promote, or roll back; and a loop's one round that acts on it."""

from dataclasses import dataclass
from typing import Any

from serve.database import Database
from serve.experiment import Experiment
from serve.experiment_report import report
from serve.lifecycle import Lifecycle
from serve.routing import Routing

LATENCY_FLOOR_MS = 100.0
"""Arms that are closer than this are equally fast, whatever their ratio."""


@dataclass(frozen=True)
class Decision:
    """What to do, and the sentence that says why."""

    act: str
    """``go on``, ``step``, ``promote`` or ``rollback``."""
    why: str
    is_due: bool
    """Whether the policy does it by itself; a promotion may wait for a person."""


def decide(experiment: Experiment, found: dict[str, Any]) -> Decision:
    """Judge a report.

    The bounds on errors, latency and disagreement act at once; then the statistics, both ways; then a canary's steps.
    """
    policy, recent = experiment.policy, found["recent"]
    if recent["attempts"] >= policy.min_window and recent["error_rate"] > policy.max_error_rate:
        why = f"It failed in {recent['error_rate']:.1%} of its last {recent['attempts']} attempts"
        return Decision("rollback", f"{why}; the bound is {policy.max_error_rate:.1%}.", True)
    slow, usual = recent["p95_ms"]["challenger"], recent["p95_ms"]["champion"]
    if (
        recent["latency_n"] >= policy.min_window
        and slow - usual > LATENCY_FLOOR_MS
        and slow > policy.max_latency_ratio * usual
    ):
        why = f"Its 95th percentile is {slow:.0f} ms and the champion's {usual:.0f} ms"
        return Decision("rollback", f"{why}; the bound is {policy.max_latency_ratio:g} times.", True)
    if recent["pairs"] >= policy.min_window and recent["disagreement"] > policy.max_disagreement:
        why = f"{recent['disagreement']:.1%} of the last {recent['pairs']} pairs are more than "
        why += f"{policy.disagreement_months:g} months apart"
        return Decision("rollback", f"{why}; the bound is {policy.max_disagreement:.1%}.", True)
    if found["ratio"] and not found["ratio"]["is_as_drawn"]:
        why = f"{found['ratio']['challenger']} of {found['ratio']['subjects']} subjects met the challenger and "
        why += f"{found['ratio']['expected']:.0f} were drawn for it: who is counted depends on the arm"
        return Decision("go on", f"{why}, so nothing is decided. Find the cause, then stop the experiment.", True)
    return _by_difference(experiment, found) or _by_step(experiment, found)


def act(database: Database) -> tuple[Decision, str] | None:
    """Judge the running experiment and do what is due.

    Returns:
        The decision and the experiment's name; None where none runs.

    Raises:
        RoutingConflictError: Somebody else acted since the report was begun; nothing was done.
        LedgerDownError: The database does not answer.
    """
    state = Routing(database).current()
    if state is None or state.experiment is None:
        return None
    experiment = state.experiment
    found = report(database, experiment)
    decision = decide(experiment, found)
    if decision.is_due and decision.act != "go on":
        # a report takes seconds: after a person's act meanwhile, a rollback would take that back instead
        lifecycle = Lifecycle(database, "policy", judged=state.version)
        data = {"why": decision.why, "report": found}
        {"step": lifecycle.step, "promote": lifecycle.promote, "rollback": lifecycle.rollback}[decision.act](
            experiment.name, data
        )
    return decision, experiment.name


def _by_difference(experiment: Experiment, found: dict[str, Any]) -> Decision | None:
    policy, row = experiment.policy, found["difference"]
    if row is None or row["n"] < policy.min_references:
        return None
    interval = f"{row['lower_months']:+.2f} to {row['upper_months']:+.2f} months (n = {row['n']})"
    if row["upper_months"] < min(0.0, policy.gain_months):
        return Decision("rollback", f"The challenger is worse: its gain is {interval}.", True)
    if row["lower_months"] > policy.gain_months:
        why = f"The challenger's gain is {interval}, surely above {policy.gain_months:g}."
        return Decision("promote", why, policy.promote == "auto")
    return None


def _by_step(experiment: Experiment, found: dict[str, Any]) -> Decision:
    answered = found["arms"]["challenger"]["answered"]
    due = (experiment.step + 1) * experiment.policy.step_predictions
    if experiment.step + 1 < len(experiment.shares):
        if answered >= due:
            larger = experiment.shares[experiment.step + 1]
            return Decision("step", f"{answered} answers within all bounds: its share grows to {larger:.0%}.", True)
        return Decision("go on", f"{answered} of the {due} answers that the next step asks for.", True)
    row = found["difference"]
    if row is None or row["n"] < experiment.policy.min_references:
        have = row["n"] if row else 0
        return Decision("go on", f"{have} of {experiment.policy.min_references} subjects have a reading.", True)
    return Decision(
        "go on",
        f"Undecided: the gain is {row['lower_months']:+.2f} to {row['upper_months']:+.2f} months (n = {row['n']}).",
        True,
    )
