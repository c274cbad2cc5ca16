"""Which trials are trained beyond their short training, and when: those of a generation compete before any is trained.

Every trial of a generation has its short training first; then all are judged by `search.halving.Screen`, the best
first, and those that pass are trained in that order. So the race over the folds begins with the trials that will
probably be the best of the pool, and stops the later ones early; the next generation's draws learn from this one.

Over 20 draws of 48 of 60 recorded trainings on real radiographs (``python -m benchmarks.racing``, 64 pixels, five
folds) a search needed 4.2 times fewer image passes than full cross-validation so, and 2.5 times fewer where each trial
was judged as it came, by what had come before; the ensemble was as good. The short trainings had 62 steps there. On 36
others, of another seed, the ensemble was 3.2 % worse so, and with 94 steps 0.04 %: see `search.screen.LEAST_STEPS`.
"""

from collections import deque
from collections.abc import Callable

GENERATION = 24
"""Trials that compete, about; less than one and a half times as many make one generation. Larger ones save passes (two
generations of 24 needed 8 % more than one of 48), smaller ones leave Optuna more to learn from."""


def generation_of(num_trials: int) -> int:
    """Size of the generations of a study: equal ones of about `GENERATION`."""
    return -(-num_trials // max(1, round(num_trials / GENERATION)))


class Generations:
    """Who waits for a short training, who has one, and who goes on.

    Args:
        size: Trials that are judged together.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._due: deque[int] = deque()
        self._at_work: set[int] = set()
        self._measured: dict[int, float] = {}
        self._going_on: deque[int] = deque()

    @property
    def is_anyone_at_work(self) -> bool:
        """Whether a worker has a short training."""
        return bool(self._at_work)

    @property
    def is_fresh(self) -> bool:
        """Whether the next short training is the first of a generation."""
        return not self._at_work and not self._measured

    @property
    def has_due(self) -> bool:
        """Whether a short training waits for a worker."""
        return bool(self._due)

    @property
    def has_open(self) -> bool:
        """Whether a trial waits for its short training, for its generation, or for a worker of its own."""
        return bool(self._due or self._measured or self._going_on)

    def add(self, number: int) -> None:
        """A trial is to have its short training."""
        self._due.append(number)

    def take(self) -> int | None:
        """Give a worker the next short training that is due."""
        if not self._due:
            return None
        self._at_work.add(number := self._due.popleft())
        return number

    def measured(self, number: int, mae_months: float) -> None:
        """A short training has ended, in this run or before."""
        self._measured[number] = mae_months

    def leave(self, number: int) -> None:
        """A worker ends; a short training that it left undone is for `resume`."""
        self._at_work.discard(number)

    def drop(self, number: int) -> None:
        """A trial has ended."""
        self._at_work.discard(number)
        self._measured.pop(number, None)

    def judge(self, is_stopped: Callable[[int], bool], *, may_grow: bool) -> None:
        """Judge a generation that is complete.

        Args:
            is_stopped: Judges a trial whose whole generation was measured, and ends it where it does not go on.
            may_grow: Whether further short trainings will begin: then the generation waits until it has its size.
        """
        ready = {number: mae for number, mae in self._measured.items() if number not in self._at_work}
        if not ready or (len(ready) < self._size and (may_grow or self._at_work)):
            return
        for number in sorted(ready, key=lambda number: (ready[number], number)):
            del self._measured[number]
            if not is_stopped(number):
                self._going_on.append(number)

    def following(self, fits: Callable[[int], bool]) -> int | None:
        """Take the best trial that was judged and not begun, of those for which there is time."""
        number = next(filter(fits, self._going_on), None)
        if number is not None:
            self._going_on.remove(number)
        return number
