"""Where Optuna keeps its record of a study: a journal beside the trials, or a database that is named by its URL.

The journal is one file on a file system, and numbered objects in an object store.
"""

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock

from preprocessing.storage import AnyPath, StorageError, as_path, create_object, is_local, read_json

FILE = "optuna.journal"
DATABASE_AWAY = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
"""What an open record in a database raises when that goes away."""


def open_storage(study: AnyPath, url: str = "") -> BaseStorage:
    """Open or create Optuna's record of a study that this process alone writes to.

    Args:
        study: The study's folder.
        url: Of a database, as SQLAlchemy writes it; empty: the journal in the folder.

    Raises:
        StorageError: The database cannot be reached, or its driver is not installed.
    """
    if not url:
        return open_journal(study)
    shown = sqlalchemy.make_url(url).render_as_string(hide_password=True)
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise StorageError(
            f"--storage {shown} needs a driver that is not installed: {error}. For PostgreSQL: "
            "pip install 'carpal[postgres]', and a URL that begins with postgresql+psycopg://"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise StorageError(f"--storage {shown} cannot be opened: {error}") from None


def open_to_look(study: AnyPath, url: str = "") -> BaseStorage:
    """Open Optuna's record beside the process that writes it: a journal refuses to be written to.

    Raises:
        StorageError: There is no journal, or the database cannot be reached.
    """
    if url:
        return open_storage(study, url)
    if not is_local(study):
        return open_journal(study)
    if not (study / FILE).exists():
        raise StorageError(f"{study / FILE} is missing. Check the path, or run the study first.")
    return _replayed(ReadOnlyJournal(str(study / FILE)), study / FILE)


def why_not_kept(error: Exception) -> str:
    """The sentence about an error for which Optuna's record or the study's folder cannot be written."""
    cause = error.__cause__ or error
    return f"The study's record cannot be kept ({type(cause).__name__}: {str(cause).partition(chr(10))[0]})."


def url_without_password(url: str) -> tuple[str, str]:
    """A database's URL as it may be written into a study's folder, a SQLite file by its absolute path.

    Returns:
        The URL, and its password or nothing; a driver also takes it from ``PGPASSWORD`` or ``~/.pgpass``.

    Raises:
        ValueError: It is no such URL.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise ValueError(f"--storage must be a URL such as postgresql+psycopg://user@host/name, got {url!r}.") from None
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ValueError(
                "--storage sqlite must name a file, as in sqlite:///optuna.db: memory ends with the driver."
            )
        parsed = parsed.set(database=str(as_path(parsed.database)))
    return parsed._replace(password=None).render_as_string(), str(parsed.password or "")


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
    return _replayed(JournalFileBackend(str(path), lock_obj=_HeldElsewhere(str(path))), path)


def _replayed(backend: JournalFileBackend, path: AnyPath) -> JournalStorage:
    try:
        return JournalStorage(backend)
    except (ValueError, TypeError, KeyError):  # Optuna's own words name neither the file nor the place
        if (broken := next((n for n, line in enumerate(_lines(path), 1) if not _is_entry(line)), None)) is None:
            raise
        raise StorageError(
            f"{path}, line {broken}: it is no entry of Optuna's journal. Restore the file from a backup; the trials "
            "beside it are not touched."
        ) from None


def _lines(path: AnyPath) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _is_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and {"op_code", "worker_id"} <= entry.keys()


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
                self._entries += read_json(path)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from a position on."""
        yield from self._entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Store entries before they count.

        Raises:
            StorageError: Another driver writes to the study; it goes on, and this one must not.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if not create_object(self._folder / f"{len(self._entries):09d}.json", json.dumps(logs).encode()):
            raise StorageError(
                f"Another process writes to the study's journal {self._folder}. End it, or let it go on by itself."
            )
        self._entries += logs


class ReadOnlyJournal(JournalFileBackend):
    """A journal that another process may be writing to; for the dashboard, which would write without the lock."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuse.

        Raises:
            PermissionError: Always.
        """
        raise PermissionError("This journal is open for reading only; the study that writes it holds the lock.")
