"""Sampler, race and control: who runs, who stops, and that each trial is accounted for once. No Ray here."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from upath import UPath

from preprocessing.storage import read_json, write_json
from search.board import Event
from search.control import StudyControl, result_of
from search.halving import Halving
from search.journal import FILE, ObjectJournal, open_journal
from search.pace import Pace
from search.progress import keep_measurement, read_measurements
from search.racing import Race, make_rules
from search.sampler import Outcome, Sampler
from search.space import TrialConfig
from search.spaces import SPACES, load_space
from search.train import Measurement
from search.trial import FoldReport, trial_folder

SPACE = "tests.spaces_of_tests:tiny"


def sampler(folder: Path, num_trials: int = 6, name: str = "study", **options: Any) -> Sampler:
    return Sampler(folder, name=name, space=SPACE, seed=3, num_trials=num_trials, **options)


def control(
    folder: Path, *, num_trials: int = 6, pool_size: int = 2, deadline: float | None = None, **options: Any
) -> StudyControl:
    """A control of the tiny space; `rules` and `say` are its own, every other option the sampler's."""
    race = Race(options.pop("rules", make_rules("matched", True, pool_size)))
    say = options.pop("say", lambda event: None)
    return StudyControl(sampler(folder, num_trials, **options), race, num_folds=3, deadline=deadline, say=say)


def states(folder: Path) -> list[str]:
    study = optuna.load_study(study_name="study", storage=open_journal(folder))
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def fold_result(maes: list[float], *, replayed: bool = False) -> dict[str, Any]:
    """What a trial says at the end of its last fold so far."""
    measurement = Measurement(17.0, 80, 1.0, maes[-1], final=True)
    return result_of(FoldReport(len(maes) - 1, measurement, tuple(maes), True, replayed))


def measured_result(mae: float, images_seen: int, fold: int = 0, maes: tuple[float, ...] = ()) -> dict[str, Any]:
    """What a trial of 80 images a fold says inside a fold."""
    return result_of(FoldReport(fold, Measurement(images_seen / 5, images_seen, 1.0, mae), maes, False, False))


def play(referee: StudyControl, number: int, maes: list[float]) -> None:
    """Report folds until the trial is stopped or its errors are used up, then end it."""
    for count in range(1, len(maes) + 1):
        if referee.on_result(number, fold_result(maes[:count])):
            break
    referee.on_end(number, crashed=False)


def begin(referee: StudyControl) -> int:
    following = referee.next()
    assert following is not None
    return following[0]


@pytest.mark.parametrize(
    ("told", "ending"), [({"crashed": "KeyError: 'stem' (mine.py:7)"}, ": KeyError: 'stem' (mine.py:7)"), ({}, " why")]
)
def test_what_its_workers_died_of_is_why_a_trial_failed(told: dict[str, str], ending: str, tmp_path: Path) -> None:
    referee = control(tmp_path)
    number = begin(referee)
    if told:
        assert not referee.on_result(number, told)
    referee.on_end(number, crashed=True)
    outcome = read_json(trial_folder(tmp_path, number) / "outcome.json")
    assert outcome["state"] == "failed"
    assert outcome["reason"].startswith("its worker ended again and again")
    assert outcome["reason"].endswith(ending)


def test_optuna_hears_complete_pruned_and_failed_as_they_are(tmp_path: Path) -> None:
    referee = control(tmp_path)
    play(referee, begin(referee), [10.0, 11.0, 12.0])
    play(referee, begin(referee), [11.0, 12.0, 13.0])
    play(referee, begin(referee), [30.0, 30.0, 30.0])
    crashed, broken = begin(referee), begin(referee)
    referee.on_end(crashed, crashed=True)
    referee.on_result(broken, {"failed": "The loss became nan."})
    referee.on_end(broken, crashed=False)
    assert states(tmp_path) == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert read_json(trial_folder(tmp_path, 2) / "outcome.json")["fold_mae_months"] == [30.0]
    assert "nan" in read_json(trial_folder(tmp_path, 4) / "outcome.json")["reason"]


def test_every_fold_is_an_intermediate_value_the_stopping_one_too(tmp_path: Path) -> None:
    referee = control(tmp_path, pool_size=1)
    play(referee, begin(referee), [10.0, 11.0, 12.0])
    play(referee, begin(referee), [30.0])
    trials = optuna.load_study(study_name="study", storage=open_journal(tmp_path)).trials
    assert trials[0].intermediate_values == {0: 10.0, 1: 11.0, 2: 12.0}
    assert trials[0].value == pytest.approx(11.0)
    assert trials[1].intermediate_values == {0: 30.0}


