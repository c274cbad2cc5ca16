"""Whether there is time for another trial."""

import math
import time
from collections.abc import Callable, Hashable

SCREENING = 1 / 3
"""Share of the time until the deadline in which the short trainings of a generation may begin."""


class Pace:
    """Keeps how long folds take, so that no trial begins that the deadline would cut off half done.

    Half a trial is no candidate for the ensemble: its out-of-fold predictions are incomplete.
    """

    def __init__(self, num_folds: int, deadline: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        Args:
            num_folds: Folds of a complete trial.
            deadline: By the clock, in seconds; None sets none.
            clock: Seconds from any origin.
        """
        self._num_folds, self._deadline, self._clock = num_folds, deadline, clock
        self._since: dict[Hashable, float] = {}
        self._folds: list[float] = []
        self._screens_until = math.inf
        self.begin_generation()

    def begin(self, worker: Hashable) -> None:
        """A worker begins a trial or a fold, or goes on with one."""
        self._since[worker] = self._clock()

    def end_fold(self, worker: Hashable, *, was_trained: bool) -> None:
        """A worker has finished a fold; one that was only read says nothing of the time that folds take."""
        now = self._clock()
        if was_trained:
            self._folds.append(now - self._since[worker])
        self._since[worker] = now

    def begin_generation(self) -> None:
        """Short trainings begin, for a share of the time that is left."""
        if self._deadline is not None:
            self._screens_until = self._clock() + SCREENING * (self._deadline - self._clock())

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
        """Whether a whole trial fits before the deadline, by the mean of the folds so far; before the first, yes."""
        return self._fits(self._num_folds)

    @property
    def allows_fold(self) -> bool:
        """Whether one fold fits before the deadline, by the same mean."""
        return self._fits(1)

    def _fits(self, count: int) -> bool:
        if self._deadline is None or not self._folds:
            return not self.is_late
        return self._clock() + count * sum(self._folds) / len(self._folds) <= self._deadline
