"""The simulation's account of time, on a case that a person can add up."""

from typing import Any

import pytest

from benchmarks.curves import FoldCurve, TrialCurves
from benchmarks.simulation import simulate
from search.control import Task


class TwoTrials:
    """Hands out two trials of one fold and takes one second for every answer."""

    def __init__(self) -> None:
        self.seconds, self.left = 0.0, [0, 1]
        self.ended: list[int] = []

    def clock(self) -> float:
        return self.seconds

    may_have_more = False

    def next(self) -> Task | None:
        self.seconds += 1
        return Task(self.left.pop(0), {"backbone": "test_resnet"}) if self.left else None

    def on_result(self, number: int, result: dict[str, Any], *, fold: int | None = None) -> bool:
        self.seconds += 1
        return False

    def on_end(self, number: int, *, crashed: bool, fold: int | None = None) -> None:
        self.seconds += 1
        self.ended.append(number)


def ten_seconds(number: int, config: Any) -> TrialCurves:
    return TrialCurves((FoldCurve((1.0,), (10.0,), 10.0),))


def test_workers_wait_for_the_driver_one_after_the_other() -> None:
    """First worker: waits 1, trains 10, waits 1 + 2 + 2. Second: waits 2, trains 10, waits 1 + 2 + 2."""
    driver = TwoTrials()
    tally = simulate(driver, ten_seconds, 2, clock=driver.clock)
    assert driver.ended == [0, 1]
    assert (tally.makespan, tally.training, tally.idle, tally.last_wave) == (17.0, 20.0, 13.0, 1.0)
    assert (tally.driver, tally.decisions) == (8.0, 8)
    assert tally.idle_share == pytest.approx(13 / 33)


def test_a_worker_without_a_trial_is_in_the_last_wave_and_not_idle() -> None:
    driver = TwoTrials()
    tally = simulate(driver, ten_seconds, 3, clock=driver.clock)
    assert tally.workers * tally.makespan == pytest.approx(tally.training + tally.idle + tally.last_wave)
    assert tally.last_wave > 10


class OneAfterTheOther(TwoTrials):
    """Hands out the second trial when the first has ended."""

    @property
    def may_have_more(self) -> bool:  # type: ignore[override]
        return bool(self.left)

    def next(self) -> Task | None:
        self.seconds += 1
        is_open = self.left and len(self.left) + len(self.ended) == 2
        return Task(self.left.pop(0), {"backbone": "test_resnet"}) if is_open else None


def test_a_worker_that_waits_for_work_that_comes_is_idle() -> None:
    driver = OneAfterTheOther()
    tally = simulate(driver, ten_seconds, 2, clock=driver.clock)
    assert driver.ended == [0, 1]
    assert tally.waited > 5
    assert tally.workers * tally.makespan == pytest.approx(tally.training + tally.idle + tally.waited + tally.last_wave)
