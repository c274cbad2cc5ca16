"""Short trainings come first: who waits, who goes on, and what a kill or a deadline changes. No Ray here."""

import io
import itertools
from pathlib import Path

import pytest

from preprocessing.storage import read_json, write_json
from search.board import Board
from search.control import StudyControl, result_of
from search.generations import GENERATION, Generations, generation_of
from search.pace import SCREENING, Pace
from search.progress import SCREEN
from search.racing import Race, make_rules
from search.sampler import Sampler
from search.train import Measurement
from search.trial import FoldReport, trial_folder

SPACE = "tests.spaces_of_tests:tiny"
MAES = (30.0, 12.0, 40.0, 11.0, 50.0, 10.0, 60.0, 13.0)
"""Errors after the short training: of a generation of eight with a pool of two, four trials go on at most."""
PASSING = [5, 3, 1, 7]


def opened(folder: Path, num_trials: int = len(MAES)) -> StudyControl:
    sampler = Sampler(folder, name="study", space=SPACE, seed=3, num_trials=num_trials)
    rules = Race(make_rules("matched", True, 2))
    return StudyControl(sampler, rules, num_folds=3, generation=num_trials)


def screened(referee: StudyControl, folder: Path) -> int:
    """A worker takes the next task, which is a short training, and does it."""
    task = referee.next()
    assert task is not None
    assert task.fold == SCREEN
    point = Measurement(3.2, 16, 1.0, MAES[task.number], True)
    write_json(trial_folder(folder, task.number) / "screen.json", vars(point))
    referee.on_result(task.number, result_of(FoldReport(0, point, (), False, False, is_screen=True)), fold=SCREEN)
    referee.on_end(task.number, crashed=False, fold=SCREEN)
    return task.number


def own(referee: StudyControl) -> list[int]:
    """Trials that are handed to workers of their own until there is none, or an assistant is asked for."""
    numbers = []
    while (task := referee.next()) is not None and task.fold is None:
        numbers.append(task.number)
    return numbers


def test_all_have_their_short_training_before_the_best_is_trained_and_the_best_come_first(tmp_path: Path) -> None:
    referee = opened(tmp_path)
    assert [screened(referee, tmp_path) for _ in MAES] == list(range(len(MAES)))
    handed = own(referee)
    assert [number for number in handed if number in PASSING] == PASSING
    assert sorted(handed) == list(range(len(MAES)))  # Tune's account holds those that were stopped, too


def test_who_does_not_go_on_is_stopped_after_its_short_training_alone(tmp_path: Path) -> None:
    referee = opened(tmp_path)
    for _ in MAES:
        screened(referee, tmp_path)
    own(referee)
    outcome = read_json(trial_folder(tmp_path, 6) / "outcome.json")
    assert (outcome["state"], outcome["stopped_at"], outcome["images_seen"]) == ("stopped", "screen", 16)
    assert not (trial_folder(tmp_path, 5) / "outcome.json").exists()


def test_the_board_counts_what_a_single_generation_saved(tmp_path: Path) -> None:
    referee = opened(tmp_path)
    referee.say = board = Board(len(MAES), 3, stream=io.StringIO())
    for _ in MAES:
        screened(referee, tmp_path)
    own(referee)
    assert "128 passes spent, about 896 saved" in "\n".join(board.table())  # four trials, 3 folds of 80 less those 16


def test_passes_of_open_trials_are_known_after_a_kill(tmp_path: Path) -> None:
    referee = opened(tmp_path)
    for _ in range(3):
        screened(referee, tmp_path)
    assert opened(tmp_path).images_of_open() == {0: 16, 1: 16, 2: 16}


def test_nobody_is_judged_while_a_short_training_is_under_way(tmp_path: Path) -> None:
    referee = opened(tmp_path)
    for _ in MAES[:-1]:
        screened(referee, tmp_path)
    last = referee.next()
    assert last is not None
    assert referee.next() is None
    assert referee.may_have_more
    referee.on_result(last.number, {"failed": "The loss became nan."}, fold=SCREEN)
    referee.on_end(last.number, crashed=False, fold=SCREEN)
    assert own(referee)[0] in (last.number, 6, 4, 2, 0)  # what has ended is replayed first
    assert read_json(trial_folder(tmp_path, last.number) / "outcome.json")["state"] == "failed"


def test_after_a_kill_short_trainings_count_and_who_had_passed_goes_on(tmp_path: Path) -> None:
    referee = opened(tmp_path)
    for _ in MAES:
        screened(referee, tmp_path)
    referee.next()
    again = opened(tmp_path)
    assert sorted(own(again)) == list(range(len(MAES)))


