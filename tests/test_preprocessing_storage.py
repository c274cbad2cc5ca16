"""Folders that are local or remote."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from preprocessing.cohort import MARKER, Cohort
from preprocessing.storage import StorageError, as_path, fetch, read_json, write_atomic, write_json


def test_a_relative_word_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_path("study/../cohort") == tmp_path / "cohort"


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "file", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_atomic(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_json_that_is_none_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StorageError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_a_remote_cohort_is_fetched_once_and_opened(
    cohort_folder: Path, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARPAL_CACHE", str(tmp_path))
    remote = UPath("memory://bucket/cohort")
    for path in cohort_folder.iterdir():
        (remote / path.name).write_bytes(path.read_bytes())
    assert Cohort.load(str(remote)).hash == cohort.hash
    assert fetch(as_path("memory://bucket/cohort"), MARKER) == fetch(remote, MARKER)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_workers_that_ask_at_the_same_time_fetch_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARPAL_CACHE", str(tmp_path))
    remote = UPath("memory://bucket/folder-for-many")
    (remote / "data.bin").write_bytes(b"x" * 100)
    (remote / MARKER).write_text("{}")
    fetched: list[str] = []
    get_file = type(remote.fs).get_file

    def counted(self: Any, name: str, target: str, **options: Any) -> None:
        fetched.append(name)
        time.sleep(0.05)  # long enough for the others to ask
        get_file(self, name, target, **options)

    monkeypatch.setattr(type(remote.fs), "get_file", counted)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: fetch(remote, MARKER), range(4)))
    assert len(folders) == 1
    assert len(fetched) == 2


def test_a_fetch_that_was_killed_in_the_middle_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARPAL_CACHE", str(tmp_path))
    remote = UPath("memory://bucket/folder-killed")
    (remote / MARKER).write_text("{}")
    folder = fetch(remote, MARKER)
    folder.rename(partial := folder.with_name(f".{folder.name}.partial"))
    (partial / "torn.bin").write_text("half")
    assert [path.name for path in fetch(remote, MARKER).iterdir()] == [MARKER]


def test_remote_json_round_trip() -> None:
    path = as_path("memory://bucket/a/b.json")
    write_json(path, {"x": 1})
    assert read_json(path) == {"x": 1}
