"""What happens next in a study, and what each result means. Ray's adapters only pass messages to it."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from search.board import Event
from search.racing import FoldRace
from search.sampler import Outcome, Sampler


class StudyControl:
    """Hands out trials, races them and closes them, each exactly once.

    A resumed study goes through Tune from the start: trials that have ended are handed out again and replay their
    records without training, so that Tune's own account holds every trial once, like Optuna's and the disk.
    """

    def __init__(
        self,
        sampler: Sampler,
        race: FoldRace,
        *,
        num_folds: int,
        deadline: float | None = None,
        say: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """Start or go on.

        Args:
            sampler: The Optuna side, whose disk and journal are brought into line here.
            race: The stopping rule; it is told of the complete trials found.
            num_folds: Folds of a complete trial.
            deadline: `time.monotonic` after which no trial begins and none goes past the fold it is in.
            say: Called with what happens.
        """
        self._sampler, self._race, self._num_folds = sampler, race, num_folds
        self._deadline, self.say = deadline, say
        ended, begun = sampler.reconcile()
        self.num_ended = len(ended)
        self._replays = set(ended)
        self._queue = deque(ended + begun)
        self._maes: dict[int, tuple[float, ...]] = {}
        self._replayed: dict[int, bool] = {}
        self._stops: dict[int, str] = {}
        self._failures: dict[int, str] = {}
        self.halted = ""
        """Why the study cannot go on just now: a full disk, a cohort that cannot be read. No trial is to blame."""
        for number in ended:
            outcome = sampler.outcome(number)
            if outcome.state == "complete":
                race.record(number, outcome.fold_mae_months)

    @property
    def best_mae_months(self) -> float:
        """Lowest error of a complete trial, infinite before the first."""
        return min((sum(maes) / len(maes) for maes in self._race.complete.values()), default=float("inf"))

    def next(self) -> tuple[int, dict[str, Any]] | None:
        """Number and settings of the next trial, or None when no more shall begin."""
        may_train = not self.halted and not self._is_late()
        if self._queue and (may_train or self._queue[0] in self._replays):
            number = self._queue.popleft()
        elif self._queue or not may_train or self._sampler.num_asked() >= self._sampler.num_trials:
            return None
        else:
            number = self._sampler.ask()
        return number, self._sampler.config(number).to_dict()

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
        maes = tuple(result["fold_mae_months"])
        if not result["fold_finished"]:
            text = f"fold {result['fold'] + 1}, epoch {result['epoch']:.1f}: {result['measured_mae_months']:.1f} months"
            self.say(Event("measured", number, maes, text))
            return False
        self._maes[number] = maes
        self._replayed[number] = bool(result["replayed"])
        self._sampler.report(number, len(maes) - 1, maes[-1])
        if len(maes) == self._num_folds:
            return False
        verb = "was finished before" if result["replayed"] else f"{maes[-1]:.1f} months"
        self._tell("fold", number, maes, f"fold {len(maes)}/{self._num_folds}: {verb}")
        if verdict := self._race.verdict(maes):
            self._stops[number] = verdict
            return True
        return self._is_late()

    def on_end(self, number: int, *, crashed: bool) -> None:
        """Close a trial that Tune runs no longer; one that was merely interrupted stays open for `resume`."""
        if number in self._replays:
            return
        maes = self._maes.get(number, ())
        if crashed:
            outcome = Outcome("failed", maes, "its worker ended again and again without saying why")
        elif number in self._failures:
            outcome = Outcome("failed", maes, self._failures[number])
        elif number in self._stops:
            outcome = Outcome("stopped", maes, self._stops[number])
        elif len(maes) == self._num_folds:
            outcome = Outcome("complete", maes)
            self._race.record(number, maes)
        else:
            return
        self._replays.add(number)  # closed: nothing that comes late may change it
        self._sampler.finish(number, outcome)
        text = outcome.reason or f"MAE {outcome.to_dict()['mae_months']:.2f} months over {len(maes)} folds"
        self._tell(outcome.state, number, maes, f"{outcome.state}: {text}")

    def _tell(self, kind: str, number: int, maes: tuple[float, ...], text: str) -> None:
        ends_a_fold = kind in ("fold", "complete")
        replayed = self._replayed.get(number, False)
        trained = int(ends_a_fold and not replayed)
        self.say(Event(kind, number, maes, text, trained, int(ends_a_fold and replayed)))

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline
