"""Which trials need no further training: the race over the folds, after what `search.halving` stops inside fold 0.

The aim is a good set of M complete trials for an ensemble to choose from, not one winner. So every rule leaves at
least M trials in the race, and compares with the M-th best where others compare with the best.

Rules hold no state. Each judges a trial by what is known of it and of all others, which lies in the trials' folders:
a restart changes no decision, and neither does the order in which the others came.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np

from search.halving import Halving, Screen
from search.named import imported
from search.progress import Progress, best_complete

Stage = Literal["screen", "halving", "race"]
"""After the short training; inside fold 0 and at its end; after every fold."""
Moment = Literal["screen", "measurement", "fold"]
"""What has just been measured: the short training, the first fold in the middle, or a whole fold."""
RACES = ("matched", "forgiving", "paired", "none")
PAIRED_FROM = 10
"""Folds: with so many, differences case by case tell more than means of folds."""


class Rule(Protocol):
    """Judges one trial, at its stage's moments."""

    @property
    def stage(self) -> str:
        """``screen`` (asked after the short training), ``halving`` (after each measurement of fold 0, its last one too)
        or ``race`` (after each fold but the last)."""

    @property
    def needs_cases(self) -> bool:
        """Whether it asks for the errors of single cases."""

    def verdict(self, trial: Progress, others: Sequence[Progress]) -> str | None:
        """Say why a trial is stopped, or None to let it go on.

        Args:
            trial: The trial, just measured.
            others: What is known of all other trials: running, stopped, failed and complete ones, in any order.
        """


@dataclass(frozen=True)
class Matched:
    """The M-th best on the same folds, and what chance allows: the default.

    Folds differ in difficulty, and all trials share them: with the same folds compared, that difference is out of the
    way. Over the f folds that a trial has, the bound is the largest mean of the M best complete trials there, plus
    z * s / sqrt(f), where s is what is left of these trials' fold errors, each trial's and each fold's own level taken
    off (the residual of a two-way layout without replication, (M - 1)(k - 1) degrees of freedom).

    `Forgiving` takes its bound from one fold, the worst: over 40 draws of 64 of 96 recorded trainings on five folds a
    search with it needed 2.4 times fewer image passes than full cross-validation, with this rule 2.8 times; neither
    lost an ensemble 0.1 % on average.
    """

    pool_size: int
    """M, as in `Screen`; of fewer than two trials no spread is known, so that two are the least."""
    z: float = 1.0
    """Standard errors of the mean over f folds that a trial may lie above the bound."""
    stage: str = "race"
    needs_cases: bool = False

    def verdict(self, trial: Progress, others: Sequence[Progress]) -> str | None:
        """As `Rule.verdict`."""
        wanted, num_done = max(2, self.pool_size), len(trial.fold_mae_months)
        best = best_complete(others, wanted)
        if len(best) < wanted or len(best[0].fold_mae_months) < 2:
            return None
        mae_MK = np.array([one.fold_mae_months for one in best])
        own_MK = mae_MK - mae_MK.mean(axis=1, keepdims=True) - mae_MK.mean(axis=0) + mae_MK.mean()
        chance = math.sqrt((own_MK**2).sum() / np.prod(np.subtract(mae_MK.shape, 1))) / math.sqrt(num_done)
        mean, worst = trial.mae_months, float(mae_MK[:, :num_done].mean(axis=1).max())
        if mean < worst + self.z * chance:
            return None
        return (
            f"mean of {num_done} fold(s) {mean:.2f} months; none of the {wanted} best complete trials so far is above "
            f"{worst:.2f} there, and chance explains {self.z * chance:.2f}"
        )


@dataclass(frozen=True)
class Forgiving:
    """The forgiving rule against the M-th best.

    A trial is stopped when the mean error of its finished folds is no better than the worst single fold of the M-th
    best complete trial. Source: Bergman, Purucker, Hutter, "Don't waste your time: early stopping cross-validation",
    AutoML 2024, whose rule takes the best trial instead; measured by simulation, the M-th best keeps the ensemble's
    pool at 2.2 times fewer folds with no loss.
    """

    pool_size: int
    """M, as in `Screen`."""
    stage: str = "race"
    needs_cases: bool = False

    def verdict(self, trial: Progress, others: Sequence[Progress]) -> str | None:
        """As `Rule.verdict`."""
        best = best_complete(others, self.pool_size)
        if len(best) < self.pool_size:
            return None
        mean, bound = trial.mae_months, max(best[-1].fold_mae_months)
        if mean < bound:
            return None
        return (
            f"mean of {len(trial.fold_mae_months)} fold(s) {mean:.2f} months is no better than {bound:.2f}, the worst "
            f"fold of trial {best[-1].number}, number {self.pool_size} of the complete ones so far"
        )


