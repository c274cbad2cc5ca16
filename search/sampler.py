"""Asks Optuna for configurations and tells it the truth about them; every answer is on disk first.

Each trial is accounted for by its Optuna number: in Optuna's journal, as ``trials/<number>`` on disk, and in the
configuration that Tune runs. Disk and journal can only disagree in one direction, after a kill, and `reconcile`
mends that.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from preprocessing.storage import AnyPath, read_json, write_json
from search.journal import open_journal
from search.space import STARTING_POINTS, TrialConfig, load_space
from search.trial import trial_folder

STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    state: str
    """``complete`` (all folds), ``stopped`` (by a rule) or ``failed``."""
    fold_mae_months: tuple[float, ...]
    reason: str = ""
    images_seen: int = 0
    """Image passes that it took, in all folds, finished or not; what a crash made twice counts once."""
    stopped_at: str = ""
    """``screen``, ``halving`` or ``race``, where a rule stopped it."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form; the trial's error is the mean over its folds, None before the first."""
        mae = float(np.mean(self.fold_mae_months)) if self.fold_mae_months else None
        return {
            "state": self.state,
            "mae_months": mae,
            "fold_mae_months": list(self.fold_mae_months),
            "reason": self.reason,
            "images_seen": self.images_seen,
            "stopped_at": self.stopped_at,
        }


class Sampler:
    """The Optuna side of one study."""

    def __init__(
        self,
        study: AnyPath,
        *,
        name: str,
        space: str,
        seed: int,
        num_trials: int,
        views: Sequence[str] = ("full",),
    ) -> None:
        """Open the study's journal, or create it and enqueue the space's starting points.

        Args:
            study: The study's folder, of which the caller holds the lock.
            name: Unique name, kept in the journal.
            space: Named space or ``module:function``.
            seed: Trial n draws from a sampler seeded by (seed, n), so that a resumed study goes on as if never stopped.
            num_trials: How many are wanted in all; a quarter of them, four to ten, are drawn before the model is used.
            views: Of the cohort. A trial's view is drawn from them unless the space names one; starting points take
                the first.
        """
        self.folder, self.num_trials = study, num_trials
        self._space, self._seed, self._views = load_space(space), seed, list(views)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=open_journal(study), study_name=name, direction="minimize", load_if_exists=True
        )
        points = STARTING_POINTS.get(space, [])[:num_trials]
        for point in points[len(self._study.get_trials(deepcopy=False)) :]:  # a kill may have come between two
            self._study.enqueue_trial({"view": self._views[0], **point} if len(self._views) > 1 else point)

    def reconcile(self) -> tuple[list[int], list[int]]:
        """Bring Optuna up to date with the disk after a kill.

        Returns:
            Numbers of the trials that have ended, and of those begun but not ended; the latter have a configuration
            on disk from now on, even when the kill came before it was written.
        """
        ended, begun = [], []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == TrialState.WAITING:
                continue
            path = trial_folder(self.folder, trial.number) / "outcome.json"
            if path.exists():
                ended.append(trial.number)
                if trial.state == TrialState.RUNNING:
                    self._tell(trial.number, read_json(path))
            elif trial.state == TrialState.RUNNING:
                begun.append(trial.number)
                if not (path.parent / "config.json").exists():
                    self._study.sampler = self._sampler_of(trial.number)
                    self._draw(optuna.trial.Trial(self._study, trial._trial_id))
            else:
                raise ValueError(
                    f"Optuna has trial {trial.number} as {trial.state.name}, but {path} is missing. "
                    "Restore the trial's folder from a backup; results would be lost otherwise."
                )
        return ended, begun

    def num_asked(self) -> int:
        """How many trials have been begun so far."""
        waiting = (TrialState.WAITING,)
        return len(self._study.get_trials(deepcopy=False)) - len(self._study.get_trials(deepcopy=False, states=waiting))

    def counts(self) -> dict[str, int]:
        """How many trials have ended in each state."""
        trials = self._study.get_trials(deepcopy=False)
        return {word: sum(trial.state == state for trial in trials) for word, state in STATES.items()}

    def ask(self) -> int:
        """Draw the next configuration, write it down and return its number."""
        self._study.sampler = self._sampler_of(self.num_asked())
        return self._draw(self._study.ask())

    def config(self, number: int) -> TrialConfig:
        """The configuration of a trial, from disk."""
        return TrialConfig.from_dict(read_json(trial_folder(self.folder, number) / "config.json")["config"])

    def report(self, number: int, fold: int, mae_months: float) -> None:
        """Keep the error of a finished fold as an intermediate value; the step is the fold."""
        trial = self._study.get_trials(deepcopy=False)[number]
        if trial.state == TrialState.RUNNING and fold not in trial.intermediate_values:
            optuna.trial.Trial(self._study, trial._trial_id).report(mae_months, fold)

    def finish(self, number: int, outcome: Outcome) -> None:
        """Close a trial, on disk first; closing it again changes nothing."""
        path = trial_folder(self.folder, number) / "outcome.json"
        if not path.exists():
            write_json(path, outcome.to_dict())
        if self._study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
            self._tell(number, read_json(path))

    def _draw(self, trial: optuna.Trial) -> int:
        settings = {"seed": self._seed * 100_003 + trial.number, **self._space(trial)}
        if "view" not in settings:
            settings["view"] = trial.suggest_categorical("view", self._views) if self._views[1:] else self._views[0]
        if settings["view"] not in self._views:
            raise ValueError(
                f"The space draws the view {settings['view']!r}, the cohort has {', '.join(self._views)}. "
                "Prepare a cohort that has it, or take another space."
            )
        config = TrialConfig(**settings)
        write_json(
            trial_folder(self.folder, trial.number) / "config.json",
            {"number": trial.number, "config": config.to_dict()},
        )
        return trial.number

    def _tell(self, number: int, outcome: dict[str, Any]) -> None:
        for fold, mae_months in enumerate(outcome["fold_mae_months"]):
            self.report(number, fold, mae_months)
        complete = outcome["state"] == "complete"
        self._study.tell(number, outcome["mae_months"] if complete else None, STATES[outcome["state"]])

    def _sampler_of(self, number: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group and multivariate
            return TPESampler(
                seed=int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]),
                n_startup_trials=max(4, min(10, self.num_trials // 4)),
                multivariate=True,
                group=True,
            )
