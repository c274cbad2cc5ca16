"""The folder in which a cohort grows: what is finished survives a kill, and only one process works on it.

.NAME.partial/job.json       what is prepared: labels, files with their sizes and times, recipe
.NAME.partial/pixels.npy     accepted pictures one behind the other; the header's count is filled in at the end
.NAME.partial/chunks.jsonl   one line a finished chunk, written when its pixels are on disk
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.recipe import Recipe
from preprocessing.sources import Source
from preprocessing.storage import AnyPath, canonical_hash, create_object, is_local, read_json, remote, write_json

PIXELS, JOB, _CHUNKS, _LOCK = "pixels.npy", "job.json", "chunks.jsonl", ".lock"


class PrepareError(ValueError):
    """The cohort cannot be written as asked."""


@dataclass
class Chunk:
    """What became of some consecutive files of a source."""

    num_files: int = 0
    kept: list[int] = field(default_factory=list)
    """Row numbers of the source's cases that have pixels."""
    hashes: list[str] = field(default_factory=list)
    """Perceptual hash of each kept picture, in hex digits."""
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    """Row number, code and sentence of each refused file."""
    findings: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Row number and the fields of a `Finding`."""


class Staging:
    """A cohort that is being written. Open it with `open_staging`, which sees to it that nobody else does."""

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self.folder, self._shape = folder, shape
        self.chunks, end = _read_chunks(folder / _CHUNKS)
        self._pixels = (folder / PIXELS).open("r+b" if (folder / PIXELS).exists() else "w+b")
        begin = _write_header(self._pixels, 0, shape)
        size = begin + int(np.prod(shape)) * sum(len(chunk.kept) for chunk in self.chunks)
        if self._pixels.seek(0, os.SEEK_END) < size:
            raise PrepareError(f"{folder} lacks pixels that it has noted down. Remove that folder to begin anew.")
        self._pixels.truncate(size)  # what came after the last note was not finished
        self._pixels.seek(size)
        self._journal = (folder / _CHUNKS).open("r+b" if (folder / _CHUNKS).exists() else "w+b")
        self._journal.truncate(end)
        self._journal.seek(end)

    def append(self, chunk: Chunk, pictures: list[np.ndarray]) -> None:
        """Keep a finished chunk: pixels first, so that its note promises nothing that is not there."""
        for pixels_VSS in pictures:
            self._pixels.write(pixels_VSS.tobytes())
        self._pixels.flush()
        os.fdatasync(self._pixels.fileno())
        self._journal.write(json.dumps(asdict(chunk), separators=(",", ":")).encode() + b"\n")
        self._journal.flush()
        self.chunks.append(chunk)

    def finish(self) -> None:
        """Make ``pixels.npy`` a valid array, without copying it."""
        _write_header(self._pixels, sum(len(chunk.kept) for chunk in self.chunks), self._shape)
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._pixels.close()
        self._journal.close()

    def publish(self, target: AnyPath, marker: str) -> None:
        """Make the finished cohort visible: at once when local, marker last otherwise.

        Raises:
            PrepareError: A remote one was finished there in the meantime; it was prepared on another machine.
        """
        private = (JOB, _CHUNKS, _LOCK)
        if is_local(target):
            if target.exists():
                target.rmdir()  # empty, checked before; a file that came in the meantime makes this fail
            self.folder.rename(target)
            for name in private:
                (target / name).unlink()
            return
        there = remote(target)
        there.fs.invalidate_cache()  # a listing may be remembered from before the other's writing
        if there.fs.exists((there / marker).path):
            raise PrepareError(
                f"{target} holds a complete cohort by now, which is never overwritten. Name a new folder."
            )
        for path in sorted(self.folder.iterdir()):
            if path.name not in (*private, marker):
                there.fs.put_file(str(path), (there / path.name).path)
        if not create_object(target / marker, (self.folder / marker).read_bytes()):
            raise PrepareError(
                f"Another machine finished a cohort at {target} during this upload, and files of both lie there. "
                "Remove it, and prepare it again on one of them."
            )
        shutil.rmtree(self.folder)


@contextmanager
def open_staging(target: AnyPath, source: Source, recipe: Recipe) -> Iterator[Staging]:
    """Begin a cohort, or go on with one that was interrupted.

    Whoever asks for something else than was begun is refused: finished work is never thrown away unasked.

    Args:
        target: Where the cohort will appear.
        source: The labelled folder; labels, and sizes and times of the pictures, must be what they were.
        recipe: How pictures are standardised.

    Raises:
        PrepareError: Another process is at it, or it was begun with another source or recipe.
    """
    folder = staging_folder(target)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however it ends
            is_same = os.path.samestat(os.fstat(lock.fileno()), (folder / _LOCK).stat())
        except OSError:
            is_same = False
        if not is_same:  # locked, or published between the two lines above
            raise PrepareError(f"Another process prepares {target}. Wait for it, or end it first.")
        job = {"labels": _labels_hash(source), "pictures": _pictures_hash(source), "recipe": recipe.hash}
        if (folder / JOB).exists():
            begun = read_json(folder / JOB)
            if other := [name for name in job if job[name] != begun.get(name)]:
                raise PrepareError(
                    f"{folder} holds the unfinished work of a preparation with other {' and other '.join(other)}. "
                    "Repeat that one to finish it, or remove that folder to begin anew."
                )
        else:
            write_json(folder / JOB, job)
        staging = Staging(folder, (len(recipe.views), recipe.size, recipe.size))
        try:
            yield staging
        finally:
            staging.close()


def staging_folder(target: AnyPath) -> Path:
    """Where a cohort grows: beside its place, or in this machine's cache when its place is remote."""
    if is_local(target):
        return Path(str(target.parent)) / f".{target.name}.partial"
    cache = Path(os.environ.get("CARPAL_CACHE", Path.home() / ".cache" / "carpal"))
    return cache / f"prepare-{hashlib.sha256(str(target).encode()).hexdigest()[:24]}.partial"


def _labels_hash(source: Source) -> str:
    return canonical_hash([str(source.folder), source.cases.to_csv(index=False)])


def _pictures_hash(source: Source) -> str:
    """Of sizes and times, which tell that a file has changed without reading it again."""
    if is_local(source.folder):
        stats = [_stat(Path(str(source.folder)) / file) for file in source.paths]
        return canonical_hash([[stat.st_size, stat.st_mtime_ns] if stat else None for stat in stats])
    there = remote(source.folder)
    listed = there.fs.find(there.path, detail=True).values()
    keys = ("name", "size", "ETag", "etag", "mtime", "LastModified", "updated")
    return canonical_hash([[str(entry.get(key)) for key in keys] for entry in listed])


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _read_chunks(path: Path) -> tuple[list[Chunk], int]:
    """Chunks noted so far, and where the last whole line ends: a kill may have torn the one behind it."""
    content = path.read_bytes() if path.exists() else b""
    end = content.rfind(b"\n") + 1
    return [Chunk(**json.loads(line)) for line in content[:end].splitlines()], end


def _write_header(file: Any, num_rows: int, shape: tuple[int, int, int]) -> int:
    """Write a header of the same length whatever the number of rows, and return that length."""
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_rows, *shape)}
    np.lib.format.write_array_header_1_0(file, header)  # pads, so that the first axis may grow in place
    return int(file.tell())
