"""Optuna's journal where the study lies: one file on a file system, numbered objects in an object store."""

import json
from collections.abc import Iterator
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock

from preprocessing.storage import AnyPath, is_local

FILE = "optuna.journal"


def open_journal(study: AnyPath) -> JournalStorage:
    """Open or create the journal of a study that this process alone writes to.

    A line that a killed writer left unfinished is cut off first: Optuna would append to it and lose both.
    """
    if not is_local(study):
        return JournalStorage(ObjectJournal(study / FILE))
    path = study / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with path.open("rb+") as file:
                file.truncate(content.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_HeldElsewhere(str(path))))


class _HeldElsewhere(JournalFileOpenLock):
    """The driver holds the lock of the whole study, and a kill releases it; Optuna's own file would stay behind."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class ObjectJournal(BaseJournalBackend):
    """Journal for storage that cannot append: each batch of entries is one object, named by its position."""

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder
        self._entries: list[dict[str, Any]] = []
        if folder.exists():
            for path in sorted(folder.iterdir(), key=str):
                self._entries += json.loads(path.read_bytes())

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from a position on."""
        yield from self._entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Store entries before they count."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{len(self._entries):09d}.json").write_bytes(json.dumps(logs).encode())
        self._entries += logs
