"""What happens next in a study, and what each result means. Ray's adapters only pass messages to it."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from search.board import Event
from search.pace import Pace
from search.progress import SCREEN, Progress, read_case_errors, read_progress, share_done
from search.racing import Moment, Race
from search.sampler import Outcome, Sampler
from search.trial import FoldReport, trial_folder


def result_of(report: FoldReport) -> dict[str, Any]:
    """A trial's report as the flat result that Ray Tune carries and logs."""
    maes, measured = list(report.fold_mae_months), report.measurement
    return {
        "fold": report.fold,
        "fold_finished": report.fold_finished,
        "is_screen": report.is_screen,
        "fold_mae_months": maes,
        "measured_mae_months": measured.mae_months,
        "mae_months": sum(maes) / len(maes) if maes else measured.mae_months,
        "epoch": measured.epoch,
        "images_seen": measured.images_seen,
        "train_loss": measured.train_loss,
        "replayed": report.replayed,
        "note": measured.note,
    }


class StudyControl:
    """Hands out trials, races them and closes them, each exactly once.

    A resumed study goes through Tune from the start: trials that have ended are handed out again and replay their
    records without training, so that Tune's own account holds every trial once, like Optuna's and the disk.
    """

    def __init__(
        self,
        sampler: Sampler,
        race: Race,
        *,
        num_folds: int,
        deadline: float | None = None,
        say: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """Start or go on.

        Args:
            sampler: The Optuna side, whose disk and journal are brought into line here.
            race: The stopping rules; what the trials' folders tell is recorded there.
            num_folds: Folds of a complete trial.
            deadline: `time.monotonic` by which the study shall end: no trial begins that would not be complete by
                then, and none goes past the fold it is in.
            say: Called with what happens.
        """
        self._sampler, self._race, self._num_folds = sampler, race, num_folds
        self._pace, self.say = Pace(num_folds, deadline), say
        ended, begun = sampler.reconcile()
        self.num_ended = len(ended)
        self._replays = set(ended)
        self._queue = deque(ended + begun)
        self._configs = {number: sampler.config(number) for number in ended + begun}
        self._images: dict[int, dict[int, int]] = {}
        self._maes: dict[int, tuple[float, ...]] = {}
        self._replayed: dict[int, bool] = {}
        self._stops: dict[int, tuple[str, str]] = {}
        self._failures: dict[int, str] = {}
        self.halted = ""
        """Why the study cannot go on just now: a full disk, a cohort that cannot be read. No trial is to blame."""
        self.is_out_of_time = False
        """Whether a trial was kept back or cut off by the deadline."""
        for number, config in self._configs.items():
            folder = trial_folder(sampler.folder, number)
            progress, self._images[number] = read_progress(
                folder, number, config, num_folds, with_cases=race.needs_cases
            )
            race.record(progress)

    @property
    def best_mae_months(self) -> float:
        """Lowest error of a complete trial, infinite before the first."""
        complete = (trial.mae_months for trial in self._race.trials.values() if trial.is_complete)
        return min(complete, default=float("inf"))

    def next(self) -> tuple[int, dict[str, Any]] | None:
        """Number and settings of the next trial, or None when no more shall begin."""
        may_go_on = not self.halted and not self._pace.is_late
        may_begin = not self.halted and self._pace.allows_another
        self.is_out_of_time |= not (self.halted or may_begin)
        if self._queue and (may_go_on or self._queue[0] in self._replays):
            number = self._queue.popleft()
        elif self._queue or not may_begin or self._sampler.num_asked() >= self._sampler.num_trials:
            return None
        else:
            number = self._sampler.ask()
            self._configs[number] = self._sampler.config(number)
            self._images[number] = {}
            self._race.record(Progress(number))
        self._pace.begin(number)
        return number, self._configs[number].to_dict()

    def on_result(self, number: int, result: dict[str, Any]) -> bool:
        """Take a trial's report; returns whether the trial shall stop now."""
        if number in self._replays:
            return False
        if reason := result.get("failed"):
            self._failures[number] = reason
            return False
        if reason := result.get("halted"):
            self.halted = reason
            return True
        if result.get("cost_measured"):
            if reason := self._sampler.constrain(number):
                self._stops[number] = ("limits", reason)
            return number in self._stops
        if result["is_screen"]:
            return self._on_screen(number, result)
        known = len(self._race.trials[number].fold_mae_months)
        self._record(number, result)
        maes = tuple(result["fold_mae_months"])
        if not result["fold_finished"]:
            text = f"fold {result['fold'] + 1}, epoch {result['epoch']:.1f}: {result['measured_mae_months']:.1f} months"
            kind, text = ("noted", f"{text}. {note}") if (note := result.get("note")) else ("measured", text)
            self.say(Event(kind, number, maes, text, images_seen=sum(self._images[number].values())))
            return result["fold"] == 0 and not result["replayed"] and self._stop(number, "measurement")
        self._maes[number] = maes
        self._replayed[number] = bool(result["replayed"])
        self._pace.end_fold(number, was_trained=not result["replayed"])
        self._sampler.report(number, len(maes) - 1, maes[-1])
        if len(maes) == self._num_folds:
            return False
        verb = "was finished before" if result["replayed"] else f"{maes[-1]:.1f} months"
        self._tell("fold", number, maes, f"fold {len(maes)}/{self._num_folds}: {verb}")
        if len(maes) >= known and self._stop(number, "fold"):  # what a restart replays was judged before
            return True
        return self._pace.is_late

    def on_end(self, number: int, *, crashed: bool) -> None:
        """Close a trial that Tune runs no longer; one that was merely interrupted stays open for `resume`."""
        if number in self._replays:
            return
        maes = self._maes.get(number, ())
        images_seen = sum(self._images[number].values())
        if crashed:
            reason = "its worker ended again and again without saying why"
            outcome = Outcome("failed", maes, reason, images_seen)
        elif number in self._failures:
            outcome = Outcome("failed", maes, self._failures[number], images_seen)
        elif number in self._stops:
            stage, reason = self._stops[number]
            outcome = Outcome("stopped", maes, reason, images_seen, stage)
        elif len(maes) == self._num_folds:
            outcome = Outcome("complete", maes, "", images_seen)
            self._race.record(replace(self._race.trials[number], is_complete=True))
        else:
            return
        self._replays.add(number)  # closed: nothing that comes late may change it
        self._sampler.finish(number, outcome)
        text = outcome.reason or f"MAE {outcome.to_dict()['mae_months']:.2f} months over {len(maes)} folds"
        self._tell(outcome.state, number, maes, f"{outcome.state}: {text}", outcome)

    def _on_screen(self, number: int, result: dict[str, Any]) -> bool:
        """Take what the short training measured; one that is replayed was judged before."""
        mae, images = result["measured_mae_months"], self._images[number]
        images[SCREEN] = result["images_seen"]
        self._race.record(replace(self._race.trials[number], screen_months=mae))
        self.say(Event("measured", number, (), f"short training: {mae:.1f} months", images_seen=sum(images.values())))
        return not result["replayed"] and self._stop(number, "screen")

    def _record(self, number: int, result: dict[str, Any]) -> None:
        """Bring what the rules see of a trial up to date."""
        fold, trial = result["fold"], self._race.trials[number]
        images = self._images[number]
        images[fold] = max(images.get(fold, 0), result["images_seen"])
        if fold == 0:
            share = share_done(self._configs[number], result["epoch"], result["images_seen"])
            earlier = tuple(point for point in trial.curve if point[0] < share)
            if len(earlier) == len(trial.curve) or not result["replayed"]:
                trial = replace(trial, curve=(*earlier, (share, result["measured_mae_months"])))
        if result["fold_finished"] and fold == len(trial.fold_mae_months):
            errors = trial.case_errors
            if self._race.needs_cases:
                errors = (*errors, read_case_errors(trial_folder(self._sampler.folder, number), fold))
            trial = replace(trial, fold_mae_months=tuple(result["fold_mae_months"]), case_errors=errors)
        self._race.record(trial)

    def _stop(self, number: int, after: Moment) -> bool:
        verdict = self._race.verdict(number, after=after)
        if verdict:
            self._stops[number] = verdict
        return verdict is not None

    def _tell(self, kind: str, number: int, maes: tuple[float, ...], text: str, outcome: Outcome | None = None) -> None:
        ends_a_fold = kind in ("fold", "complete")
        replayed = self._replayed.get(number, False)
        trained = int(ends_a_fold and not replayed)
        at, images = outcome.stopped_at if outcome else "", sum(self._images[number].values())
        self.say(Event(kind, number, maes, text, trained, int(ends_a_fold and replayed), at, images))
