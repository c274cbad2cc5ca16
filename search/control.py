"""What happens next in a study: who gets which work, and what follows from a report. Ray's adapters only pass on.

How workers share the folds of a trial is told in search/sharing.py, how folds are judged in search/judging.py, in which
order trials are trained in search/generations.py.

trials/0007/passed.json     that it goes on after its short training, which it had in a generation
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from preprocessing.storage import write_json
from search.board import Event
from search.fold_files import finished_folds
from search.generations import Generations
from search.judging import Judgement
from search.pace import Pace
from search.partition import SecondPartition
from search.progress import SCREEN
from search.racing import Race
from search.sampler import Sampler
from search.sharing import Arrival, SharedFolds
from search.tasks import Task as Task
from search.tasks import given_up
from search.tasks import result_of as result_of
from search.trial import trial_folder

PASSED = "passed.json"


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
        generation: int = 0,
        num_second: int = 0,
        say: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """Start or go on.

        Args:
            sampler: The Optuna side, whose disk and journal are brought into line here.
            race: The stopping rules; what the trials' folders tell is recorded there.
            num_folds: Folds of a complete trial.
            deadline: `time.monotonic` by which the study shall end: no trial begins that would not be complete by
                then, and none goes past the fold it is in.
            generation: Trials whose short trainings come before any of them is trained further; 0: each trial has its
                own, where the job says so, and is judged by what came before.
            num_second: How many of the best trials are trained on a second partition in the end.
            say: Called with what happens.
        """
        self._sampler, self._num_folds = sampler, num_folds
        self._pace, self.say = Pace(num_folds, deadline), say
        self._folds = SharedFolds(num_folds)
        self._judgement = Judgement(sampler, race, num_folds, lambda event: self.say(event))
        self._second = SecondPartition(sampler.folder, num_folds, num_second, lambda event: self.say(event))
        ended, begun = sampler.reconcile()
        self.num_ended = len(ended)
        self._replays = set(ended)
        for number in [*ended, *begun]:
            self._judgement.read(number, sampler.config(number), has_ended=number in self._replays)
        self._generations = Generations(generation)
        self._has_generations = generation > 0
        waits = {number for number in begun if self._awaits_generation(number)}
        self._queue = deque([*ended, *sorted(set(begun) - waits, key=self._judgement.order)])
        self._causes: dict[tuple[int, int | None, bool], str] = {}
        self.halted = ""
        """Why the study cannot go on just now: a full disk, a cohort that cannot be read. No trial is to blame."""
        self.is_out_of_time = False
        """Whether a trial was kept back or cut off by the deadline."""
        self._begin_second_if_due()

    @property
    def best_mae_months(self) -> float:
        """Lowest error of a complete trial, infinite before the first."""
        return self._judgement.best_mae_months

    def images_of_open(self) -> dict[int, int]:
        """Image passes so far of the trials that were begun and have not ended, by number."""
        return self._judgement.images_of_open()

    @property
    def may_have_more(self) -> bool:
        """Whether `next`, which has nothing now, may have something when another worker has come further."""
        at_work = self._folds.is_anyone_at_work or self._second.is_anyone_at_work or self._generations.is_anyone_at_work
        return not self.halted and not self._pace.is_late and at_work

    @property
    def is_complete(self) -> bool:
        """Whether every trial has ended, and the second partition with them."""
        return len(self._judgement.closed) == self._sampler.num_trials and self._second.is_complete

    def halt(self, reason: str) -> None:
        """Begin nothing more; the first reason counts.

        Args:
            reason: A sentence that a person can act on: no trial is to blame.
        """
        self.halted = self.halted or reason

    def next(self) -> Task | None:
        """What a free worker shall do: a trial, or else a fold of another worker's; None when there is nothing now."""
        may_go_on = not self.halted and not self._pace.is_late
        # where no other trial fits, who waits for a generation waits for `resume`, unless nothing was done at all
        may_judge = may_go_on and (self._pace.allows_another or not self._is_anything_done)
        may_screen = may_judge and self._judge_generation()
        if self._queue and (may_go_on or self._queue[0] in self._replays):
            number = self._queue.popleft()
            if number not in self._replays:
                self._reopen(number)
        elif self._queue:
            self.is_out_of_time |= not self.halted
            return None
        elif self._has_generations:
            return self._of_generation(may_screen)
        elif not self._may_ask:
            return self._assist()
        elif self.halted or not self._pace.allows_another:
            self.is_out_of_time |= not self.halted
            return self._assist()
        else:
            number = self._ask()
            self._folds.open(number)
        return self._own(number)

    def on_result(
        self, number: int, result: dict[str, Any], *, fold: int | None = None, is_second: bool = False
    ) -> bool:
        """Take a worker's report.

        Args:
            number: The trial.
            result: From `result_of`; or ``begins``: the fold that a trial's own worker comes to; or why it fails;
                or ``crashed``: what its worker dies of, which another may not.
            fold: The one that the worker assists with, `SCREEN` for the short training; None: it is the trial's own.
            is_second: Whether that is a fold of the second partition.

        Returns:
            Whether the worker shall stop now.
        """
        if "begins" in result:
            return not self._folds.claim(number, result["begins"])
        if cause := result.get("crashed"):
            self._causes[number, fold, is_second] = cause
            return False
        self._causes.pop((number, fold, is_second), None)  # another worker has come further
        if (reason := result.get("halted")) and (is_second or number not in self._judgement.closed):
            self.halted = reason
            return True
        if fold is not None and is_second:
            return self._on_second(number, fold, result)
        if fold == SCREEN:
            return number in self._judgement.closed or self._on_screen(number, result)
        if number in self._judgement.closed:
            return fold is not None  # a trial that has ended needs no assistant
        if reason := result.get("failed"):
            if fold is not None:
                return self._arrive(number, fold, Arrival(float("nan"), failure=reason))
            self._judgement.fail(number, reason)
            self._folds.bar(number)
            return False
        if result.get("cost_measured"):
            return self._judgement.weigh(number)
        if result["is_screen"]:
            self._judgement.screened(number, result)
            return not (result["replayed"] or self._has_generations) and self._judgement.is_outranked(number)
        if self._judgement.measured(number, result, by_assistant=fold is not None):
            return True
        if not result["fold_finished"]:
            return fold is not None and self._judgement.has_verdict(number)
        self._pace.end_fold((number, fold), was_trained=not result["replayed"])
        if self._arrive(number, result["fold"], Arrival(result["measured_mae_months"], bool(result["replayed"]))):
            return True
        if fold is None and self._judgement.num_judged(number) < self._num_folds and self._is_cut_off(number):
            self.is_out_of_time = True
            return True
        return False

    def on_end(self, number: int, *, crashed: bool, fold: int | None = None, is_second: bool = False) -> None:
        """A worker ends, by itself or because it was told to.

        A trial that was merely interrupted stays open for `resume`, and one that assistants still train, for them.

        Args:
            number: The trial.
            crashed: Whether it died, again and again.
            fold: The one that it assisted with, or `SCREEN`; None: it is the trial's own worker.
            is_second: Whether that was a fold of the second partition.
        """
        reason = given_up(self._causes.pop((number, fold, is_second), None))
        if fold is not None and is_second:
            if crashed:
                self._second.fail(number, reason)
            self._second.leave(number, fold)
            return
        if fold == SCREEN:
            self._generations.leave(number)
        if number in self._judgement.closed:
            return
        if fold == SCREEN:
            if crashed and self._judgement.screen_months(number) is None:
                self._judgement.fail(number, reason)
            if self._judgement.has_verdict(number):
                self._end_early(number)
            return
        if crashed and fold is not None:
            self._arrive(number, fold, Arrival(float("nan"), failure=reason))
        elif crashed:
            self._judgement.fail(number, reason)
        self._folds.leave(number, fold)
        self._close_if_due(number)

    @property
    def _may_ask(self) -> bool:
        return self._sampler.num_asked() < self._sampler.num_trials

    def _ask(self) -> int:
        number = self._sampler.ask()
        self._judgement.begin(number, self._sampler.config(number))
        return number

    def _own(self, number: int) -> Task:
        self._pace.begin((number, None))
        return Task(number, self._judgement.configs[number].to_dict())

    def _awaits_generation(self, number: int) -> bool:
        """Whether a trial of a run before competes in a generation; if so, it is entered there."""
        folder = trial_folder(self._sampler.folder, number)
        if not self._has_generations or (folder / PASSED).exists() or self._judgement.has_folds(number):
            return False
        mae = self._judgement.screen_months(number)
        if mae is None:
            self._generations.add(number)
        else:
            self._generations.measured(number, mae)
        return True

    def _judge_generation(self) -> bool:
        """Judge a generation that is complete; returns whether a short training may begin.

        The clock is asked once for both: a generation that waits for more short trainings must get one.
        """
        may_screen = self._pace.allows_screen
        may_grow = may_screen and (self._may_ask or self._generations.has_due)
        self._generations.judge(self._is_outranked, may_grow=may_grow)
        if self._generations.is_fresh:
            self._pace.begin_generation()
            may_screen = self._pace.allows_screen and self._pace.allows_generation
        return may_screen

    def _of_generation(self, may_screen: bool) -> Task | None:
        """The best trial that goes on; else a short training; else a fold of another worker's."""
        if self.halted:
            return None
        if (number := self._following()) is not None:
            self._folds.open(number)
            return self._own(number)
        if may_screen:
            if self._may_ask and not self._generations.has_due:
                self._generations.add(self._ask())
            if (number := self._generations.take()) is not None:
                self._pace.begin((number, SCREEN))
                return Task(number, self._judgement.configs[number].to_dict(), SCREEN)
        if self._generations.is_fresh or not self._pace.allows_another:
            self.is_out_of_time |= self._may_ask or self._generations.has_open
        return self._assist()

    def _following(self) -> int | None:
        """The best trial that goes on and for which there is time.

        Where there is time for none and nothing else is done, the best all the same: other workers assist it, and
        `resume` goes on with it.
        """
        number = self._generations.following(self._pace.allows_trial)
        if number is None and not self._is_anything_done and not self._pace.is_late:
            number = self._generations.following(lambda _: True)
        return number

    @property
    def _is_anything_done(self) -> bool:
        """Whether a trial is complete or has workers."""
        return self._folds.is_anyone_at_work or self._judgement.best_mae_months < math.inf

    def _is_cut_off(self, number: int) -> bool:
        """Whether a trial's own worker does not go on to the next fold: the deadline has passed, or will have passed
        before that fold is there, and it is not the last one. A last one makes a candidate, so it may be late."""
        late = self._folds.num_free(number) > 1 and not self._pace.allows_next_fold(number)
        return late or self._pace.is_late

    def _on_screen(self, number: int, result: dict[str, Any]) -> bool:
        if reason := result.get("failed"):
            self._judgement.fail(number, reason)
        elif result.get("cost_measured"):
            return self._judgement.weigh(number)
        else:
            self._judgement.screened(number, result)
            self._pace.end_screen((number, SCREEN), self._judgement.screen_share(number))
            self._generations.measured(number, result["measured_mae_months"])
        return False

    def _is_outranked(self, number: int) -> bool:
        """Judge a trial whose generation is complete; what does not go on is closed."""
        if self._judgement.is_outranked(number):
            self._end_early(number)
            return True
        write_json(trial_folder(self._sampler.folder, number) / PASSED, {"generation": "passed"})
        return False

    def _end_early(self, number: int) -> None:
        """Close a trial that never had a worker of its own; one replays it, so that Tune's account holds it too."""
        self._generations.drop(number)
        self._judgement.close(number, 0)
        self._replays.add(number)
        self._queue.appendleft(number)
        self._begin_second_if_due()

    def _reopen(self, number: int) -> None:
        """Go on with a trial that was begun before; its own worker reads its folds up to the first that is missing."""
        done = finished_folds(trial_folder(self._sampler.folder, number), self._num_folds)
        gap = next((fold for fold in range(self._num_folds) if fold not in done), self._num_folds)
        beyond = {fold: Arrival(record["mae_months"], True) for fold, record in done.items() if fold > gap}
        self._folds.open(number, done, beyond)

    def _assist(self) -> Task | None:
        may_begin = not self.halted and self._pace.allows_fold
        self.is_out_of_time |= not (self.halted or may_begin)
        if not may_begin:
            return None
        is_second = self._second.has_begun
        claimed = self._second.next() if is_second else self._folds.assist(self._pace.allows_next_fold)
        if claimed is None:
            return None
        number, fold = claimed
        self._pace.begin(claimed)
        return Task(number, self._judgement.configs[number].to_dict(), fold, is_second)

    def _on_second(self, number: int, fold: int, result: dict[str, Any]) -> bool:
        if reason := result.get("failed"):
            self._second.fail(number, reason)
        elif result["fold_finished"]:
            self._pace.end_fold((number, fold), was_trained=not result["replayed"])
            self._second.finish(number, fold, result["measured_mae_months"])
        return not self._second.is_wanted(number)

    def _begin_second_if_due(self) -> None:
        if self._second.count and len(self._judgement.closed) == self._sampler.num_trials:
            self._second.begin(self._judgement.best_complete())

    def _arrive(self, number: int, fold: int, arrival: Arrival) -> bool:
        """A fold has ended: judge all whose turn has come; returns whether the trial needs no more of them."""
        self._folds.arrive(number, fold, arrival)
        while not self._judgement.has_verdict(number) and (arrived := self._folds.turn(number)):
            self._judgement.judge(number, arrived)
        if self._judgement.has_verdict(number):
            self._folds.bar(number)
        self._close_if_due(number)
        return self._judgement.has_verdict(number)

    def _close_if_due(self, number: int) -> None:
        """A trial is closed when it has ended and its own worker has; that one may still have reports on the way."""
        if self._folds.has_own_worker(number):
            return
        if self._judgement.close(number, self._folds.num_waiting(number)):
            self._folds.close(number)
            self._begin_second_if_due()