def test_a_trial_stopped_inside_its_first_fold_is_pruned_and_keeps_what_it_had_seen(tmp_path: Path) -> None:
    referee = control(tmp_path, num_trials=9, rules=[Halving(2, keep=0.5)])
    for _ in range(3):
        referee.on_result(number := begin(referee), measured_result(20.0, 64))
        play(referee, number, [10.0, 11.0, 12.0])
    number = begin(referee)
    assert referee.on_result(number, measured_result(50.0, 64))
    referee.on_end(number, crashed=False)
    outcome = read_json(trial_folder(tmp_path, number) / "outcome.json")
    assert (outcome["state"], outcome["stopped_at"], outcome["images_seen"]) == ("stopped", "halving", 64)
    assert states(tmp_path)[number] == "PRUNED"


def test_a_trial_that_the_screen_stops_has_spent_its_short_training_and_no_fold(tmp_path: Path) -> None:
    referee = control(tmp_path, num_trials=9)
    for mae in (20.0, 20.0, 20.0, 20.0, 50.0):
        number = begin(referee)
        report = FoldReport(0, Measurement(16 / 5, 16, 1.0, mae, True), (), False, False, is_screen=True)
        is_stopped = referee.on_result(number, result_of(report))
        assert is_stopped == (mae == 50.0)
    referee.on_end(number, crashed=False)
    outcome = read_json(trial_folder(tmp_path, number) / "outcome.json")
    assert (outcome["stopped_at"], outcome["images_seen"], outcome["fold_mae_months"]) == ("screen", 16, [])


def test_rules_decide_after_a_restart_as_they_would_have_before(tmp_path: Path) -> None:
    """Fed the same measurements, a control rebuilt from the folders judges the next trial like the first one."""
    referee = control(tmp_path, num_trials=9, rules=[Halving(2, keep=0.5)])
    for mae in (20.0, 22.0, 24.0, 26.0):
        folder = trial_folder(tmp_path, number := begin(referee))
        report = FoldReport(0, Measurement(64 / 5, 64, 1.0, mae), (), False, False)
        keep_measurement(folder, report)
        referee.on_result(number, result_of(report))
        play(referee, number, [mae, mae, mae])
    verdicts = []
    for _ in range(2):
        while (number := begin(referee)) in referee._replays:
            pass
        verdicts.append([referee.on_result(number, measured_result(mae, 64)) for mae in (21.0, 25.0, 40.0)])
        referee = control(tmp_path, num_trials=9, rules=[Halving(2, keep=0.5)])
    assert verdicts == [[False, True, True]] * 2  # of the five measured there, three go on


def test_a_fold_that_begins_anew_replaces_what_it_had_measured(tmp_path: Path) -> None:
    for images, mae in ((16, 30.0), (32, 25.0), (16, 31.0)):
        keep_measurement(tmp_path, FoldReport(0, Measurement(1.0, images, 1.0, mae), (), False, False))
    assert [item.mae_months for item in read_measurements(tmp_path, 0)] == [31.0]


def test_a_replayed_measurement_stops_nobody(tmp_path: Path) -> None:
    referee = control(tmp_path, num_trials=9)
    for _ in range(3):
        referee.on_result(number := begin(referee), measured_result(20.0, 16))
        play(referee, number, [10.0, 11.0, 12.0])
    assert not referee.on_result(begin(referee), measured_result(50.0, 16) | {"replayed": True})


def test_views_are_drawn_from_the_cohort_and_starting_points_take_the_crop(tmp_path: Path) -> None:
    quick = Sampler(tmp_path, name="s", space="quick", seed=0, num_trials=12, views=("full", "crop", "masked"))
    drawn = [quick.config(quick.ask()).view for _ in range(12)]
    assert drawn[:2] == ["crop", "crop"]
    assert set(drawn) == {"full", "crop", "masked"}


def test_without_a_crop_starting_points_take_the_first_view(tmp_path: Path) -> None:
    quick = Sampler(tmp_path, name="s", space="quick", seed=0, num_trials=12, views=("masked", "full"))
    assert [quick.config(quick.ask()).view for _ in range(2)] == ["masked", "masked"]


@pytest.mark.parametrize(("views", "seen"), [(("full", "masked", "crop"), "masked"), (("full", "crop"), "crop")])
def test_memon_and_cuomo_see_the_hand_cut_out_where_the_cohort_has_it(
    tmp_path: Path, views: tuple[str, ...], seen: str
) -> None:
    seeds = Sampler(tmp_path, name="s", space="seeds", seed=0, num_trials=8, views=views)
    configs = [seeds.config(seeds.ask()) for _ in range(8)]
    assert {config.view for config in configs if config.backbone == "memon_cuomo"} == {seen}
    assert {config.view for config in configs if config.backbone != "memon_cuomo"} == {"crop"}


