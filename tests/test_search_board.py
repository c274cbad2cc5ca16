"""What is shown while a study runs: lines in a log, a table on a terminal."""

import io

import pytest

from search.board import Board, Event


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _terminal_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def board(stream: io.StringIO, **options: object) -> Board:
    return Board(4, 3, stream=stream, **options)  # type: ignore[arg-type]


def test_a_log_gets_one_plain_line_an_event() -> None:
    log = io.StringIO()
    show = board(log)
    show(Event("fold", 0, (10.0,), "fold 1/3: 10.0 months", 1, images_seen=100))
    show(Event("complete", 0, (10.0, 11.0, 12.0), "complete", 1, images_seen=300))
    assert "\x1b" not in log.getvalue()
    assert len(log.getvalue().splitlines()) == 3
    assert "1/4 trials, best 11.00, 0 stopped, 0 failed" in log.getvalue().splitlines()[-1]


def test_a_log_is_not_filled_with_measurements() -> None:
    log = io.StringIO()
    show = board(log)
    for _ in range(50):
        show(Event("measured", 0, (), "fold 1, epoch 1.0: 20.0 months", images_seen=10))
    assert len(log.getvalue().splitlines()) == 1


def test_a_trial_that_waits_for_its_generation_is_not_listed_as_running() -> None:
    show = board(Terminal())
    show(Event("measured", 0, (), "fold 1", images_seen=10))
    show(Event("screened", 1, (), "short training: 20.0 months", images_seen=10))
    assert [line.split()[:3] for line in show.table() if "running" in line] == [["running", "trial", "0"]]


def test_a_terminal_shows_the_table_in_place() -> None:
    terminal = Terminal()
    show = board(terminal)
    show(Event("measured", 0, (), "fold 1", images_seen=10))
    height = len(show.table()) + 1
    terminal.truncate(0)
    show(Event("measured", 0, (), "fold 1", images_seen=20))
    assert f"\x1b[{height}F\x1b[J" in terminal.getvalue()


def test_a_line_of_the_table_is_never_wider_than_the_terminal() -> None:
    terminal = Terminal()
    board(terminal)(Event("failed", 0, (), "failed: " + 300 * "x"))
    assert max(map(len, terminal.getvalue().splitlines())) < 100


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    board(terminal)(Event("fold", 0, (10.0,), "fold 1/3", 1))
    assert "\x1b" not in terminal.getvalue()


def test_what_a_race_saved_is_counted_in_image_passes() -> None:
    show = board(io.StringIO())
    show(Event("stopped", 0, (30.0,), "stopped", stopped_at="race", images_seen=100, fold_images=100))
    text = "\n".join(show.table())
    assert "100 passes spent, about 200 saved: 3.0 times fewer" in text
    assert "1 stopped (1 in the race)" in text


def test_what_a_short_training_saved_is_told_before_any_fold_has_ended() -> None:
    show = board(io.StringIO())
    show(Event("stopped", 0, (), "stopped", stopped_at="screen", images_seen=25, fold_images=100))
    assert "25 passes spent, about 275 saved" in "\n".join(show.table())


def test_short_trainings_of_complete_trials_are_taken_off_what_was_saved() -> None:
    show = board(io.StringIO())
    show(Event("complete", 0, (10.0, 10.0, 10.0), "complete", images_seen=325, fold_images=100))
    assert "325 passes spent, none saved so far" in "\n".join(show.table())
    show(Event("stopped", 1, (), "stopped", stopped_at="screen", images_seen=25, fold_images=100))
    assert "350 passes spent, about 250 saved" in "\n".join(show.table())


def test_what_a_trial_without_a_measurement_saved_is_told_by_the_others() -> None:
    show = board(io.StringIO())
    show(Event("measured", 0, (), "fold 1", images_seen=100, fold_images=100))
    show(Event("stopped", 1, (), "stopped", stopped_at="limits"))
    assert "100 passes spent, about 300 saved" in "\n".join(show.table())


