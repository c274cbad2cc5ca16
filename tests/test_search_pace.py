"""How a study keeps to its time."""

from search.pace import Pace


class Clock:
    """Stands where it was put."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def pace_after(*fold_seconds: float, deadline: float | None) -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(3, deadline, clock=clock)
    pace.begin(0)
    for seconds in fold_seconds:
        clock.now += seconds
        pace.end_fold(0, was_trained=True)
    return pace, clock


def test_a_trial_that_would_be_cut_off_does_not_begin() -> None:
    assert not pace_after(10, 20, deadline=30 + 44)[0].allows_another
    assert pace_after(10, 20, deadline=30 + 46)[0].allows_another


def test_the_first_trial_begins_whatever_it_may_take() -> None:
    assert pace_after(deadline=1)[0].allows_another


def test_nothing_begins_after_the_deadline() -> None:
    pace, clock = pace_after(deadline=1)
    clock.now = 2
    assert pace.is_late
    assert not pace.allows_another


def test_without_a_deadline_there_is_always_time() -> None:
    pace, _ = pace_after(1e9, deadline=None)
    assert pace.allows_another
    assert not pace.is_late


def test_folds_read_from_disk_say_nothing_of_the_time() -> None:
    clock = Clock()
    pace = Pace(3, 1000, clock=clock)
    pace.begin(0)
    pace.end_fold(0, was_trained=False)
    clock.now = 400
    pace.end_fold(0, was_trained=True)
    assert not pace.allows_another
