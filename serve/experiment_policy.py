"""What a policy makes of how an experiment stands: go on, grow, promote, or roll back; and the judge who acts on it."""

from dataclasses import dataclass
from typing import Any

from serve.database import Database
from serve.experiment import Experiment, Policy
from serve.lifecycle import Lifecycle
from serve.routing import current_state
from serve.standing import Standing

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
    """Judge a report, or the figures of it that `Standing` keeps.

    The bounds on errors, latency and disagreement act at once; then the statistics, both ways; then a canary's steps.
    """
    return beyond_bounds(experiment.policy, found["recent"]) or _by_statistics(experiment, found)


def beyond_bounds(policy: Policy, recent: dict[str, Any]) -> Decision | None:
    """A rollback on errors, latency or disagreement, where one of them is beyond its bound."""
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
    return None


class Judge:
    """Judges the running experiment round after round; what it has read of it, it does not read again.

    Args:
        database: The ledger's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._standing: Standing | None = None

    def act(self) -> tuple[Decision, str] | None:
        """One round: judge, and do what is due.

        Returns:
            The decision and the experiment's name; None where none runs.

        Raises:
            RoutingConflictError: Somebody else acted since the round was begun; nothing was done.
            LedgerDownError: The database does not answer.
        """
        with self._database.read() as connection:
            state = current_state(connection)
            if state is None or state.experiment is None:
                self._standing = None
                return None
            experiment = state.experiment
            if self._standing is None or self._standing.name != experiment.name:
                self._standing = Standing(experiment)
            found = self._standing.advance(connection, experiment)
        if self._standing.is_complete:
            decision = decide(experiment, found)
        else:  # the bounds never wait
            behind = Decision("go on", "What the experiment was before this keeper started is still being read.", True)
            decision = beyond_bounds(experiment.policy, found["recent"]) or behind
        if decision.is_due and decision.act != "go on":
            # after a person's act meanwhile, a rollback would take that back instead
            lifecycle = Lifecycle(self._database, "policy", judged=state.version)
            data = {"why": decision.why, "judged": {**found, "experiment": experiment.to_dict()}}
            {"step": lifecycle.step, "promote": lifecycle.promote, "rollback": lifecycle.rollback}[decision.act](
                experiment.name, data
            )
        return decision, experiment.name


def _by_statistics(experiment: Experiment, found: dict[str, Any]) -> Decision:
    if found["ratio"] and not found["ratio"]["is_as_drawn"]:
        why = f"{found['ratio']['challenger']} of {found['ratio']['subjects']} subjects met the challenger and "
        why += f"{found['ratio']['expected']:.0f} were drawn for it: who is counted depends on the arm"
        return Decision("go on", f"{why}, so nothing is decided. Find the cause, then stop the experiment.", True)
    return _by_difference(experiment, found) or _by_step(experiment, found)


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
    if experiment.step + 1 < len(experiment.shares):
        answered = found["arms"]["challenger"]["answered"]
        due = (experiment.step + 1) * experiment.policy.step_predictions
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
