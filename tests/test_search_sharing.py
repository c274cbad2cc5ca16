"""Folds of one trial in several workers: who gets which, in which order they count, and that none counts twice."""

import io
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing.storage import read_json, write_json
from search.board import Board
from search.control import StudyControl, Task, result_of
from search.journal import open_journal
from search.racing import Race, make_rules
from search.sampler import Sampler
from search.sharing import SharedFolds
from search.train import Measurement
from search.trial import FoldReport, all_outcomes, read_fold, trial_folder

SPACE = "tests.spaces_of_tests:tiny"


def control(
    folder: Path, *, num_trials: int = 1, num_folds: int = 4, race: str = "none", pool: int = 1
) -> StudyControl:
    sampler = Sampler(folder, name="study", space=SPACE, seed=3, num_trials=num_trials)
    return StudyControl(sampler, Race(make_rules(race, False, pool)), num_folds=num_folds)


def finish(referee: StudyControl, number: int, fold: int, mae: float, *, assists: bool = True) -> bool:
    """A fold's last report, of an assistant unless said otherwise."""
    report = FoldReport(fold, Measurement(17.0, 80, 1.0, mae, final=True), (), True, False)
    return referee.on_result(number, result_of(report), fold=fold if assists else None)


def glance(referee: StudyControl, number: int, fold: int) -> bool:
    """An assistant's report inside a fold."""
    report = FoldReport(fold, Measurement(3.2, 16, 1.0, 20.0), (), False, False)
    return referee.on_result(number, result_of(report), fold=fold)


def begin(referee: StudyControl) -> Task:
    task = referee.next()
    assert task is not None
    return task


def folds_given(referee: StudyControl) -> list[int | None]:
    found = []
    while task := referee.next():
        found.append(task.fold)
    return found


def states(folder: Path) -> list[str]:
    study = optuna.load_study(study_name="study", storage=open_journal(folder))
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def test_a_free_worker_assists_once_the_first_fold_has_passed_and_takes_the_last_first(tmp_path: Path) -> None:
    referee = control(tmp_path)
    begin(referee)
    assert (referee.next(), referee.may_have_more) == (None, True)
    assert not finish(referee, 0, 0, 10.0, assists=False)
    assert not referee.on_result(0, {"begins": 1})
    assert folds_given(referee) == [3, 2]


def test_no_fold_is_shared_while_a_trial_may_begin(tmp_path: Path) -> None:
    referee = control(tmp_path, num_trials=2)
    begin(referee)
    finish(referee, 0, 0, 10.0, assists=False)
    assert begin(referee).fold is None


def test_the_trial_with_most_folds_to_begin_is_assisted() -> None:
    folds = SharedFolds(5)
    for number, finished in ((0, (1, 2)), (1, (1,)), (2, (1, 2, 3))):
        folds.open(number, finished)
        for fold in range(len(finished) + 1):
            folds.claim(number, fold)
            folds.arrive(number, fold, None)  # type: ignore[arg-type]
            folds.turn(number)
    assert [folds.assist() for _ in range(7)] == [(1, 4), (0, 4), (1, 3), (0, 3), (1, 2), (2, 4), None]


def test_folds_count_in_order_and_the_last_of_an_assistant_closes_the_trial(tmp_path: Path) -> None:
    referee = control(tmp_path)
    begin(referee)
    finish(referee, 0, 0, 10.0, assists=False)
    referee.on_result(0, {"begins": 1})
    assert folds_given(referee) == [3, 2]
    finish(referee, 0, 3, 13.0)
    referee.on_end(0, crashed=False, fold=3)
    told = optuna.load_study(study_name="study", storage=open_journal(tmp_path)).trials[0].intermediate_values
    assert told == {0: 10.0}
    finish(referee, 0, 1, 11.0, assists=False)
    assert referee.on_result(0, {"begins": 2})  # an assistant has it: the trial's own worker ends
    referee.on_end(0, crashed=False)
    assert not (trial_folder(tmp_path, 0) / "outcome.json").exists()
    finish(referee, 0, 2, 12.0)
    outcome = read_json(trial_folder(tmp_path, 0) / "outcome.json")
    assert (outcome["state"], outcome["fold_mae_months"]) == ("complete", [10.0, 11.0, 12.0, 13.0])
    referee.on_end(0, crashed=False, fold=2)
    assert (states(tmp_path), referee.next(), referee.may_have_more) == (["COMPLETE"], None, False)


