"""What Ray Tune's interfaces pass on; the trials are Tune's own, and nothing of Ray runs."""

from typing import Any

from ray.tune.experiment import Trial

from search.adapters import RaceScheduler
from search.control import result_of
from search.train import Measurement
from search.trial import FoldReport
from search.tuning import MAX_FAILURES


class Heedless:
    """A control that stops nothing."""

    def on_result(self, number: int, result: dict[str, Any], *, fold: int | None, is_second: bool) -> bool:
        return False


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