def test_folds_done_are_counted_found_ones_included() -> None:
    show = board(io.StringIO())
    show(Event("fold", 0, (10.0,), "fold 1/3: was finished before", folds_replayed=1))
    show(Event("fold", 0, (10.0, 11.0), "fold 2/3", 1))
    show(Event("stopped", 0, (10.0, 11.0), "stopped", stopped_at="race"))
    assert "  folds     2 of 12 done, 1 saved" in show.table()


class Clock:
    """Tells the time that the test sets, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def time_line(show: Board) -> str:
    (line,) = [line for line in show.table() if line.startswith("  time")]
    return line


def test_the_time_left_counts_image_passes_from_the_first_short_training_on() -> None:
    clock = Clock()
    show = board(io.StringIO(), has_screens=True, clock=clock)
    clock.now = 60.0
    show(Event("screened", 0, (), "short training", images_seen=25, fold_images=100, screen_images=25))
    assert time_line(show) == "  time      1.0 min, 51.0 min left at most"  # 4 trials x 3.25 folds, less those 25


def test_a_short_training_that_is_read_again_beside_finished_folds_takes_no_longer() -> None:
    clock = Clock()
    show = board(io.StringIO(), has_screens=True, clock=clock)
    clock.now = 60.0
    show(Event("fold", 0, (10.0,), "fold 1/3", images_seen=125, fold_images=100))
    before = time_line(show)
    show(Event("screened", 0, (), "short training", images_seen=125, fold_images=100, screen_images=25))
    assert time_line(show) == before


def test_a_failed_trial_has_saved_no_folds() -> None:
    show = board(io.StringIO())
    show(Event("failed", 0, (), "failed: it cannot be made"))
    assert "0 saved" in show.table()[2]


def test_passes_of_a_run_before_took_no_time_of_this_one() -> None:
    clock = Clock()
    show = board(io.StringIO(), num_ended=3, images_before={3: 100}, clock=clock)
    clock.now = 60.0
    show(Event("measured", 3, (10.0,), "fold 2", images_seen=150, fold_images=100))
    assert time_line(show) == "  time      1.0 min, 3.0 min left at most"


def test_nothing_is_said_of_the_time_that_a_second_partition_takes() -> None:
    clock = Clock()
    show = board(io.StringIO(), num_ended=3, clock=clock)
    clock.now = 60.0
    show(Event("complete", 3, (10.0, 11.0, 12.0), "complete", images_seen=300, fold_images=100))
    show(Event("partition", 3, (), "second partition, fold 1/3: 13.0 months"))
    assert time_line(show) == "  time      1.0 min"


def test_the_time_left_ends_with_the_deadline() -> None:
    clock = Clock()
    show = board(io.StringIO(), deadline=600.0, clock=clock)
    assert time_line(show) == "  time      0.0 min, 10.0 min left until the deadline"
    clock.now = 300.0
    show(Event("measured", 0, (), "fold 1", images_seen=1, fold_images=1000))
    assert time_line(show) == "  time      5.0 min, 5.0 min left until the deadline"


def test_the_best_is_named_and_a_worse_one_does_not_replace_it() -> None:
    show = board(io.StringIO())
    show(Event("complete", 2, (10.0, 10.0, 10.0), "complete", 1))
    show(Event("complete", 3, (11.0, 11.0, 11.0), "complete", 1))
    assert "  best      10.00 months, trial 2" in show.table()


def test_a_trial_that_ended_is_no_longer_listed_as_running() -> None:
    show = board(io.StringIO())
    show(Event("measured", 7, (), "fold 1, epoch 2.0: 30.0 months"))
    assert any("trial 7" in line for line in show.table())
    show(Event("failed", 7, (), "failed: nan"))
    assert not any("trial 7" in line for line in show.table())


def test_where_to_look_is_said_once() -> None:
    log = io.StringIO()
    board(log, study="s")
    assert "tensorboard --logdir s/tune" in log.getvalue()
    assert "python -m search report s" in log.getvalue()