@dataclass(frozen=True)
class Paired:
    """A one-sided paired test, case by case, against the M-th best complete trial; for ten folds or more.

    With d the difference of absolute errors on the n cases of the f finished folds, the trial is stopped when
    mean(d) > z * sqrt(var(d) / n + 2 sigma^2 / f). Sigma is the spread of a fold's error that another training seed
    would make; without that term the test is over-confident, for all cases of a fold share one training. It is
    estimated from the complete trials: what the differences between their folds vary more than their cases explain.
    """

    pool_size: int
    """M, as in `Screen`."""
    z: float = 1.64
    """One-sided 5 %."""
    stage: str = "race"
    needs_cases: bool = True

    def verdict(self, trial: Progress, others: Sequence[Progress]) -> str | None:
        """As `Rule.verdict`."""
        best = best_complete(others, max(2, self.pool_size))
        if len(best) < max(2, self.pool_size):
            return None
        reference, num_folds = best[self.pool_size - 1], len(trial.fold_mae_months)
        difference = np.concatenate(
            [a - b for a, b in zip(trial.case_errors, reference.case_errors[:num_folds], strict=True)]
        )
        sigma2 = seed_variance(best)
        mean = float(difference.mean())
        bound = self.z * math.sqrt(difference.var() / len(difference) + 2 * sigma2 / num_folds)
        if mean <= bound:
            return None
        return (
            f"over {len(difference)} cases its error is {mean:.2f} months above that of trial {reference.number}, "
            f"number {self.pool_size} of the complete ones so far; chance explains {bound:.2f} "
            f"(seed noise {math.sqrt(sigma2):.2f})"
        )


def seed_variance(trials: Sequence[Progress]) -> float:
    """Variance of a fold's error that another training seed would make, in months squared.

    Args:
        trials: Two complete trials or more, with the errors of their cases.
    """
    excess = []
    for first, second in itertools.combinations(trials, 2):
        differences = [a - b for a, b in zip(first.case_errors, second.case_errors, strict=True)]
        between = np.var([d.mean() for d in differences], ddof=1)
        excess.append(between - np.mean([d.var() / len(d) for d in differences]))
    return max(0.0, float(np.mean(excess))) / 2


def race_for(race: str, num_folds: int) -> str:
    """The rule over the folds that ``auto`` means for so many folds, and any other as it is."""
    if race != "auto":
        return race
    return "paired" if num_folds >= PAIRED_FROM else "matched"


def make_rules(race: str, screen: bool, pool_size: int) -> list[Rule]:
    """The rules of a study, in the order in which they are asked.

    Args:
        race: One of `RACES`: the rule over the folds; or ``module:function`` of a user's own, which takes M and returns
            a `Rule`.
        screen: Whether trials are stopped before the end of fold 0 too.
        pool_size: M.

    Raises:
        ValueError: No such race, or a pool of no trial.
    """
    if race not in RACES and ":" not in race:
        raise ValueError(f"--race must be one of auto, {', '.join(RACES)} or module:function, got {race!r}.")
    if pool_size < 1:
        raise ValueError(f"pool_size must be 1 or more, got {pool_size}.")
    rules: list[Rule] = [Screen(pool_size), Halving(pool_size)] if screen else []
    over_folds: dict[str, type[Matched | Forgiving | Paired]] = {
        "matched": Matched,
        "forgiving": Forgiving,
        "paired": Paired,
    }
    if ":" in race:
        return [*rules, _own_rule(race, pool_size)]
    return rules + ([over_folds[race](pool_size)] if race in over_folds else [])


def _own_rule(name: str, pool_size: int) -> Rule:
    rule: Rule = imported("--race", name)(pool_size)
    if missing := [word for word in ("stage", "needs_cases", "verdict") if not hasattr(rule, word)]:
        raise ValueError(f"--race {name!r} must return a rule as search.racing.Rule, and it has no {missing[0]}.")
    if rule.stage not in get_args(Stage):
        raise ValueError(
            f"The stage of --race {name!r} must be one of {', '.join(get_args(Stage))}, got {rule.stage!r}."
        )
    return rule


@dataclass
class Race:
    """What is known of all trials of a study, and the rules that judge them."""

    rules: Sequence[Rule]
    trials: dict[int, Progress] = field(default_factory=dict)

    @property
    def needs_cases(self) -> bool:
        """Whether a rule asks for the errors of single cases."""
        return any(rule.needs_cases for rule in self.rules)

    def record(self, trial: Progress) -> None:
        """Take note of how far a trial has come."""
        self.trials[trial.number] = trial

    def verdict(self, number: int, *, after: Moment) -> tuple[str, str] | None:
        """Whether a trial is stopped: the stage and the reason, or None.

        Args:
            number: The trial, whose last state was recorded.
            after: What was measured.
        """
        trial = self.trials[number]
        others = [other for other in self.trials.values() if other.number != number]
        for rule in self.rules:
            is_first = after == "measurement" or (after == "fold" and len(trial.fold_mae_months) == 1)
            asked = {"screen": after == "screen", "halving": is_first, "race": after == "fold"}[rule.stage]
            if asked and (reason := rule.verdict(trial, others)):
                return rule.stage, reason
        return None
