"""Where entries wait on this machine while the database is away: a file of lines, synced before an answer goes out.

Each process appends to a file of its own and holds its lock; a file that nobody holds was left by a process that
died, and whoever starts next takes it over. A line is whole or, torn by a kill, was never answered for.
"""

import fcntl
import json
import os
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import IO

from serve.entries import Entry, from_json, to_json

MAX_BYTES = 256 * 1024 * 1024
"""Of one process; a prediction takes 3 to 4 kB."""


class SpoolFullError(RuntimeError):
    """There is no room left, so nothing more may be accepted."""


class Spool:
    """Entries in the order in which they came.

    Args:
        folder: On a local disk; made if missing, readable to its owner alone.
        max_bytes: Bound of what this process appends.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files: list[IO[bytes]] = []  # oldest first
        for path in sorted(folder.glob("*.jsonl")):
            if file := _lock(path):
                self._files.append(file)
        self._own: IO[bytes] | None = None

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._files)

    def num_bytes(self) -> int:
        """What waits, on disk."""
        return sum(os.fstat(file.fileno()).st_size - file.tell() for file in self._files)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries and sync them; all of them or none.

        Raises:
            SpoolFullError: They do not fit the bound, or the disk is full.
        """
        data = b"".join(json.dumps(to_json(entry), allow_nan=False).encode() + b"\n" for entry in entries)
        if self._own is None:
            path = self._folder / f"{time.time_ns():020d}-{os.getpid()}.jsonl"
            file = _lock(path, create=True)
            assert file is not None, "nobody else makes a file of this name"
            self._own = file
            self._files.append(file)
        end = os.fstat(self._own.fileno()).st_size
        if end + len(data) > self._max_bytes:
            raise SpoolFullError(f"The spool holds {end:,} bytes and may hold {self._max_bytes:,}.")
        try:
            written = os.pwrite(self._own.fileno(), data, end)
            if written < len(data):
                raise OSError(f"{written} of {len(data)} bytes were written")
            os.fsync(self._own.fileno())
        except OSError as error:
            os.ftruncate(self._own.fileno(), end)
            raise SpoolFullError(f"The spool cannot be written: {error}") from error

    def peek(self, num_entries: int) -> list[Entry]:
        """The oldest entries, which stay until `drop`; a file of which none is left is removed."""
        while self._files:
            file = self._files[0]
            start = file.tell()
            lines = [line for line in islice(file, num_entries) if line.endswith(b"\n")]
            file.seek(start)
            if lines:
                return [from_json(json.loads(line)) for line in lines]
            Path(file.name).unlink(missing_ok=True)
            file.close()
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
            self._files[0].readline()

    def set_aside(self, entry: Entry) -> None:
        """Keep an entry that the database refuses in the file ``refused``, for a person to look at."""
        with (self._folder / "refused").open("ab") as file:  # the folder is its owner's alone
            file.write(json.dumps(to_json(entry)).encode() + b"\n")


def _lock(path: Path, *, create: bool = False) -> IO[bytes] | None:
    """Open a file for this process alone; None where another one holds it, or has just removed it."""
    flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, flags, 0o600))  # noqa: SIM115
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # lasts as long as the file is open
    except BlockingIOError:
        file.close()
        return None
    return file
