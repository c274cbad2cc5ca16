"""Where entries wait on this machine while the database is away: a file of lines, synced before an answer goes out.

Each process appends to a file of its own and holds its lock. A file that nobody holds was left by a process that ended:
whoever finds it takes it over. A line is whole or, torn by a kill, was never answered for.

Services of several ledgers may run on one machine, so each ledger has a folder of its own, named by its mark: what was
accepted for one of them is not for another.

    0f3a51c2d9b8/                               the ledger of this mark
        00001795391664123456789-4711.jsonl      entries of process 4711 that wait
        00001795391699123456789-4711.refused    entries that the database refused, and lines that nobody could read

What lies aside is taken over in the same way. So it is tried once more when the process has ended, by the next release
it may be, and is then in the database, or aside and counted again.
"""

import fcntl
import json
import os
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from serve.entries import Entry, from_json, to_json
from serve.ledger import Ledger

MAX_BYTES = 256 * 1024 * 1024
"""Of one process; a prediction takes 3 to 4 kB."""


_TAKEN_OVER = ("*.jsonl", "*.refused", "refused")  # the last: as releases before named what lay aside


class SpoolFullError(RuntimeError):
    """There is no room left, so nothing more may be accepted."""


class _File(NamedTuple):
    """Locked by this process as long as its handle is open."""

    path: Path
    handle: IO[bytes]


class Spool:
    """Entries in the order in which they came.

    Args:
        folder: On a local disk; made if missing, readable to its owner alone.
        max_bytes: Bound of what this process appends.
        also: Another folder to take over from.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES, *, also: Path | None = None) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._folders = [folder, also] if also else [folder]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files: list[_File] = []  # oldest first
        self._own: _File | None = None
        self._aside: _File | None = None
        self.num_set_aside = 0
        """Entries that this process has set aside, with those that lay aside before and were refused again."""
        self.adopt()

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._files)

    def is_anything_here(self) -> bool:
        """Whether anything waits in the folder, of this process or of another one."""
        return any(path.suffix == ".jsonl" for path in _files_in(self._folders))

    def num_bytes(self) -> int:
        """What waits, on disk."""
        return sum(os.fstat(file.handle.fileno()).st_size - file.handle.tell() for file in self._files)

    def adopt(self) -> None:
        """Take over what other processes left: at an update the old one ends when the new one has begun."""
        held = {file.path for file in self._files}
        found = [path for path in _files_in(self._folders) if path not in held]
        left = [_File(path, handle) for path in found if (handle := _locked(path))]
        self._files = sorted([*self._files, *left], key=lambda file: file.path.name)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries and sync them; all of them or none.

        Raises:
            SpoolFullError: They do not fit the bound, or the disk is full or cannot be written.
            ValueError: One of them holds a number that JSON does not have, such as NaN.
        """
        data = b"".join(json.dumps(to_json(entry), allow_nan=False).encode() + b"\n" for entry in entries)
        try:
            if self._own is None:
                self._own = self._new_file(".jsonl")
                self._files.append(self._own)
            if (end := os.fstat(self._own.handle.fileno()).st_size) + len(data) > self._max_bytes:
                raise SpoolFullError(f"The spool holds {end:,} bytes and may hold {self._max_bytes:,}.")
            self._append(self._own, data)
        except OSError as error:
            raise SpoolFullError(f"The spool cannot be written: {error}") from error

    def peek(self, num_entries: int) -> list[Entry]:
        """The oldest entries, which stay until `drop`; a file of which none is left is removed.

        A line that cannot be read is set aside.

        Raises:
            OSError: It cannot be; then it stays where it is.
        """
        while self._files:
            file = self._files[0]
            start = file.handle.tell()
            lines = [line for line in islice(file.handle, num_entries) if line.endswith(b"\n")]
            file.handle.seek(start)
            if entries := _readable(lines):
                return entries
            if lines:
                self._keep_aside(lines[0])
                file.handle.readline()
                continue
            file.path.unlink(missing_ok=True)
            file.handle.close()
            del self._files[0]
            if file is self._own:
                self._own = None
        return []

    def drop(self, num_entries: int) -> None:
        """Forget the oldest entries of those that `peek` gave.

        They stay on disk until all of their file is forgotten: a process that dies before hands them to the next
        one, which writes them again, and that changes nothing in the ledger.
        """
        for _ in range(num_entries):
            self._files[0].handle.readline()

    def set_aside(self, entry: Entry) -> None:
        """Keep an entry that the database refuses, for a person to look at and for the next process to try again.

        Raises:
            OSError: It cannot be kept.
        """
        self._keep_aside(json.dumps(to_json(entry)).encode() + b"\n")

    def _new_file(self, suffix: str) -> _File:
        """Made under another name, so that nobody takes it over before it is locked."""
        path = self._folder / f"{time.time_ns():020d}-{os.getpid()}{suffix}"
        made = path.with_suffix(".new")
        handle = open(made, "xb+", opener=_private)  # noqa: SIM115
        fcntl.flock(handle, fcntl.LOCK_EX)
        made.rename(path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power cut may take the name of what was synced
        finally:
            os.close(folder)
        return _File(path, handle)

    def _append(self, file: _File, data: bytes) -> None:
        descriptor = file.handle.fileno()
        end = os.fstat(descriptor).st_size
        try:
            written = os.pwrite(descriptor, data, end)
            if written < len(data):
                raise OSError(f"{written} of {len(data)} bytes were written")
            os.fsync(descriptor)
        except OSError:
            try:
                os.ftruncate(descriptor, end)
            except OSError:
                self._own = self._aside = None  # a torn line is the last of its file: what follows goes into another
            raise

    def _keep_aside(self, line: bytes) -> None:
        if self._aside is None:
            self._aside = self._new_file(".refused")
        self._append(self._aside, line)
        self.num_set_aside += 1


def spool_of(ledger: Ledger, folder: Path) -> Spool:
    """Where the entries of one ledger wait.

    Releases before had one folder for all ledgers, and their lines name none: what they left is the ledger's that lies
    beside it, as in a registry, and else for a person to tell.

    Args:
        ledger: Whose entries.
        folder: Of the spools of all ledgers.
    """
    return Spool(folder / ledger.mark, also=folder if _is_beside(ledger, folder) else None)


def num_left_before(ledger: Ledger, folder: Path) -> int:
    """Files that a release before left in the folder of all ledgers, and that the service of this one leaves alone."""
    return 0 if _is_beside(ledger, folder) else len(_files_in([folder]))


def num_waiting(folder: Path, mark: str) -> int:
    """Entries that wait, or lie aside, for the ledger of this mark; 0 where it has no folder."""
    return sum(path.read_bytes().count(b"\n") for path in _files_in([folder / mark]))


def _is_beside(ledger: Ledger, folder: Path) -> bool:
    file = ledger.database.file  # it or the folder may be a link to another disk: what counts is where they were put
    return file is not None and file.resolve() == folder.absolute().with_name("ledger.db").resolve()


def _files_in(folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders for pattern in _TAKEN_OVER for path in folder.glob(pattern)]


def _readable(lines: Sequence[bytes]) -> list[Entry]:
    """The entries before the first line that holds none."""
    entries: list[Entry] = []
    for line in lines:
        try:
            entries.append(from_json(json.loads(line)))
        except ValueError:
            break
    return entries


def _locked(path: Path) -> IO[bytes] | None:
    """Open a file for this process alone; None where another one holds it, or has just removed it."""
    try:
        handle = path.open("rb+")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