def test_a_space_that_names_a_view_the_cohort_lacks_is_refused(tmp_path: Path) -> None:
    other = Sampler(tmp_path, name="s", space="tests.spaces_of_tests:of_crops", seed=0, num_trials=1)
    with pytest.raises(ValueError, match="the cohort has full"):
        other.ask()


def test_an_interrupted_trial_stays_open_and_comes_before_new_ones_after_a_restart(tmp_path: Path) -> None:
    referee = control(tmp_path)
    play(referee, begin(referee), [10.0, 11.0, 12.0])
    play(referee, begin(referee), [10.5])  # not stopped: its worker went with the driver
    restarted = control(tmp_path)
    assert [begin(restarted), begin(restarted), begin(restarted)] == [0, 1, 2]
    assert states(tmp_path) == ["COMPLETE", "RUNNING", "RUNNING"]


def test_a_replayed_trial_is_never_stopped_or_told_again(tmp_path: Path) -> None:
    first = control(tmp_path, pool_size=1)
    play(first, begin(first), [30.0, 30.0, 30.0])
    play(first, begin(first), [10.0, 10.0, 10.0])
    restarted = control(tmp_path, pool_size=1)
    play(restarted, begin(restarted), [30.0, 30.0, 30.0])
    assert states(tmp_path) == ["COMPLETE", "COMPLETE"]


def test_killed_between_disk_and_journal_the_outcome_is_told_on_restart(tmp_path: Path) -> None:
    referee = control(tmp_path)
    number = begin(referee)
    write_json(trial_folder(tmp_path, number) / "outcome.json", Outcome("complete", (9.0, 9.0, 9.0)).to_dict())
    control(tmp_path)
    assert states(tmp_path) == ["COMPLETE"]


def test_killed_before_the_configuration_was_written_it_is_drawn_again_the_same(tmp_path: Path) -> None:
    referee = control(tmp_path)
    path = trial_folder(tmp_path, begin(referee)) / "config.json"
    before = path.read_bytes()
    path.unlink()
    control(tmp_path)
    assert path.read_bytes() == before


def test_killed_while_a_configuration_was_drawn_it_comes_out_as_if_undisturbed(tmp_path: Path) -> None:
    undisturbed = sampler(tmp_path / "a")
    undisturbed.ask()
    killed = sampler(tmp_path / "b")
    killed._study.sampler = killed._sampler_of(0)
    killed._study.ask()  # and here the kill
    sampler(tmp_path / "b").reconcile()
    assert undisturbed.config(0) == sampler(tmp_path / "b").config(0)


def test_a_full_disk_halts_the_study_and_blames_no_trial(tmp_path: Path) -> None:
    referee = control(tmp_path)
    number = begin(referee)
    assert referee.on_result(number, {"halted": "OSError: No space left on device."})
    referee.on_end(number, crashed=False)
    assert referee.next() is None
    assert states(tmp_path) == ["RUNNING"]
    assert begin(control(tmp_path)) == number


def test_after_the_deadline_a_begun_trial_waits_for_the_next_resume(tmp_path: Path) -> None:
    begin(control(tmp_path))
    assert control(tmp_path, deadline=0.0).next() is None


@pytest.mark.parametrize(
    ("num_free", "left_s", "goes_on"), [(2, 30, True), (2, 10, False), (1, 10, True), (1, -1, False)]
)
def test_a_fold_that_the_deadline_would_cut_off_begins_only_as_the_last(
    num_free: int, left_s: float, goes_on: bool, tmp_path: Path
) -> None:
    now, done = [0.0], 3 - num_free
    referee = control(tmp_path)
    referee._pace = Pace(3, 20.0 * done + left_s, clock=lambda: now[0])
    number = begin(referee)
    for count in range(1, done + 1):
        referee.on_result(number, {"begins": count - 1})
        now[0] += 20
        is_stopped = referee.on_result(number, fold_result([10.0] * count))
    assert is_stopped is not goes_on
    assert referee.is_out_of_time is not goes_on


def test_nobody_assists_with_a_fold_that_the_deadline_would_cut_off(tmp_path: Path) -> None:
    now = [0.0]
    referee = control(tmp_path, num_trials=2)
    referee._pace = Pace(3, 60.0, clock=lambda: now[0])
    long, short = begin(referee), begin(referee)
    now[0] = 5.0
    for maes in ([10.0], [10.0, 10.0], [10.0, 10.0, 10.0]):
        referee.on_result(short, fold_result(maes))
    referee.on_end(short, crashed=False)
    now[0] = 35.0
    referee.on_result(long, {"begins": 0})
    assert referee.on_result(long, fold_result([10.0]))  # 35 s a fold, and 25 s are left
    referee.on_end(long, crashed=False)
    assert referee.next() is None


