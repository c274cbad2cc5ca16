"""The simulation's account of time, on a case that a person can add up."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.curves import FoldCurve, TrialCurves, recorded
from benchmarks.simulation import simulate
from preprocessing.storage import as_path, read_json, write_json
from search.control import Task
from search.progress import keep_measurement
from search.space import TrialConfig
from search.train import Measurement
from search.trial import FoldReport, trial_folder
from tests.ensemble_fixtures import make_cohort, make_study


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


def test_a_recorded_trial_goes_on_with_what_it_measured_last(tmp_path: Path) -> None:
    """Of two folds: one trial complete, one stopped within fold 0 and one after its short training."""
    states = ("complete", "stopped", "stopped")
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort"), states=states)
    complete, begun, short = (as_path(trial_folder(study, number)) for number in range(3))
    for fold, seconds in enumerate((10.0, 30.0)):
        path = complete / f"fold_{fold}.json"
        write_json(path, read_json(path) | {"run": {"seconds": seconds}})
    for folder, mae in ((begun, 18.0), (short, 25.0)):
        write_json(folder / "screen.json", asdict(Measurement(1.0, 10, 1.0, mae, True)))
    bound = TrialConfig.from_dict(read_json(begun / "config.json")["config"]).max_images_seen
    keep_measurement(begun, FoldReport(0, Measurement(1.0, round(0.4 * bound), 1.0, 14.0, False), (), False, False))

    curves_of, config = recorded(str(study), seed=0), TrialConfig(backbone="test_resnet")
    found = sorted({curves_of(number, config) for number in range(50)}, key=lambda one: one.folds[0].seconds)
    assert curves_of(7, config) == recorded(str(study), seed=0)(7, config)
    whole, *stopped = found
    assert [fold.seconds for fold in whole.folds] == [10.0, 30.0]
    assert whole.screen_months == whole.folds[0].mae_months[-1]
    of_begun, of_short = sorted(stopped, key=lambda one: one.folds[0].mae_months)
    assert (of_begun.screen_months, of_short.screen_months) == (18.0, 25.0)
    assert of_begun.folds[0] == FoldCurve((0.4, 0.6, 0.8, 1.0), (14.0,) * 4, 20.0)
    assert of_begun.folds[1] == FoldCurve((0.2, 0.4, 0.6, 0.8, 1.0), (14.0,) * 5, 20.0)
    assert of_short.folds == (FoldCurve((0.2, 0.4, 0.6, 0.8, 1.0), (25.0,) * 5, 20.0),) * 2


def test_a_study_without_a_finished_fold_says_nothing_of_time(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort"), states=("stopped",))
    with pytest.raises(ValueError, match="no finished fold whose time is recorded"):
        recorded(str(study), seed=0)
