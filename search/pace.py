"""Whether there is time for another trial."""

import math
import time
from collections.abc import Callable

SCREENING = 1 / 3
"""Share of the time until the deadline in which the short trainings of a generation may begin."""
Worker = tuple[int, int | None]
"""A trial, and the fold or `SCREEN` that the worker has of it; None: it is the trial's own."""


class Pace:
    """Keeps how long folds take, so that no trial begins that the deadline would cut off half done.

    Half a trial is no candidate for the ensemble: its out-of-fold predictions are incomplete. Trials differ tenfold in
    what they take; short trainings do so in proportion.
    """

    def __init__(self, num_folds: int, deadline: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        Args:
            num_folds: Folds of a complete trial.
            deadline: By the clock, in seconds; None sets none.
            clock: Seconds from any origin.
        """
        self._num_folds, self._deadline, self._clock = num_folds, deadline, clock
        self._since: dict[Worker, float] = {}
        self._folds: list[tuple[int, float]] = []
        """Trial and seconds of each fold that was trained."""
        self._screens: dict[int, float] = {}
        """Seconds that a fold of each trial would take, if it takes as long an image as the short training did."""
        self._screens_until = math.inf
        self.begin_generation()

    def begin(self, worker: Worker) -> None:
        """A worker begins a trial, a fold or a short training, or goes on with one."""
        self._since[worker] = self._clock()

    def end_screen(self, worker: Worker, share: float) -> None:
        """A worker has finished a short training, of this share of a fold's image passes."""
        if worker in self._since:  # else it was one of a run before
            self._screens[worker[0]] = (self._clock() - self._since.pop(worker)) / share

    def end_fold(self, worker: Worker, *, was_trained: bool) -> None:
        """A worker has finished a fold; one that was only read says nothing of the time that folds take."""
        now = self._clock()
        if was_trained:
            self._folds.append((worker[0], now - self._since[worker]))
        self._since[worker] = now

    def begin_generation(self) -> None:
        """Short trainings begin, for a share of the time that is left."""
        if self._deadline is not None:
            self._screens_until = self._clock() + SCREENING * (self._deadline - self._clock())

    @property
    def allows_generation(self) -> bool:
        """Whether a whole trial fits after the short trainings of the generation that has just begun."""
        return self._fits(self._num_folds * self._mean_fold, max(0.0, self._screens_until - self._clock()))

    @property
    def allows_screen(self) -> bool:
        """Whether a short training may begin, and the rest of a trial after it."""
        return self.allows_another and self._clock() <= self._screens_until

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self._deadline is not None and self._clock() > self._deadline

    @property
    def allows_another(self) -> bool:
        """Whether a whole trial fits before the deadline, by the mean of the folds so far; before anything, yes."""
        return self._fits(self._num_folds * self._mean_fold)

    @property
    def allows_fold(self) -> bool:
        """Whether one fold fits before the deadline, by the same mean."""
        return self._fits(self._mean_fold)

    def allows_next_fold(self, number: int) -> bool:
        """Whether another fold of a trial fits before the deadline, by the mean of its own."""
        own = [seconds for each, seconds in self._folds if each == number]
        return self._fits(sum(own) / len(own) if own else self._mean_fold)

    def allows_trial(self, number: int) -> bool:
        """Whether this trial fits, by what its short training took.

        How much longer a fold takes is known from trials that have both; before, from the share of its image passes.
        """
        if number not in self._screens:
            return self.allows_another
        known = [(seconds, self._screens[each]) for each, seconds in self._folds if each in self._screens]
        folds, screens = (sum(values) for values in zip(*known, strict=True)) if known else (1.0, 1.0)
        return self._fits(self._num_folds * self._screens[number] * folds / screens)

    @property
    def _mean_fold(self) -> float:
        """Seconds; before the first fold, by the cheapest short training: only what surely does not fit is left out."""
        if self._folds:
            return sum(seconds for _, seconds in self._folds) / len(self._folds)
        return min(self._screens.values(), default=0.0)

    def _fits(self, seconds: float, after: float = 0.0) -> bool:
        return self._deadline is None or self._clock() + after + seconds <= self._deadline