def test_what_the_race_stops_is_judged_in_order_and_its_assistants_are_cancelled(tmp_path: Path) -> None:
    referee = control(tmp_path, num_trials=2, race="forgiving")
    referee.say = board = Board(2, 4, stream=(said := io.StringIO()))
    begin(referee)
    for fold in range(4):
        finish(referee, 0, fold, 10.0 + fold, assists=False)
    referee.on_end(0, crashed=False)
    begin(referee)
    finish(referee, 1, 0, 12.0, assists=False)  # no worse than the worst fold of trial 0: it goes on
    referee.on_result(1, {"begins": 1})
    assert folds_given(referee) == [3, 2]
    assert not glance(referee, 1, 2)
    assert not finish(referee, 1, 3, 90.0)  # bad, but not its turn yet
    assert finish(referee, 1, 1, 20.0, assists=False)
    referee.on_end(1, crashed=False)
    assert glance(referee, 1, 2)
    referee.on_end(1, crashed=False, fold=2)
    outcome = read_json(trial_folder(tmp_path, 1) / "outcome.json")
    assert (outcome["state"], outcome["fold_mae_months"]) == ("stopped", [12.0, 20.0])
    assert outcome["images_seen"] == 80 * 3 + 16  # what the assistants spent is counted
    board.close({})
    assert "7 folds trained, 1 saved" in said.getvalue()


def test_an_assistants_failure_counts_when_its_turn_comes(tmp_path: Path) -> None:
    referee = control(tmp_path)
    begin(referee)
    finish(referee, 0, 0, 10.0, assists=False)
    referee.on_result(0, {"begins": 1})
    assert folds_given(referee) == [3, 2]
    referee.on_result(0, {"failed": "The loss became nan."}, fold=2)
    referee.on_end(0, crashed=False, fold=2)
    assert states(tmp_path) == ["RUNNING"]
    assert finish(referee, 0, 1, 11.0, assists=False)
    referee.on_end(0, crashed=False)
    assert states(tmp_path) == ["FAIL"]
    assert "nan" in read_json(trial_folder(tmp_path, 0) / "outcome.json")["reason"]


def test_a_trial_that_has_failed_between_two_folds_of_its_own_worker_begins_no_other(tmp_path: Path) -> None:
    referee = control(tmp_path)
    begin(referee)
    finish(referee, 0, 0, 10.0, assists=False)
    assert begin(referee).fold == 3
    finish(referee, 0, 1, 11.0, assists=False)
    finish(referee, 0, 2, 12.0, assists=False)
    referee.on_result(0, {"failed": "The loss became nan."}, fold=3)
    assert referee.on_result(0, {"begins": 3})
    assert finish(referee, 0, 2, 12.0, assists=False)  # started again, it would read its folds first
    referee.on_end(0, crashed=False)
    assert states(tmp_path) == ["FAIL"]


def test_a_fold_that_an_interrupted_assistant_left_is_given_to_the_next_worker(tmp_path: Path) -> None:
    referee = control(tmp_path)
    begin(referee)
    finish(referee, 0, 0, 10.0, assists=False)
    referee.on_result(0, {"begins": 1})
    assert begin(referee).fold == 3
    referee.on_end(0, crashed=False, fold=3)
    assert begin(referee).fold == 3
    referee.on_end(0, crashed=False, fold=3)
    referee.on_end(0, crashed=False)
    assert not referee.may_have_more  # nobody is at work whose next step could bring more


def test_after_a_restart_folds_beyond_a_gap_count_when_the_gap_is_closed(tmp_path: Path) -> None:
    begin(control(tmp_path))
    for fold, mae in ((0, 10.0), (2, 12.0), (3, 13.0)):
        write_fold_record(trial_folder(tmp_path, 0), fold, mae)
    referee = control(tmp_path)
    begin(referee)
    finish(referee, 0, 0, 10.0, assists=False)
    assert begin(referee).fold == 1  # before its own worker comes to it
    assert referee.on_result(0, {"begins": 1})
    referee.on_end(0, crashed=False)
    finish(referee, 0, 1, 11.0)
    assert read_json(trial_folder(tmp_path, 0) / "outcome.json")["fold_mae_months"] == [10.0, 11.0, 12.0, 13.0]


