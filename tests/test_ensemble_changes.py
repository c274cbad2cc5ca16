"""The changes of a registry: made where a second writer is refused, and known again by who made them."""

import itertools
import json

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath
from upath.implementations.memory import MemoryPath
from upath.registry import register_implementation

from ensemble.changes import ChangeError, Changes
from preprocessing.storage import AnyPath, as_path

PUT = MemoryFileSystem.pipe_file
_places = itertools.count()


@pytest.fixture
def folder() -> AnyPath:
    return as_path(f"memory://changes-test/{next(_places)}")


def moved_to(version: str):
    return lambda state: (
        {"event": "alias", "alias": "champion", "version": version},
        {**state, "aliases": {"champion": version}},
    )


class LooksThenWrites(MemoryFileSystem):
    """As the drivers of SFTP, SMB and HDFS do."""

    protocol = "looksthenwrites"
    pipe_file = AbstractFileSystem.pipe_file


def test_a_store_that_is_not_known_to_refuse_is_refused():
    fsspec.register_implementation("looksthenwrites", LooksThenWrites, clobber=True)
    register_implementation("looksthenwrites", MemoryPath, clobber=True)
    with pytest.raises(ChangeError, match="Keep it on a local or shared disk"):
        Changes(UPath("looksthenwrites:///registry/changes")).make(moved_to("a"))


def without_mode(self, path, value, **kwargs):
    """As drivers wrote before one could ask them to refuse."""
    PUT(self, path, value)


@pytest.mark.parametrize("write", [without_mode, AbstractFileSystem.pipe_file], ids=["drops the mode", "looks first"])
def test_a_driver_that_cannot_refuse_is_refused(folder, monkeypatch, write):
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", write)
    with pytest.raises(ChangeError, match="Install its newest release"):
        Changes(folder).make(moved_to("a"))
    assert Changes(folder).all() == []


def test_a_writer_knows_its_record_again_when_the_answer_was_lost(folder, monkeypatch):
    def write_twice(self, path, value, mode="overwrite"):
        PUT(self, path, value, mode=mode)
        raise FileExistsError(path)  # what the second request is answered

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", write_twice)
    assert Changes(folder).make(moved_to("a"))["number"] == 1
    assert len(Changes(folder).all()) == 1


def test_a_writer_whose_record_was_written_over_decides_again(folder, monkeypatch):
    def write_over(self, path, value, mode="overwrite"):
        if path.endswith("1.json") and not self.exists(path):
            value = json.dumps(json.loads(value) | {"token": "of another"}).encode()
        PUT(self, path, value, mode=mode)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", write_over)
    assert Changes(folder).make(moved_to("a"))["number"] == 2


@pytest.mark.parametrize("place", ["local", "memory"])
def test_records_from_before_there_were_tokens_are_read(place, folder, tmp_path):
    changes = folder if place == "memory" else tmp_path
    old = {"number": 1, "time": "t", "event": "alias", "alias": "champion", "version": "a"}
    old["state"] = {"aliases": {"champion": "a"}, "removed": []}
    changes.mkdir(parents=True, exist_ok=True)
    (changes / "000000001.json").write_text(json.dumps(old))
    assert Changes(changes).state()["aliases"] == {"champion": "a"}
    assert Changes(changes).make(moved_to("b"))["number"] == 2
    assert [change["version"] for change in Changes(changes).all()] == ["a", "b"]


@pytest.mark.parametrize("content", ["{}", "[]", "7", '{"event": "publish", "time": "t", "state": {}}'])
def test_a_record_of_another_shape_is_named_and_hides_no_other(tmp_path, content):
    changes = Changes(tmp_path)
    changes.make(moved_to("a"))
    changes.make(moved_to("b"))
    (tmp_path / "000000001.json").write_text(content)
    with pytest.raises(ChangeError, match=r"000000001\.json is no record of a change.* Restore it from a backup"):
        changes.all()
    found, faults = changes.readable()
    assert [change["version"] for change in found] == ["b"]
    assert len(faults) == 1


def test_a_decision_that_failed_on_what_another_changed_is_made_again(folder):
    changes, tries = Changes(folder), []

    def decide(state):
        if not tries:
            tries.append(changes.make(moved_to("another")))
            raise FileNotFoundError("it is being taken away")
        return moved_to("mine")(state)

    assert changes.make(decide)["number"] == 2
