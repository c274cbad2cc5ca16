"""The reckoning on paper, on a case that a person can add up."""

import pytest

from benchmarks.scale import Mark, on_paper


def test_a_study_on_paper_is_what_a_person_adds_up() -> None:
    """100 trials of 2 folds of 10 minutes on 4 GPUs; 0.1 s an ask, 0.01 s each of 10 decisions, 0.2 s an end."""
    mark = Mark(100, 100.0, 10.0, 200.0, 900.0, 1.0, 1200)
    paper = on_paper(mark, gpus=4, fold_minutes=10, measured={"trials": 100, "decisions": 1000})
    assert paper["folds_trained_a_trial"] == 2
    assert paper["hours"] == pytest.approx(100 * 20 / 60 / 4)
    assert paper["driver_busy"] == pytest.approx(0.4 * 4 / 1200)
    assert paper["gpus_at_which_the_driver_is_full"] == pytest.approx(1200 / 0.4)
    assert paper["files"] == 100 * (2 + 3 * 2)
    assert paper["storage_operations_a_second"] == pytest.approx((12 + 8) * 4 / 1200)