def write_fold_record(folder: Path, fold: int, mae: float) -> None:
    """What remains of a finished fold, as far as the driver reads it."""
    history = [{"epoch": 17.0, "images_seen": 80, "train_loss": 1.0, "mae_months": mae, "final": True, "note": ""}]
    write_json(folder / f"fold_{fold}.json", {"fold": fold, "mae_months": mae, "history": history})


def worker(referee: StudyControl, folder: Path, task: Task, num_folds: int, log: Counter) -> Any:
    """One worker's steps, with the files that it would leave; it yields where it may be killed."""
    maes: list[float] = []
    trial = trial_folder(folder, task.number)
    has_ended = (trial / "outcome.json").exists()
    for fold in range(num_folds) if task.fold is None else [task.fold]:
        done = read_fold(trial, fold)
        if has_ended and not done:
            return
        if not done:
            if task.fold is None and fold and referee.on_result(task.number, {"begins": fold}):
                return
            yield
            mae = float(10 + (task.number * 7 + fold * 3) % 5)
            if (task.number + fold) % 11 == 10:
                referee.on_result(task.number, {"failed": "The loss became nan."}, fold=task.fold)
                return
            glimpse = FoldReport(fold, Measurement(3.2, 16, 1.0, mae + 5), tuple(maes), False, False)
            if referee.on_result(task.number, result_of(glimpse), fold=task.fold):
                return
            yield
            write_fold_record(trial, fold, mae)
            log[task.number, fold] += 1
            yield
        else:
            mae = done["mae_months"]
        maes.append(mae)
        last = FoldReport(fold, Measurement(17.0, 80, 1.0, mae, True), tuple(maes), True, bool(done))
        if referee.on_result(task.number, result_of(last), fold=task.fold):
            return
        yield


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6),
    num_workers=st.integers(1, 5),
    race=st.sampled_from(["none", "matched"]),
    driver_kills=st.integers(0, 2),
)
def test_whatever_the_order_each_fold_is_trained_once_and_each_trial_closed_once(
    seed: int, num_workers: int, race: str, driver_kills: int
) -> None:
    """Workers are stepped, die and are started again, and the driver is killed, in any order."""
    rng, num_trials, num_folds, log = random.Random(seed), 5, 4, Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kills_left in range(driver_kills, -1, -1):
            referee = control(folder, num_trials=num_trials, num_folds=num_folds, race=race, pool=2)
            closed: Counter = Counter()
            referee.say = lambda event, closed=closed: closed.update(
                [event.number] if event.kind in ("complete", "stopped", "failed") else []
            )
            busy: list[tuple[Task, Any]] = []
            steps_left = rng.randrange(5, 60) if kills_left else 10**6
            while steps_left:
                steps_left -= 1
                while len(busy) < num_workers and (task := referee.next()):
                    busy.append((task, worker(referee, folder, task, num_folds, log)))
                if not busy:
                    assert not referee.may_have_more
                    break
                index = rng.randrange(len(busy))
                task, steps = busy[index]
                if rng.random() < 0.05:  # killed; Tune starts it again
                    busy[index] = (task, worker(referee, folder, task, num_folds, log))
                elif rng.random() < 0.01:  # and gives it up
                    busy.pop(index)
                    referee.on_end(task.number, crashed=True, fold=task.fold)
                elif next(steps, "ended") == "ended":
                    busy.pop(index)
                    referee.on_end(task.number, crashed=False, fold=task.fold)
            assert max(closed.values(), default=0) <= 1
        outcomes = all_outcomes(folder)
        assert [outcome["number"] for outcome in outcomes] == list(range(num_trials))
        assert {outcome["state"] for outcome in outcomes} <= {"complete", "stopped", "failed"}
        assert all(state != "RUNNING" for state in states(folder))
        assert max(log.values(), default=0) <= 1
        for outcome in outcomes:
            maes = [read_fold(trial_folder(folder, outcome["number"]), fold) for fold in range(num_folds)]
            in_order = [record["mae_months"] for record in maes[: len(outcome["fold_mae_months"])] if record]
            assert in_order == outcome["fold_mae_months"]
            assert (outcome["state"] == "complete") == (len(in_order) == num_folds)