def test_after_a_kill_the_short_trainings_that_are_missing_are_done(tmp_path: Path) -> None:
    referee = opened(tmp_path)
    for _ in range(3):
        screened(referee, tmp_path)
    referee.next()  # the fourth was begun
    again = opened(tmp_path)
    assert [screened(again, tmp_path) for _ in range(5)] == [3, 4, 5, 6, 7]
    assert [number for number in own(again) if number in PASSING] == PASSING


def test_a_short_training_that_ended_without_a_word_is_left_to_resume(tmp_path: Path) -> None:
    referee = opened(tmp_path, 1)
    task = referee.next()
    assert task is not None
    referee.on_end(task.number, crashed=False, fold=SCREEN)
    assert referee.next() is None
    assert not referee.may_have_more
    assert not referee.is_complete


def test_a_worker_that_dies_again_and_again_fails_its_trial(tmp_path: Path) -> None:
    referee = opened(tmp_path, 1)
    task = referee.next()
    assert task is not None
    referee.on_end(task.number, crashed=True, fold=SCREEN)
    assert read_json(trial_folder(tmp_path, task.number) / "outcome.json")["state"] == "failed"
    assert own(referee) == [task.number]
    assert referee.is_complete


@pytest.mark.parametrize(("num_trials", "size"), [(1, 1), (12, 12), (35, 35), (36, 18), (48, 24), (1000, 24)])
def test_generations_are_equal_and_of_two_dozen(num_trials: int, size: int) -> None:
    assert generation_of(num_trials) == size
    assert size < 2 * GENERATION


def test_short_trainings_have_a_share_of_the_time_that_is_left() -> None:
    now = [0.0]
    pace = Pace(3, 90.0, clock=lambda: now[0])
    pace.begin_generation()
    now[0] = SCREENING * 90.0
    assert pace.allows_screen
    now[0] += 1.0
    assert not pace.allows_screen
    pace.begin_generation()
    assert pace.allows_screen


def test_a_resumed_generation_has_its_share_of_the_time_too(tmp_path: Path) -> None:
    screened(opened(tmp_path), tmp_path)
    now = [0.0]
    again = opened(tmp_path)
    again._pace = Pace(3, 90.0, clock=lambda: now[0])
    now[0] = SCREENING * 90.0 + 1.0
    task = again.next()
    assert task is not None
    assert (task.number, task.fold) == (0, None)  # alone in its generation


@pytest.mark.parametrize("ticks", range(1, 12))
def test_a_clock_that_runs_on_while_a_worker_asks_ends_no_search(ticks: int, tmp_path: Path) -> None:
    """The share of the time for short trainings ends between two looks at the clock, whichever they are."""
    looks = itertools.count()
    referee = opened(tmp_path)
    screened(referee, tmp_path)
    referee._pace = Pace(3, 900.0, clock=lambda: 300.0 - ticks + next(looks))
    referee._pace._screens_until = 300.0
    assert referee.next() is not None


def test_a_worker_that_dies_after_its_last_word_loses_no_short_training(tmp_path: Path) -> None:
    referee = opened(tmp_path, 1)
    task = referee.next()
    assert task is not None
    point = Measurement(3.2, 16, 1.0, 20.0, True)
    referee.on_result(0, result_of(FoldReport(0, point, (), False, False, is_screen=True)), fold=SCREEN)
    referee.on_end(0, crashed=True, fold=SCREEN)
    assert own(referee) == [0]
    assert not (trial_folder(tmp_path, 0) / "outcome.json").exists()


def test_of_those_that_passed_the_best_for_which_there_is_time_begins() -> None:
    found = Generations(4)
    for number, mae in enumerate((30.0, 10.0, 20.0, 15.0)):
        found.measured(number, mae)
    found.judge(lambda number: number == 0, may_grow=False)
    assert found.following(lambda number: number in (0, 2)) == 2
    assert found.following(lambda number: True) == 1
    assert found.following(lambda number: False) is None
    assert found.has_open


def test_where_there_is_time_for_none_the_best_begins_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "allows_trial", lambda self, number: False)
    referee = opened(tmp_path)
    for _ in MAES:
        screened(referee, tmp_path)
    monkeypatch.setattr(Pace, "allows_another", False)
    handed = own(referee)
    assert [number for number in handed if number in PASSING] == PASSING[:1]