def test_the_board_counts_folds_that_were_trained_and_no_replayed_ones(tmp_path: Path) -> None:
    events: list[Event] = []
    referee = control(tmp_path, say=events.append)
    number = begin(referee)
    for count, replayed in ((1, True), (2, True), (3, False)):
        referee.on_result(number, fold_result([10.0] * count, replayed=replayed))
    referee.on_end(number, crashed=False)
    assert (sum(event.folds_trained for event in events), sum(event.folds_replayed for event in events)) == (1, 2)


def test_resuming_draws_what_an_undisturbed_study_would_have_drawn(tmp_path: Path) -> None:
    undisturbed = control(tmp_path / "a")
    for _ in range(6):
        play(undisturbed, begin(undisturbed), [10.0, 11.0, 12.0])
    for _ in range(6):
        disturbed = control(tmp_path / "b")
        while (number := begin(disturbed)) in disturbed._replays:
            pass
        play(disturbed, number, [10.0, 11.0, 12.0])
    configs = [[read_json(path) for path in sorted((tmp_path / name).glob("trials/*/config.json"))] for name in "ab"]
    assert configs[0] == configs[1]
    assert len(configs[0]) == 6


def test_no_trial_begins_beyond_the_number_or_the_deadline(tmp_path: Path) -> None:
    referee = control(tmp_path / "number", num_trials=1)
    begin(referee)
    assert referee.next() is None
    assert control(tmp_path / "deadline", deadline=0.0).next() is None


def test_a_line_torn_by_a_kill_does_not_spoil_the_journal(tmp_path: Path) -> None:
    referee = control(tmp_path)
    play(referee, begin(referee), [10.0, 11.0, 12.0])
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"op_code": 4, "tri')
    referee = control(tmp_path)
    assert (begin(referee), begin(referee)) == (0, 1)
    assert states(tmp_path) == ["COMPLETE", "RUNNING"]


def test_journal_on_an_object_store_survives_reopening() -> None:
    folder = UPath("memory://bucket/study-journal")
    ObjectJournal(folder).append_logs([{"a": 1}, {"a": 2}])
    again = ObjectJournal(folder)
    again.append_logs([{"a": 3}])
    assert [entry["a"] for entry in ObjectJournal(folder).read_logs(1)] == [2, 3]


@pytest.mark.parametrize("name", [*SPACES, SPACE])
def test_every_space_draws_valid_configurations(name: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        TrialConfig(**load_space(name)(study.ask()))


@pytest.mark.parametrize("name", ["slow", "tests.spaces_of_tests:none", "no.such.module:space"])
def test_an_unknown_space_is_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match="--space"):
        load_space(name)


def test_a_configuration_survives_json() -> None:
    config = TrialConfig(backbone="resnet10t", learning_rate=3e-3)
    assert TrialConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("bad", [{"augmentation": 2.0}, {"learning_rate": 0.0}, {"head": "tail"}, {"weight_l1": -1.0}])
def test_a_configuration_out_of_range_cannot_exist(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrialConfig(backbone="resnet10t", **bad)


def test_a_remark_of_the_training_is_told_to_who_watches(tmp_path: Path) -> None:
    told: list[Event] = []
    referee = control(tmp_path, say=told.append)
    measurement = Measurement(3.2, 16, 1.0, 20.0, note="Memory ran out: batches pass in 2 parts.")
    referee.on_result(begin(referee), result_of(FoldReport(0, measurement, (), False, False)))
    assert told[-1].kind == "noted"
    assert told[-1].text.endswith("Memory ran out: batches pass in 2 parts.")


def test_a_trial_whose_end_cannot_be_written_down_is_open_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    referee = control(tmp_path)
    number = begin(referee)
    referee.on_result(number, {"failed": "The loss became nan."})
    finish = Sampler.finish

    def full(*arguments: object) -> None:
        monkeypatch.setattr(Sampler, "finish", finish)
        raise OSError("The disk is full.")

    monkeypatch.setattr(Sampler, "finish", full)
    with pytest.raises(OSError, match="full"):
        referee.on_end(number, crashed=False)
    referee.on_end(number, crashed=False)
    assert states(tmp_path) == ["FAIL"]


def test_a_study_that_is_halted_begins_nothing(tmp_path: Path) -> None:
    referee = control(tmp_path)
    referee.halt("The disk is full.")
    referee.halt("Something else.")
    assert referee.next() is None
    assert referee.halted == "The disk is full."
