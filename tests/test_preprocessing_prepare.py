"""Preparing in the face of kills, other workers and other processes: the same bytes in the end."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from preprocessing.__main__ import main
from preprocessing.cohort import Cohort
from preprocessing.limits import MAX_BYTES, RadiographError
from preprocessing.prepare import CHUNK, ChunkResult, prepare, read_chunk, thread_map
from preprocessing.recipe import Recipe
from preprocessing.sources import read_rsna
from preprocessing.staging import PrepareError, staging_folder
from preprocessing.standardize import Reader
from preprocessing.storage import as_path
from tests.conftest import ROOT, plain_recipe, write_source

NUM_CASES = 5 * CHUNK - 7


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five chunks, with two damaged pictures."""
    folder = write_source(tmp_path_factory.mktemp("prepare") / "rsna", NUM_CASES)
    for name in ("1003", "1100"):
        (folder / "boneage-training-dataset" / f"{name}.png").write_bytes(b"damaged")
    return folder


def run(labelled: Path, out: Path | str, *, size: int = 64, seed: int = 0, **options: Any) -> list[int]:
    """Prepare, and return how many files were done whenever it was said."""
    done: list[int] = []
    options = {"progress": done.append} | options
    source = read_rsna(labelled)
    prepare(source, out, Recipe(size=size), num_folds=3, test_fraction=0.1, seed=seed, **options)
    return done


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed_after(num_chunks: int) -> Callable[..., Iterator[ChunkResult]]:
    def chunk_map(function: Callable[[list[str]], ChunkResult], chunks: list[list[str]]) -> Iterator[ChunkResult]:
        for chunk in chunks[:num_chunks]:
            yield function(chunk)
        raise Killed

    return chunk_map


