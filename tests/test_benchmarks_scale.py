"""What a large study costs: the driver is watched at work, and the reckoning on paper can be added up by a person."""

from pathlib import Path

import pytest

from benchmarks.curves import drawn
from benchmarks.scale import Mark, Watched, on_paper, opened
from benchmarks.simulation import simulate


def test_a_study_on_paper_is_what_a_person_adds_up() -> None:
    """100 trials of 2 folds of 10 minutes on 4 GPUs; 0.1 s an ask, 0.01 s each of 10 decisions, 0.2 s an end."""
    mark = Mark(100, 100.0, 10.0, 200.0, 900.0, 1.0, 1200)
    measured = {"trials": 100, "decisions": 1000, "measurements": 1000}
    paper = on_paper(mark, gpus=4, fold_minutes=10, measured=measured)
    assert paper["folds_trained_a_trial"] == 2
    assert paper["hours"] == pytest.approx(100 * 20 / 60 / 4)
    assert paper["driver_busy"] == pytest.approx(0.4 * 4 / 1200)
    assert paper["gpus_at_which_the_driver_is_full"] == pytest.approx(1200 / 0.4)
    assert paper["files"] == 100 * (2 + 3 * 2)
    assert paper["storage_operations_a_second"] == pytest.approx((12 + 8) * 4 / 1200)


def test_the_watched_driver_answers_as_the_simulation_asks(tmp_path: Path) -> None:
    ticks = iter(range(100_000))
    watched = Watched(opened(tmp_path, 6, 3), tmp_path / "optuna.journal", lambda: float(next(ticks)))
    tally = simulate(watched, drawn(3, 0), 4, clock=lambda: 0.0)
    watched.mark()
    assert watched.marks[-1].trials == 6
    assert 6 * 5 <= watched.num_measurements <= 6 * 3 * 5 < tally.decisions
