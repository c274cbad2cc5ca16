"""What Ray Tune's interfaces pass on; the trials are Tune's own, and nothing of Ray runs."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.adapters import RaceScheduler, StudySearcher
from search.control import Task, result_of
from search.train import Measurement
from search.trial import FoldReport
from search.tuning import MAX_FAILURES


class Heedless:
    """A control that stops nothing."""

    def on_result(self, number: int, result: dict[str, Any], *, fold: int | None, is_second: bool) -> bool:
        return False


class Unwritable:
    """A control whose disk is full."""

    halted = ""

    def fail(self, *arguments: object, **options: object) -> bool:
        raise OSError(28, "No space left on device")

    next = on_result = on_end = fail

    def halt(self, reason: str) -> None:
        self.halted = reason

    may_have_more = False


def trial() -> Trial:
    return Trial("none", config={"number": 0}, max_failures=MAX_FAILURES, stub=True)


def measured(fold: int, images: int) -> dict[str, Any]:
    return result_of(FoldReport(fold, Measurement(1.0, images, 1.0, 20.0, False), (), False, False))


def die(worker: Trial) -> bool:
    """A worker dies, as Tune counts it; returns whether it starts another."""
    worker.run_metadata.num_failures += 1
    return bool(worker.should_recover())


def test_deaths_with_a_new_measurement_between_them_end_no_trial() -> None:
    scheduler, worker = RaceScheduler(Heedless()), trial()  # type: ignore[arg-type]
    for fold in range(3):
        for images in (20, 40, 60):
            scheduler.on_trial_result(None, worker, measured(fold, images))
            assert die(worker)


def test_deaths_at_one_place_end_a_trial_though_each_worker_measures_what_was_measured_before() -> None:
    scheduler, worker = RaceScheduler(Heedless()), trial()  # type: ignore[arg-type]
    lives = []
    for _ in range(MAX_FAILURES + 1):
        for images in (20, 40):
            scheduler.on_trial_result(None, worker, measured(0, images))
        lives.append(die(worker))
    assert lives == [True] * MAX_FAILURES + [False]


def test_a_record_that_cannot_be_written_stops_the_worker_and_halts_the_study() -> None:
    control = Unwritable()
    decision = RaceScheduler(control).on_trial_result(None, trial(), measured(0, 20))  # type: ignore[arg-type]
    assert decision == TrialScheduler.STOP
    assert "The study's record cannot be kept (OSError: [Errno 28] No space left on device)" in control.halted


def test_no_trial_begins_where_the_record_cannot_be_written() -> None:
    control = Unwritable()
    searcher = StudySearcher(control)  # type: ignore[arg-type]
    assert searcher.suggest("a") == StudySearcher.FINISHED
    assert "No space left" in control.halted


def test_an_end_that_cannot_be_written_down_is_no_crash_of_tune() -> None:
    control = Unwritable()
    searcher = StudySearcher(control)  # type: ignore[arg-type]
    searcher._tasks["a"] = Task(0, {})
    searcher.on_trial_complete("a")
    assert "No space left" in control.halted
