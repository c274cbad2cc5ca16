"""A discrete-event simulation of workers that ask one driver: training on a virtual clock, answers on a real one.

A free worker for which there is nothing just now asks again whenever the driver has heard of another one, as Tune asks
its searcher after every event.
"""

import heapq
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.curves import CurvesOf, TrialCurves
from search.control import result_of
from search.progress import SCREEN
from search.screen import SHARE
from search.space import TrialConfig
from search.train import Measurement
from search.trial import FoldReport


@dataclass
class Tally:
    """Where the time of the workers and of the driver went, in seconds of the simulated time."""

    workers: int
    makespan: float = 0.0
    training: float = 0.0
    idle: float = 0.0
    """Of all workers, from question to answer."""
    waited: float = 0.0
    """Of all workers, while there was nothing for them, and then something after all: a generation's first trials."""
    last_wave: float = 0.0
    """Of all workers, after the last work that there was for them, a trial or a fold to assist with."""
    assisted: int = 0
    """Folds that assistants were given."""
    driver: float = 0.0
    """In which it decided."""
    decisions: int = 0

    @property
    def idle_share(self) -> float:
        """Of the workers' time but the last wave."""
        return (self.idle + self.waited) / (self.workers * self.makespan - self.last_wave)


Question = Callable[[], Any]
Worker = Generator[float | Question | None, Any, None]
"""Yields the seconds that it trains, its questions to the driver, whose answers it is sent, and None: it waits."""


def work(control: Any, curves_of: CurvesOf) -> Worker:
    """One worker, from its first question to the end of the study."""
    while True:
        task = yield control.next
        if task is None:
            if not control.may_have_more:
                return
            yield None
            continue
        number, config, assisted = task.number, TrialConfig.from_dict(task.settings), task.fold
        curves, maes = curves_of(number, config), ()
        if assisted == SCREEN:
            yield SHARE * curves.folds[0].seconds
            yield partial(control.on_result, number, result_of_screen(config, curves.screen_months), fold=SCREEN)
            yield partial(control.on_end, number, crashed=False, fold=SCREEN)
            continue
        was_screened = assisted is None and curves.screen_months is not None
        if was_screened and (yield partial(control.on_result, number, {"begins": 0})):
            yield partial(control.on_end, number, crashed=False, fold=None)  # it ended after its short training
            continue
        for fold in range(len(curves.folds)) if assisted is None else [assisted]:
            if assisted is None and fold and (yield partial(control.on_result, number, {"begins": fold})):
                break
            is_told_to_stop = False
            for seconds, result in results_of(config, curves, fold, maes):
                yield seconds
                maes = result.get("fold_mae_months", ())
                is_told_to_stop = yield partial(control.on_result, number, result, fold=assisted)
                if is_told_to_stop or "failed" in result:
                    break
            if is_told_to_stop or fold == curves.fails_in:
                break
        yield partial(control.on_end, number, crashed=False, fold=assisted)


def result_of_screen(config: TrialConfig, mae: float | None) -> dict[str, Any]:
    """What a worker reports of the short training."""
    assert mae is not None, "only curves with a short training are asked for one"
    point = Measurement(SHARE * config.epochs, round(SHARE * config.max_images_seen), 1.0, mae, True)
    return result_of(FoldReport(0, point, (), False, False, is_screen=True))


def results_of(
    config: TrialConfig, curves: TrialCurves, fold: int, maes: Sequence[float]
) -> Iterator[tuple[float, dict[str, Any]]]:
    """What a worker reports of one fold, and the seconds of training before each report.

    Args:
        config: The trial.
        curves: Of the trial.
        fold: Which one is trained.
        maes: Errors of the folds that the same worker has finished.
    """
    curve, before = curves.folds[fold], 0.0
    if fold == curves.fails_in:
        yield 0.1 * curve.seconds, {"failed": "The loss became inf."}
        return
    for share, mae in zip(curve.shares, curve.mae_months, strict=True):
        is_last = share == curve.shares[-1]
        point = Measurement(share * config.epochs, round(share * config.max_images_seen), 1.0, mae, is_last)
        report = FoldReport(fold, point, (*maes, mae) if is_last else tuple(maes), is_last, False)
        yield (share - before) * curve.seconds, result_of(report)
        before = share


def simulate(
    control: Any, curves_of: CurvesOf, workers: int, *, clock: Callable[[], float] = time.perf_counter
) -> Tally:
    """Let workers run until no trial is left.

    Args:
        control: A `StudyControl`, or what answers like one.
        curves_of: What each trial will measure.
        workers: How many.
        clock: Times the driver's answers, in seconds.
    """
    tally, order, driver_free = Tally(workers), itertools.count(), 0.0
    ended: list[float] = []
    waiting: deque[tuple[float, Worker]] = deque()
    waited: dict[Worker, float] = defaultdict(float)
    """Seconds of each worker since its last work."""
    events: list[tuple[float, int, Worker, Any]] = [
        (0.0, next(order), work(control, curves_of), None) for _ in range(workers)
    ]
    while events or waiting:
        if not events:
            _wake(waiting, events, max(ended), order, waited)
        now, _, worker, answer = heapq.heappop(events)  # in the order of arrival, so the driver's queue is this heap
        try:
            action = worker.send(answer)
        except StopIteration:
            ended.append(now)
            tally.last_wave += waited.pop(worker, 0.0)
            _wake(waiting, events, now, order, waited)
            continue
        if action is None:
            waiting.append((now, worker))
            continue
        if isinstance(action, float):
            tally.training += action
            heapq.heappush(events, (now + action, next(order), worker, None))
            continue
        begin = clock()
        answer = action()
        taken = clock() - begin
        driver_free = max(now, driver_free) + taken
        tally.driver += taken
        tally.idle += driver_free - now
        tally.decisions += 1
        tally.assisted += (getattr(answer, "fold", None) or SCREEN) != SCREEN
        heapq.heappush(events, (driver_free, next(order), worker, answer))
        if answer is not None and action == control.next:
            tally.waited += waited.pop(worker, 0.0)
        if answer is not None or action != control.next:
            _wake(waiting, events, driver_free, order, waited)
    tally.makespan = max(ended)
    tally.last_wave += sum(tally.makespan - time for time in ended)
    return tally


def _wake(
    waiting: deque[tuple[float, Worker]],
    events: list[tuple[float, int, Worker, Any]],
    now: float,
    order: Iterator[int],
    waited: dict[Worker, float],
) -> None:
    """Let one of those that wait ask again; if it gets something, the next may ask."""
    if waiting:
        since, worker = waiting.popleft()
        waited[worker] += now - since
        heapq.heappush(events, (now, next(order), worker, None))
