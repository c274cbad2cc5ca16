"""How a study keeps to its time."""

from search.pace import Pace
from search.progress import SCREEN


class Clock:
    """Stands where it was put."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def pace_after(*fold_seconds: float, deadline: float | None) -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(3, deadline, clock=clock)
    pace.begin((0, None))
    for seconds in fold_seconds:
        clock.now += seconds
        pace.end_fold((0, None), was_trained=True)
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


def test_the_next_fold_of_a_trial_is_judged_by_its_own() -> None:
    pace, clock = pace_after(10, 20, deadline=130)
    pace.begin((1, None))
    clock.now += 60
    pace.end_fold((1, None), was_trained=True)  # 40 s are left
    assert [pace.allows_next_fold(number) for number in (0, 1, 2)] == [True, False, True]


def test_without_a_deadline_there_is_always_time() -> None:
    pace, _ = pace_after(1e9, deadline=None)
    assert pace.allows_another
    assert not pace.is_late


def test_folds_read_from_disk_say_nothing_of_the_time() -> None:
    clock = Clock()
    pace = Pace(3, 1000, clock=clock)
    pace.begin((0, None))
    pace.end_fold((0, None), was_trained=False)
    clock.now = 400
    pace.end_fold((0, None), was_trained=True)
    assert not pace.allows_another


def test_a_trial_is_judged_by_what_its_short_training_took() -> None:
    clock = Clock()
    pace = Pace(3, 200, clock=clock)
    for number, seconds in ((0, 4), (1, 2), (2, 8)):
        pace.begin((number, SCREEN))
        clock.now += seconds
        pace.end_screen((number, SCREEN), 0.25)
    assert [pace.allows_trial(number) for number in (0, 1, 2)] == [True, True, True]  # 8 s take 96 s by their share
    clock.now += 100
    assert [pace.allows_trial(number) for number in (0, 1, 2)] == [True, True, False]
    clock.now -= 100
    pace.begin((0, None))
    clock.now += 40  # ten times its short training, so that 1 will take 60 s, 0 120 s and 2 240 s
    pace.end_fold((0, None), was_trained=True)
    assert [pace.allows_trial(number) for number in (0, 1, 2)] == [True, True, False]
    clock.now = 200 - 100
    assert [pace.allows_trial(number) for number in (0, 1, 2)] == [False, True, False]


def test_a_longer_short_training_says_no_more_of_the_time_that_folds_take() -> None:
    clock = Clock()
    pace = Pace(3, 100, clock=clock)
    pace.begin((0, SCREEN))
    clock.now = 16
    pace.end_screen((0, SCREEN), 0.8)  # 20 s a fold
    assert pace.allows_trial(0)
    clock.now = 41
    assert not pace.allows_trial(0)


def test_no_generation_begins_after_whose_short_trainings_no_trial_fits() -> None:
    pace, clock = pace_after(10, deadline=100)  # 30 s a trial
    clock.now = 54
    pace.begin_generation()  # until 69
    assert pace.allows_generation
    clock.now = 58
    pace.begin_generation()  # until 72
    assert pace.allows_another
    assert not pace.allows_generation


def test_before_the_first_fold_the_cheapest_short_training_tells_whether_another_trial_fits() -> None:
    clock = Clock()
    pace = Pace(3, 100, clock=clock)
    for number, seconds in ((0, 9), (1, 4)):
        pace.begin((number, SCREEN))
        clock.now += seconds
        pace.end_screen((number, SCREEN), 0.25)
    assert pace.allows_another  # 4 s are 48 s for three folds
    clock.now = 53
    assert not pace.allows_another
