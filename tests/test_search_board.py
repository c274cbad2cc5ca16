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
    show(Event("stopped", 0, (30.0,), "stopped", stopped_at="race", images_seen=100))
    text = "\n".join(show.table())
    assert "100 passes spent, about 200 saved: 3.0 times fewer" in text
    assert "1 stopped (1 in the race)" in text


def test_what_a_screen_saved_is_told_by_the_folds_of_other_trials() -> None:
    show = board(io.StringIO())
    show(Event("fold", 0, (10.0,), "fold 1/3", 1, images_seen=100))
    show(Event("stopped", 1, (), "stopped", stopped_at="screen", images_seen=20))
    assert "120 passes spent, about 280 saved" in "\n".join(show.table())


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
