"""Which worker trains which fold: a trial's own takes them in order, assistants take them from the other end.

A worker that is free while no trial may begin assists: it trains one fold of a running trial that has passed the race
so far. The fold is the last that nobody has begun, of the trial that has most such folds.

- The driver owns the claims, in memory, and hears every worker before it begins a fold (a report to Tune returns when
  the driver has decided). None is on disk, so none can outlive its holder; a restart begins with what is finished.
- A trial's own worker that comes to a fold of an assistant has no work left in its trial: all later folds are taken
  too. It ends, and is free; nobody waits, so nothing can wait for a worker that gets no machine. From then on the
  trial lives in its assistants, and the driver closes it when its last fold was judged.
- A fold is judged when all before it were, by the rules and in the order of a trial that nobody assists. A later one
  that is there already, well or failed, waits. What the race stops meanwhile is cancelled at the next measurement.
- Tune starts a worker that died again, an assistant like any other; its claim stays until it is given up for good,
  which fails the trial once that fold's turn comes.

With one worker no worker is ever free while a trial runs, so nothing is shared.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arrival:
    """How a fold ended; it waits for its turn to be judged."""

    mae_months: float
    replayed: bool = False
    """Whether it was found finished."""
    failure: str = ""
    """Why there is no error, where it could not be trained."""


@dataclass
class _Trial:
    begun: set[int]
    """Folds that a worker has, or has finished."""
    arrived: dict[int, Arrival]
    num_judged: int = 0
    has_own_worker: bool = True
    assistants: set[int] = field(default_factory=set)
    """Folds that assistants have now."""
    may_be_assisted: bool = True


class SharedFolds:
    """Who has which fold of the trials that this run has begun and not closed."""

    def __init__(self, num_folds: int) -> None:
        """Nothing is begun.

        Args:
            num_folds: Of a complete trial.
        """
        self._num_folds = num_folds
        self._trials: dict[int, _Trial] = {}

    @property
    def is_anyone_at_work(self) -> bool:
        """Whether a worker has a trial or a fold, so that there may be more to do when it is through."""
        return any(trial.has_own_worker or trial.assistants for trial in self._trials.values())

    def open(self, number: int, finished: Iterable[int] = (), beyond: Mapping[int, Arrival] | None = None) -> None:
        """A worker of its own begins a trial.

        Args:
            number: The trial.
            finished: Folds that were finished before.
            beyond: Those of them that come after one that is not: its own worker may never reach them.
        """
        self._trials[number] = _Trial({0, *finished}, dict(beyond or {}))

    def claim(self, number: int, fold: int) -> bool:
        """A trial's own worker comes to a fold; returns whether it is to train it."""
        trial = self._trials.get(number)
        if trial is None or not trial.may_be_assisted or fold in trial.assistants or fold in trial.arrived:
            return False
        if fold < trial.num_judged:
            return False
        trial.begun.add(fold)
        return True

    def assist(self, fits: Callable[[int], bool] = lambda number: True) -> tuple[int, int] | None:
        """Give a free worker a fold, if there is one: trial and fold.

        Args:
            fits: Whether there is time for a fold of a trial.
        """
        candidates = [
            (len(left), -number, max(left))
            for number, trial in self._trials.items()
            if trial.num_judged and trial.may_be_assisted and (left := set(range(self._num_folds)) - trial.begun)
            if fits(number)
        ]
        if not candidates:
            return None
        _, minus_number, fold = max(candidates)
        trial = self._trials[-minus_number]
        trial.begun.add(fold)
        trial.assistants.add(fold)
        return -minus_number, fold

    def arrive(self, number: int, fold: int, arrival: Arrival) -> None:
        """A fold has ended; hearing it again changes nothing."""
        trial = self._trials.get(number)
        if trial is not None and fold >= trial.num_judged:
            trial.begun.add(fold)
            trial.arrived.setdefault(fold, arrival)

    def turn(self, number: int) -> Arrival | None:
        """The fold that is to be judged now, if it has arrived; it counts as judged from here on."""
        trial = self._trials.get(number)
        if trial is None or trial.num_judged not in trial.arrived:
            return None
        trial.num_judged += 1
        return trial.arrived.pop(trial.num_judged - 1)

    def num_waiting(self, number: int) -> int:
        """Folds of a trial that were trained and are not judged yet."""
        trial = self._trials.get(number)
        return sum(not arrival.failure for arrival in trial.arrived.values()) if trial else 0

    def num_free(self, number: int) -> int:
        """Folds of a trial that nobody has begun."""
        trial = self._trials.get(number)
        return self._num_folds - len(trial.begun) if trial else 0

    def bar(self, number: int) -> None:
        """Nobody shall begin another fold of a trial: it was stopped, or has failed, and is about to be closed."""
        self._trials[number].may_be_assisted = False

    def leave(self, number: int, fold: int | None) -> None:
        """A worker ends: a trial's own (None), or the assistant that had `fold`. What it left undone is free again."""
        trial = self._trials.get(number)
        if trial is None:
            return
        if fold is None:
            trial.has_own_worker = False
            known = trial.assistants | set(trial.arrived) | set(range(trial.num_judged))
            trial.begun &= known
        elif fold in trial.assistants:
            trial.assistants.remove(fold)
            if fold not in trial.arrived and fold >= trial.num_judged:
                trial.begun.remove(fold)

    def has_own_worker(self, number: int) -> bool:
        """Whether the worker that began the trial has it still."""
        return number in self._trials and self._trials[number].has_own_worker

    def close(self, number: int) -> None:
        """The trial has ended."""
        self._trials.pop(number, None)
