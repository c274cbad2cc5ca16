"""A discrete-event simulation of workers that ask one driver: training on a virtual clock, answers on a real one."""

import heapq
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.curves import CurvesOf, TrialCurves
from search.control import result_of
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
    last_wave: float = 0.0
    """Of all workers, after they were told that no trial is left."""
    driver: float = 0.0
    """In which it decided."""
    decisions: int = 0

    @property
    def idle_share(self) -> float:
        """Of the workers' time but the last wave."""
        return self.idle / (self.workers * self.makespan - self.last_wave)


Question = Callable[[], Any]
Worker = Generator[float | Question, Any, None]


def work(control: Any, curves_of: CurvesOf) -> Worker:
    """One worker: yields the seconds it trains, and its questions to the driver, whose answers it is sent."""
    while following := (yield control.next):
        number, config = following[0], TrialConfig.from_dict(following[1])
        for seconds, result in results_of(config, curves_of(number, config)):
            yield seconds
            if (yield partial(control.on_result, number, result)):
                break
        yield partial(control.on_end, number, crashed=False)


def results_of(config: TrialConfig, curves: TrialCurves) -> Iterator[tuple[float, dict[str, Any]]]:
    """What a trial reports, and the seconds of training before each report."""
    maes: list[float] = []
    for fold, curve in enumerate(curves.folds):
        if fold == curves.fails_in:
            yield 0.1 * curve.seconds, {"failed": "The loss became inf."}
            return
        before = 0.0
        for share, mae in zip(curve.shares, curve.mae_months, strict=True):
            is_last = share == curve.shares[-1]
            maes += [mae] if is_last else []
            point = Measurement(share * config.epochs, round(share * config.max_images_seen), 1.0, mae, is_last)
            yield (share - before) * curve.seconds, result_of(FoldReport(fold, point, tuple(maes), is_last, False))
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
    events: list[tuple[float, int, Worker, Any]] = [
        (0.0, next(order), work(control, curves_of), None) for _ in range(workers)
    ]
    while events:
        now, _, worker, answer = heapq.heappop(events)  # in the order of arrival, so the driver's queue is this heap
        try:
            action = worker.send(answer)
        except StopIteration:
            ended.append(now)
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
        heapq.heappush(events, (driver_free, next(order), worker, answer))
    tally.makespan = max(ended)
    tally.last_wave = sum(tally.makespan - time for time in ended)
    return tally