@pytest.fixture(scope="module")
def undisturbed(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "cohort"
    run(labelled, out, chunk_map=partial(thread_map, num_workers=1))
    return content(out)


def test_the_result_does_not_depend_on_the_number_of_workers(
    labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    run(labelled, tmp_path / "cohort", chunk_map=partial(thread_map, num_workers=4))
    assert content(tmp_path / "cohort") == undisturbed


def test_the_pixels_are_a_plain_array_of_all_accepted_pictures(
    labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "pixels.npy").write_bytes(undisturbed["pixels.npy"])
    pixels = np.load(tmp_path / "pixels.npy")
    assert pixels.shape == (NUM_CASES - 2, 1, 64, 64)
    np.save(tmp_path / "again.npy", pixels)
    assert (tmp_path / "again.npy").read_bytes() == undisturbed["pixels.npy"]


@pytest.mark.parametrize("torn", [b"", b'{"num_files":32,"kept":[96,'])
def test_after_a_kill_finished_files_are_not_read_again_and_the_result_is_the_same(
    labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path, torn: bytes
) -> None:
    out = tmp_path / "cohort"
    with pytest.raises(Killed):
        run(labelled, out, chunk_map=killed_after(3))
    with (staging_folder(out) / "pixels.npy").open("ab") as file:
        file.write(b"half of a picture")
    with (staging_folder(out) / "chunks.jsonl").open("ab") as file:
        file.write(torn)
    assert run(labelled, out)[:2] == [3 * CHUNK, 4 * CHUNK]
    assert content(out) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_a_kill_between_the_last_picture_and_the_tables_costs_nothing(
    labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("preprocessing.staging.Staging.publish", killed)
        with pytest.raises(Killed):
            run(labelled, tmp_path / "cohort")
    assert run(labelled, tmp_path / "cohort") == [NUM_CASES]
    assert content(tmp_path / "cohort") == undisturbed


@pytest.mark.slow
def test_kill_9_leaves_what_was_finished(labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    program = (
        "import itertools, sys, time\n"
        "from preprocessing import prepare\n"
        "from preprocessing.__main__ import main\n"
        "read, calls = prepare.read_chunk, itertools.count()\n"
        "prepare.read_chunk = lambda files, **rest: (next(calls) >= 2 and time.sleep(60)) or read(files, **rest)\n"
        "main(sys.argv[1:])\n"
    )
    out = tmp_path / "cohort"
    recipe = str(plain_recipe(tmp_path))
    words = ["prepare", str(labelled), str(out), "--size", "64", "--workers", "1", "--recipe", recipe]
    process = subprocess.Popen([sys.executable, "-c", program, *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    journal = staging_folder(out) / "chunks.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run(labelled, out)[0] >= 2 * CHUNK
    assert content(out) == undisturbed


def test_folds_may_be_drawn_otherwise_when_it_goes_on(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(labelled, tmp_path / "cohort", chunk_map=killed_after(3))
    assert run(labelled, tmp_path / "cohort", seed=5)[0] == 3 * CHUNK
    assert json.loads((tmp_path / "cohort" / "cohort.json").read_text())["seed"] == 5


def test_another_recipe_does_not_touch_what_was_begun(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    with pytest.raises(Killed):
        run(labelled, out, chunk_map=killed_after(3))
    before = content(staging_folder(out))
    with pytest.raises(PrepareError, match=rf"{re.escape(str(staging_folder(out)))} holds .* with other recipe\."):
        run(labelled, out, size=72)
    assert content(staging_folder(out)) == before


@pytest.mark.parametrize(("kind", "word"), [("picture", "pictures"), ("label", "labels")])
def test_a_source_that_changed_in_the_meantime_is_refused(tmp_path: Path, kind: str, word: str) -> None:
    folder = write_source(tmp_path / "rsna", 2 * CHUNK)
    with pytest.raises(Killed):
        run(folder, tmp_path / "cohort", chunk_map=killed_after(1))
    if kind == "picture":
        picture = folder / "boneage-training-dataset" / "1000.png"
        picture.write_bytes(picture.read_bytes() + b"\0")
    else:
        labels = folder / "boneage-training-dataset.csv"
        labels.write_text(labels.read_text().replace("True", "False", 1))
    with pytest.raises(PrepareError, match=f"with other {word}"):
        run(folder, tmp_path / "cohort")


def test_a_second_process_is_told_to_wait_and_the_first_is_not_disturbed(
    labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out, begun, go_on = tmp_path / "cohort", threading.Event(), threading.Event()

    def slowly(function: Callable[[list[str]], ChunkResult], chunks: list[list[str]]) -> Iterator[ChunkResult]:
        for chunk in chunks:
            begun.set()
            assert go_on.wait(30)
            yield function(chunk)

    first = threading.Thread(target=run, args=(labelled, out), kwargs={"chunk_map": slowly})
    first.start()
    begun.wait(30)
    with pytest.raises(PrepareError, match="Another process prepares"):
        run(labelled, out)
    go_on.set()
    first.join()
    assert content(out) == undisturbed


def test_interrupted_says_how_to_go_on(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Reader, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Reader, "read", interrupted)
    recipe = str(plain_recipe(tmp_path))
    assert main(["prepare", str(labelled), str(tmp_path / "cohort"), "--workers", "1", "--recipe", recipe]) == 130
    assert capsys.readouterr().err.endswith("Go on with the same command.\n")


def test_a_remote_cohort_is_complete_and_leaves_nothing_here(
    labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARPAL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Killed):
        run(labelled, "memory://bucket/prepared", chunk_map=killed_after(3))
    assert run(labelled, "memory://bucket/prepared")[0] == 3 * CHUNK
    assert not list((tmp_path / "cache").iterdir())
    there = as_path("memory://bucket/prepared")
    assert {path.name: path.read_bytes() for path in there.iterdir()} == undisturbed
    Cohort.load(there).verify()


def test_an_upload_that_was_cut_short_is_taken_up_again_and_a_complete_one_is_not(
    labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(self: MemoryFileSystem, local: str, there: str, **options: Any) -> None:
        if there.endswith("quality.parquet"):
            raise Killed
        put_file(self, local, there, **options)

    monkeypatch.setenv("CARPAL_CACHE", str(tmp_path / "cache"))
    there, put_file = as_path("memory://bucket/cut-short"), MemoryFileSystem.put_file
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", cut_short)
        with pytest.raises(Killed):
            run(labelled, str(there))
    assert {path.name for path in there.iterdir()} == {"cases.parquet", "notes.csv", "pixels.npy"}
    assert run(labelled, str(there)) == [NUM_CASES]
    assert {path.name: path.read_bytes() for path in there.iterdir()} == undisturbed
    with pytest.raises(PrepareError, match="never overwritten"):
        run(labelled, str(there))


@pytest.mark.parametrize("moment", ["before its first file", "before its marker"])
def test_a_remote_cohort_that_was_finished_meanwhile_keeps_its_marker(
    moment: str, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, put_file = as_path(f"memory://bucket/meanwhile-{moment.split()[-1]}"), MemoryFileSystem.put_file

    def finished_meanwhile(self: MemoryFileSystem, local: str, path: str, **options: Any) -> None:
        (there / "cohort.json").write_bytes(b"theirs")
        put_file(self, local, path, **options)

    def finishing(done: int) -> None:
        if done == NUM_CASES and moment == "before its first file":
            (there / "cohort.json").write_bytes(b"theirs")

    monkeypatch.setenv("CARPAL_CACHE", str(tmp_path / "cache"))
    if moment == "before its marker":
        monkeypatch.setattr(MemoryFileSystem, "put_file", finished_meanwhile)
    source = read_rsna(labelled)
    with pytest.raises(PrepareError, match=r"never overwritten|files of both"):
        prepare(source, there, Recipe(size=64), num_folds=3, test_fraction=0.1, seed=0, progress=finishing)
    assert (there / "cohort.json").read_bytes() == b"theirs"


def test_a_remote_folder_of_other_files_is_refused(labelled: Path) -> None:
    there = as_path("memory://bucket/occupied")
    (there / "cases.parquet").write_bytes(b"")
    (there / "thesis.tex").write_bytes(b"")
    with pytest.raises(PrepareError, match="not empty"):
        run(labelled, str(there))


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "archive.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(8 * MAX_BYTES)  # takes no place on the disk
    tracemalloc.start()
    try:
        (refusal,) = read_chunk(["archive.png"], folder=as_path(tmp_path), reader=Reader(Recipe(size=64)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(refusal, RadiographError)
    assert refusal.code == "too_large"
    assert peak < 2 * MAX_BYTES


def test_a_reader_crosses_process_borders(labelled: Path) -> None:
    data = (labelled / "boneage-training-dataset" / "1000.png").read_bytes()
    reader = Reader(Recipe(size=64))
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).read(data).pixels, reader.read(data).pixels)


@pytest.mark.ray
def test_a_ray_cluster_gives_the_same_bytes(labelled: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    import ray

    from preprocessing.cluster import connection, ray_map

    ray.init(**connection(None), num_cpus=2)
    try:
        run(labelled, tmp_path / "cohort", chunk_map=ray_map)
    finally:
        ray.shutdown()
    assert content(tmp_path / "cohort") == undisturbed
