"""What waits on a machine waits for one ledger: services of several ledgers share the machine, and the folder."""

import logging
import time
from pathlib import Path

import pytest

from serve.books import Books
from serve.database import Database
from serve.ledger import Ledger
from serve.outset import Outset
from serve.routing import Routing
from serve.spool import Spool, spool_of
from serve.succession import Given
from tests.ledger_fixtures import answered


def ledger_at(url: str) -> Ledger:
    Routing(Database(url)).begin("ens-a")
    return Ledger(Database(url))


def left_in(spool: Spool) -> str:
    """The id of an answer that a process left when it ended."""
    entry = answered()
    spool.append([entry])
    for file in spool._files:
        file.handle.close()
    return entry.id


def serve_for_a_moment(url: str, spool: Path) -> None:
    """A service that finds what waits for its ledger."""
    books = Books(url, spool, is_open=True)
    end = time.monotonic() + 20
    while not books.status().is_up:
        assert time.monotonic() < end
        time.sleep(0.01)
    books.close()


def test_what_waits_for_one_ledger_goes_into_no_other(tmp_path: Path) -> None:
    folder, url = tmp_path / "spool", f"sqlite:///{tmp_path}/{{}}.db"
    one, other = ledger_at(url.format("one")), ledger_at(url.format("other"))
    waiting = left_in(spool_of(one, folder))
    serve_for_a_moment(url.format("other"), folder)
    assert other.prediction(waiting) is None
    serve_for_a_moment(url.format("one"), folder)
    assert one.prediction(waiting)


def test_a_ledger_finds_what_waits_for_it_under_another_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_at(f"sqlite:///{tmp_path}/one.db")
    waiting = left_in(spool_of(ledger, tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    serve_for_a_moment("sqlite:///one.db", tmp_path / "spool")
    assert ledger.prediction(waiting)


def test_what_a_release_before_left_is_of_the_ledger_beside_it(tmp_path: Path) -> None:
    ledger = ledger_at(f"sqlite:///{tmp_path}/ledger.db")
    waiting = left_in(Spool(tmp_path / "spool"))
    serve_for_a_moment(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "spool")
    assert ledger.prediction(waiting)
    assert list((tmp_path / "spool").glob("*.jsonl")) == []


def test_another_ledgers_service_says_what_to_do_with_what_a_release_before_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, url = tmp_path / "spool", f"sqlite:///{tmp_path}/elsewhere.db"
    ledger, own = ledger_at(url), Given("ens-a", lambda: 0.0)
    assert Outset.read(ledger.database, folder, own).left == ()
    waiting = left_in(Spool(folder))
    caplog.set_level(logging.WARNING, "carpal.serve")
    serve_for_a_moment(url, folder)
    assert ledger.prediction(waiting) is None
    (told,) = Outset.read(ledger.database, folder, own).left
    assert told.startswith("1 files of answers")
    assert told.endswith(f"are to be moved to {folder / ledger.mark}")
    (line,) = [record for record in caplog.records if record.message == "spool_files_of_no_ledger"]
    assert vars(line)["move_to"] == str(folder / ledger.mark)
    for path in folder.glob("*.jsonl"):
        path.rename(folder / ledger.mark / path.name)
    serve_for_a_moment(url, folder)
    assert ledger.prediction(waiting)


def test_what_waits_for_a_ledger_that_was_lost_and_begun_anew_is_told_at_every_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, url, own = tmp_path / "spool", f"sqlite:///{tmp_path}/ledger.db", Given("ens-a", lambda: 0.0)
    lost = ledger_at(url)
    serve_for_a_moment(url, folder)
    waiting = left_in(spool_of(lost, folder))
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    anew = ledger_at(url)
    caplog.set_level(logging.WARNING, "carpal.serve")
    for _ in range(2):  # the first one writes down the new ledger's secret in place of the lost one's
        (told,) = Outset.read(anew.database, folder, own).left
        assert told.startswith(f"1 entries of answers wait in {folder / lost.mark} ")
        assert str(folder / anew.mark) in told
        caplog.clear()
        serve_for_a_moment(url, folder)
        (line,) = [record for record in caplog.records if record.message == "spool_entries_of_ledger_before"]
        assert (vars(line)["entries"], vars(line)["folder"]) == (1, str(folder / lost.mark))
    assert anew.prediction(waiting) is None
    for path in (folder / lost.mark).glob("*.jsonl"):
        path.rename(folder / anew.mark / path.name)
    serve_for_a_moment(url, folder)
    assert anew.prediction(waiting)
    assert Outset.read(anew.database, folder, own).left == ()


@pytest.mark.parametrize("linked", ["registry/ledger/ledger.db", "registry/ledger/spool", "registry"])
def test_what_a_release_before_left_is_found_though_a_part_lies_on_another_disk(tmp_path: Path, linked: str) -> None:
    place = tmp_path / "registry" / "ledger"
    (place / "spool").mkdir(parents=True)
    (place / "ledger.db").touch()
    (tmp_path / linked).rename(tmp_path / "disk")
    (tmp_path / linked).symlink_to(tmp_path / "disk")
    url = f"sqlite:///{place}/ledger.db"
    ledger = ledger_at(url)
    waiting = left_in(Spool(place / "spool"))
    serve_for_a_moment(url, place / "spool")
    assert ledger.prediction(waiting)
