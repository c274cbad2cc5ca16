"""What is known of the trials of a study, how each is judged, and how it ends.

A fold is judged once, when all before it were: told to Optuna, then to the stopping rules. A trial is closed once.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from search.board import Event
from search.progress import SCREEN, Progress, best_complete, read_case_errors, read_progress, share_done
from search.racing import Moment, Race
from search.sampler import Outcome, Sampler
from search.sharing import Arrival
from search.space import TrialConfig
from search.trial import trial_folder


class Judgement:
    """The trials' errors and costs so far, the rules' verdicts, and what those who watch are told."""

    def __init__(self, sampler: Sampler, race: Race, num_folds: int, say: Callable[[Event], None]) -> None:
        """Nothing is known yet.

        Args:
            sampler: The Optuna side, which is told the truth.
            race: The stopping rules.
            num_folds: Folds of a complete trial.
            say: Called with what happens.
        """
        self._sampler, self._race, self._num_folds, self._say = sampler, race, num_folds, say
        self.configs: dict[int, TrialConfig] = {}
        """Of the trials that were begun."""
        self._images: dict[int, dict[int, int]] = {}
        self._fold_images: dict[int, int] = {}
        self._maes: dict[int, tuple[float, ...]] = {}
        self._replayed: dict[int, bool] = {}
        self._stops: dict[int, tuple[str, str]] = {}
        self._failures: dict[int, str] = {}
        self.closed: set[int] = set()
        """Trials that have ended, before this run or in it: nothing that comes late may change them."""

    @property
    def best_mae_months(self) -> float:
        """Lowest error of a complete trial, infinite before the first."""
        complete = (trial.mae_months for trial in self._race.trials.values() if trial.is_complete)
        return min(complete, default=float("inf"))

    def images_of_open(self) -> dict[int, int]:
        """Image passes so far of the trials that were begun and have not ended, by number."""
        return {number: sum(images.values()) for number, images in self._images.items() if number not in self.closed}

    def best_complete(self) -> list[int]:
        """Numbers of the complete trials, best first."""
        return [trial.number for trial in best_complete(list(self._race.trials.values()), len(self._race.trials))]

    def read(self, number: int, config: TrialConfig, *, has_ended: bool) -> None:
        """Take in what the folder of a trial tells of the runs before."""
        self.configs[number] = config
        folder = trial_folder(self._sampler.folder, number)
        progress, self._images[number] = read_progress(
            folder, number, config, self._num_folds, with_cases=self._race.needs_cases
        )
        if has_ended:
            self.closed.add(number)
        else:
            told = self._sampler.num_told(number)  # folds beyond were finished, but not judged
            maes, errors = progress.fold_mae_months[:told], progress.case_errors[:told]
            progress = replace(progress, fold_mae_months=maes, case_errors=errors)
        self._race.record(progress)

    def begin(self, number: int, config: TrialConfig) -> None:
        """A new trial."""
        self.configs[number], self._images[number] = config, {}
        self._race.record(Progress(number))

    def num_judged(self, number: int) -> int:
        """Folds that were judged in this run, replayed ones included."""
        return len(self._maes.get(number, ()))

    def has_verdict(self, number: int) -> bool:
        """Whether the trial needs no further training: stopped, or failed."""
        return number in self._stops or number in self._failures

    def fail(self, number: int, reason: str) -> None:
        """The trial cannot be trained; the first reason counts."""
        self._failures.setdefault(number, reason)

    def weigh(self, number: int) -> bool:
        """The cost of a trial was measured; returns whether it passes the limits."""
        if reason := self._sampler.constrain(number):
            self._stops[number] = ("limits", reason)
        return number in self._stops

    def screened(self, number: int, result: dict[str, Any]) -> None:
        """What the short training measured."""
        mae = result["measured_mae_months"]
        self._images[number][SCREEN] = result["images_seen"]
        self._size_up(number, result)
        self._race.record(replace(self._race.trials[number], screen_months=mae))
        self._say(self._event("screened", number, (), f"short training: {mae:.1f} months"))

    def screen_share(self, number: int) -> float:
        """Image passes of its short training, as a share of a fold's."""
        return self._images[number][SCREEN] / self._fold_images[number]

    def is_outranked(self, number: int) -> bool:
        """Whether the rules stop a trial after its short training."""
        return self._stop(number, "screen")

    def screen_months(self, number: int) -> float | None:
        """What its short training ended with, or None where there was none yet."""
        return self._race.trials[number].screen_months

    def order(self, number: int) -> tuple[bool, float, int]:
        """In which order trials of a run before go on: with folds as they were begun, the others the best first."""
        screen = None if self.has_folds(number) else self.screen_months(number)
        return screen is not None, screen or 0.0, number

    def has_folds(self, number: int) -> bool:
        """Whether a fold of it was measured."""
        trial = self._race.trials[number]
        return bool(trial.curve or trial.fold_mae_months)

    def measured(self, number: int, result: dict[str, Any], *, by_assistant: bool) -> bool:
        """A measurement, inside a fold or at its end; returns whether the rules stop the trial there."""
        fold, trial = result["fold"], self._race.trials[number]
        images = self._images[number]
        images[fold] = max(images.get(fold, 0), result["images_seen"])
        self._size_up(number, result)
        if fold == 0:
            share = share_done(self.configs[number], result["epoch"], result["images_seen"])
            earlier = tuple(point for point in trial.curve if point[0] < share)
            if len(earlier) == len(trial.curve) or not result["replayed"]:
                curve = (*earlier, (share, result["measured_mae_months"]))
                self._race.record(replace(trial, curve=curve))
        if result["fold_finished"]:
            return False
        maes = self._maes.get(number, ()) if by_assistant else tuple(result["fold_mae_months"])
        text = f"fold {fold + 1}, epoch {result['epoch']:.1f}: {result['measured_mae_months']:.1f} months"
        kind, text = ("noted", f"{text}. {note}") if (note := result.get("note")) else ("measured", text)
        self._say(self._event(kind, number, maes, text))
        return fold == 0 and not result["replayed"] and self._stop(number, "measurement")

    def judge(self, number: int, arrived: Arrival) -> None:
        """The next fold in order has ended."""
        if arrived.failure:
            self.fail(number, arrived.failure)
            return
        maes = self._maes[number] = (*self._maes.get(number, ()), arrived.mae_months)
        self._replayed[number] = arrived.replayed
        trial = self._race.trials[number]
        known = len(trial.fold_mae_months)
        if len(maes) > known:
            errors = trial.case_errors
            if self._race.needs_cases:
                errors = (*errors, read_case_errors(trial_folder(self._sampler.folder, number), len(maes) - 1))
            self._race.record(replace(trial, fold_mae_months=maes, case_errors=errors))
        self._sampler.report(number, len(maes) - 1, maes[-1])
        if len(maes) < self._num_folds:
            verb = "was finished before" if arrived.replayed else f"{maes[-1]:.1f} months"
            self._tell("fold", number, f"fold {len(maes)}/{self._num_folds}: {verb}")
            if len(maes) >= known:  # what a restart replays was judged before
                self._stop(number, "fold")

    def close(self, number: int, num_unjudged: int) -> bool:
        """Close a trial that has all its folds or a verdict; returns whether it is closed.

        Args:
            number: The trial.
            num_unjudged: Folds that were trained, and are not judged any more.
        """
        maes = self._maes.get(number, ())
        images_seen = sum(self._images[number].values())
        if number in self.closed:
            return True
        if len(maes) == self._num_folds:
            outcome = Outcome("complete", maes, "", images_seen)
            self._race.record(replace(self._race.trials[number], is_complete=True))
        elif number in self._failures:
            outcome = Outcome("failed", maes, self._failures[number], images_seen)
        elif number in self._stops:
            stage, reason = self._stops[number]
            outcome = Outcome("stopped", maes, reason, images_seen, stage)
        else:
            return False
        self._sampler.finish(number, outcome)
        self.closed.add(number)  # only now: where the record cannot be written, the trial is open
        text = outcome.reason or f"MAE {outcome.to_dict()['mae_months']:.2f} months over {len(maes)} folds"
        self._tell(outcome.state, number, f"{outcome.state}: {text}", outcome.stopped_at, num_unjudged)
        return True

    def _stop(self, number: int, after: Moment) -> bool:
        verdict = self._race.verdict(number, after=after)
        if verdict:
            self._stops[number] = verdict
        return verdict is not None

    def _size_up(self, number: int, result: dict[str, Any]) -> None:
        """How large a fold is: every measurement tells how many cases an epoch has."""
        self._fold_images[number] = self.configs[number].planned_images(round(result["images_seen"] / result["epoch"]))

    def _tell(self, kind: str, number: int, text: str, stopped_at: str = "", num_unjudged: int = 0) -> None:
        ends_a_fold = kind in ("fold", "complete")
        replayed = self._replayed.get(number, False)
        trained, found = num_unjudged + int(ends_a_fold and not replayed), int(ends_a_fold and replayed)
        event = self._event(kind, number, self._maes.get(number, ()), text)
        self._say(replace(event, folds_trained=trained, folds_replayed=found, stopped_at=stopped_at))

    def _event(self, kind: str, number: int, maes: tuple[float, ...], text: str) -> Event:
        images, fold_images = self._images[number], self._fold_images.get(number, 0)
        spent, screen = sum(images.values()), images.get(SCREEN, 0)
        return Event(kind, number, maes, text, images_seen=spent, fold_images=fold_images, screen_images=screen)
