"""Asks Optuna for configurations and tells it the truth about them; every answer is on disk first.

Each trial is accounted for by its Optuna number: in Optuna's journal, as ``trials/<number>`` on disk, and in the
configuration that Tune runs. Disk and journal can only disagree in one direction, after a kill, and `reconcile`
mends that.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from preprocessing.storage import AnyPath, read_json, write_json
from search.diversity import Diversity
from search.journal import open_storage
from search.limits import Limits
from search.pretrained import located
from search.space import TrialConfig
from search.spaces import Space, load_space, starting_points, usual_view
from search.trial import trial_folder, trial_numbers
from search.warm_start import EARLIER, distributions_of, read_warm_start
from search.weights import local_file

OBJECTIVES = ("mae", "diversity")
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
    """``screen``, ``halving`` or ``race``, where a rule stopped it; ``limits``, where it costs too much to serve."""
    value: float | None = None
    """What Optuna is told of a complete trial where it is not its error; see `search.diversity.value_of`."""
    ensemble: dict[str, float] = field(default_factory=dict)
    """Weights, by trial number, of the ensemble that the value was measured against."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form; the trial's error is the mean over its folds, None before the first."""
        mae = float(np.mean(self.fold_mae_months)) if self.fold_mae_months else None
        record = asdict(self)
        return (
            {"state": record.pop("state"), "mae_months": mae} | record | {"fold_mae_months": list(self.fold_mae_months)}
        )


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
        objective: str = "mae",
        limits: Limits | None = None,
        storage: str = "",
        deterministic: bool = False,
        weights: str = "",
    ) -> None:
        """Open Optuna's record, or create it with what earlier studies know and the space's starting points.

        Args:
            study: The study's folder, of which the caller holds the lock.
            name: Unique name in the storage.
            space: Named space or ``module:function``.
            seed: Trial n draws from a sampler seeded by (seed, n), so that a resumed study goes on as if never stopped.
            num_trials: How many are wanted in all; a quarter of them, four to ten, are drawn before the model is used.
            views: Of the cohort. A trial's view is drawn from them unless the space names one; a starting point takes
                the one that it names if it is there, else the crop, without it the first.
            objective: One of `OBJECTIVES`: what Optuna is told of a complete trial.
            limits: What a model may cost; Optuna learns by how much a trial passes them.
            storage: URL of a database; empty: a journal in the folder.
            deterministic: As `TrialConfig.deterministic`, for every trial.
            weights: Folder of files that stand in for timm's hub; empty: none does.
        """
        self.folder, self.num_trials = study, num_trials
        self._space, self._seed, self._views = load_space(space), seed, list(views)
        self._deterministic, self._weights = deterministic, weights
        self._limits, self._value = limits or Limits(), Diversity(study) if objective == "diversity" else None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=open_storage(study, storage), study_name=name, direction="minimize", load_if_exists=True
        )
        warm = read_warm_start(study)
        self._offset = len(warm.evaluated)  # Optuna counts them as trials; ours begin after them
        for point in warm.evaluated[len(self._study.get_trials(deepcopy=False)) :]:  # a kill may have come between two
            self._study.add_trial(
                optuna.trial.create_trial(
                    params=point["params"],
                    distributions=distributions_of(self._settings, point["params"]),
                    value=point["mae_months"],
                    user_attrs={EARLIER: point["source"]},
                    constraints=self._limits.excess(point["cost"]) if "cost" in point else None,
                )
            )
        known = [point["params"] for point in warm.evaluated]
        points: list[dict[str, Any]] = []
        for point in [*warm.enqueued, *starting_points(space)]:
            complete = {name: value for name, value in point.items() if name != "view"}
            if len(self._views) > 1:
                complete["view"] = view if (view := point.get("view")) in self._views else usual_view(self._views)
            if complete not in known + points:
                points.append(complete)
        for point in points[:num_trials][len(self._trials()) :]:
            self._study.enqueue_trial(point)

    def reconcile(self) -> tuple[list[int], list[int]]:
        """Bring Optuna up to date with the disk after a kill.

        Returns:
            Numbers of the trials that have ended, and of those begun but not ended; the latter have a configuration
            on disk from now on, even when the kill came before it was written.
        """
        ended, begun = [], []
        for number, trial in enumerate(self._trials()):
            if trial.state == TrialState.WAITING:
                continue
            path = trial_folder(self.folder, number) / "outcome.json"
            if path.exists():
                ended.append(number)
                if trial.state == TrialState.RUNNING:
                    self._tell(number, read_json(path))
            elif trial.state == TrialState.RUNNING:
                begun.append(number)
                if not (path.parent / "config.json").exists():
                    self._study.sampler = self._sampler_of(number)
                    self._draw(optuna.trial.Trial(self._study, trial._trial_id))
                elif self._weights:
                    self._leave_hub(path.parent)
            else:
                raise ValueError(
                    f"Optuna has trial {number} as {trial.state.name}, but {path} is missing. "
                    "Restore the trial's folder from a backup; results would be lost otherwise."
                )
        if unknown := sorted(set(trial_numbers(self.folder)) - {*ended, *begun}):
            raise ValueError(
                f"{self.folder} holds the trials {unknown}, which Optuna's record lacks. "
                "Restore the journal or the database from a backup; they would be overwritten otherwise."
            )
        return ended, begun

    def num_asked(self) -> int:
        """How many trials have been begun so far."""
        return sum(trial.state != TrialState.WAITING for trial in self._trials())

    def counts(self) -> dict[str, int]:
        """How many trials have ended in each state."""
        trials = self._trials()
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
        trial = self._trials()[number]
        if trial.state == TrialState.RUNNING and fold not in trial.intermediate_values:
            optuna.trial.Trial(self._study, trial._trial_id).report(mae_months, fold)

    def num_told(self, number: int) -> int:
        """How many folds of a trial Optuna knows the error of."""
        return len(self._trials()[number].intermediate_values)

    def constrain(self, number: int) -> str | None:
        """Tell Optuna by how much a trial passes the limits, its cost lying in ``cost.json``.

        Returns:
            Why it is not trained, or None.
        """
        trial, cost = self._trials()[number], read_json(trial_folder(self.folder, number) / "cost.json")
        if trial.state == TrialState.RUNNING:
            for name, excess in self._limits.excess(cost).items():
                if name not in trial.constraints:
                    optuna.trial.Trial(self._study, trial._trial_id).set_constraint(name, excess)
        return self._limits.verdict(cost)

    def finish(self, number: int, outcome: Outcome) -> None:
        """Close a trial, on disk first; closing it again changes nothing."""
        path = trial_folder(self.folder, number) / "outcome.json"
        if not path.exists():
            if self._value and outcome.state == "complete":
                value, ensemble = self._value(number, self._complete())
                outcome = replace(outcome, value=value, ensemble=ensemble)
            write_json(path, outcome.to_dict())
        if self._trials()[number].state == TrialState.RUNNING:
            self._tell(number, read_json(path))

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        """This study's own trials, by number."""
        return self._study.get_trials(deepcopy=False)[self._offset :]

    def _complete(self) -> list[int]:
        return [number for number, trial in enumerate(self._trials()) if trial.state == TrialState.COMPLETE]

    def _settings(self, trial: Any) -> dict[str, Any]:
        return settings_of(self._space, self._views, trial, weights=self._weights)

    def _leave_hub(self, folder: AnyPath) -> None:
        """Let a trial that waits for the hub take its file instead; one that has trained goes on as it began."""
        written = read_json(folder / "config.json")
        traces = ("fold_*.safetensors", "screen.json", "*.checkpoint")
        if written["config"]["pretrained"] == "hub" and not any(any(folder.glob(trace)) for trace in traces):
            written["config"]["pretrained"] = local_file(written["config"]["backbone"], self._weights)
            write_json(folder / "config.json", written)

    def _draw(self, trial: optuna.Trial) -> int:
        number = trial.number - self._offset
        ours = {"seed": self._seed * 100_003 + number, "deterministic": self._deterministic}
        config = TrialConfig(**ours | self._settings(trial))
        write_json(
            trial_folder(self.folder, number) / "config.json",
            {"number": number, "config": config.to_dict(), "params": trial.params},
        )
        return number

    def _tell(self, number: int, outcome: dict[str, Any]) -> None:
        for fold, mae_months in enumerate(outcome["fold_mae_months"]):
            self.report(number, fold, mae_months)
        if self._limits.any and (trial_folder(self.folder, number) / "cost.json").exists():
            self.constrain(number)
        complete = outcome["state"] == "complete"
        value = outcome["mae_months"] if outcome["value"] is None else outcome["value"]
        self._study.tell(number + self._offset, value if complete else None, STATES[outcome["state"]])

    def _sampler_of(self, number: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group and multivariate
            return TPESampler(
                seed=int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]),
                n_startup_trials=max(4, min(10, self.num_trials // 4)),
                multivariate=True,
                group=True,
            )


def settings_of(space: Space, views: Sequence[str], trial: Any, *, weights: str = "") -> dict[str, Any]:
    """Settings that a space gives a trial, a file of weights as an absolute path, and a view where it names none.

    Args:
        space: What is searched.
        views: Of the cohort.
        trial: Optuna's.
        weights: Folder of files that stand in for timm's hub; empty: none does.

    Raises:
        ValueError: The space names a view that the cohort lacks.
        WeightsError: The folder lacks the network's file.
    """
    settings = dict(space(trial))
    if "view" not in settings:
        settings["view"] = trial.suggest_categorical("view", list(views)) if views[1:] else views[0]
    if settings["view"] not in views:
        raise ValueError(
            f"The space draws the view {settings['view']!r}, the cohort has {', '.join(views)}. "
            "Prepare a cohort that has it, or take another space."
        )
    if "pretrained" in settings:
        is_from_folder = weights and settings["pretrained"] == "hub"
        pretrained = local_file(settings["backbone"], weights) if is_from_folder else settings["pretrained"]
        settings["pretrained"] = located(pretrained)
    return settings
