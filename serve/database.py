"""The database under the ledger: SQLite in a file, or PostgreSQL by URL; opened, migrated, and told when it is away.

SQLite runs in WAL mode and syncs every commit, so that what was answered survives the machine's power. Its writers
take the lock when they begin (``BEGIN IMMEDIATE``): a transaction that reads first and asks for the lock later
fails at once when another one wrote in between.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import event, exc

from preprocessing.storage import as_path
from serve import logs, tables

CONNECT_TIMEOUT_S = 2
"""A database that is away is known to be within this time."""
STATEMENT_TIMEOUT_S = 5
_TCP_LIMITS = {
    "tcp_user_timeout": 1000 * STATEMENT_TIMEOUT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""Of a host that is gone without a word the kernel would hear after hours."""
_MIGRATION_LOCK = 0x43617270  # any number, the same for every process: PostgreSQL's advisory locks are numbered


class LedgerError(ValueError):
    """A ledger that cannot be used as it was named or as it was called."""


class LedgerDownError(RuntimeError):
    """The database does not do what it is asked at the moment; the same call may succeed later."""


class Database:
    """Connections to one ledger.

    Args:
        url: As SQLAlchemy writes it, such as ``sqlite:////data/ledger.db`` or ``postgresql+psycopg://user@host/name``.
        must_answer: Whether it must be there now. Else its tables are brought to the present form when it is.

    Raises:
        LedgerError: It is no such URL, its driver is missing, or a newer release has migrated it.
        LedgerDownError: It does not answer, and must.
    """

    def __init__(self, url: str, *, must_answer: bool = True) -> None:
        self.shown, self._engine = _engine(url)
        self._sqlite_writer = threading.Lock() if self._engine.dialect.name == "sqlite" else contextlib.nullcontext()
        self._migrating = threading.Lock()
        self._is_migrated = False
        try:
            self._migrate()
        except LedgerDownError:
            if must_answer:
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that reads.

        Raises:
            LedgerDownError: The database does not answer.
        """
        self._migrate()
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that commits when the block ends and leaves nothing when it raises.

        Raises:
            LedgerDownError: The database does not answer.
        """
        self._migrate()
        # threads of one process take turns here, in order; SQLite's own lock makes them poll
        with self._sqlite_writer, self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @property
    def file(self) -> Path | None:
        """Of SQLite; None where a server keeps the tables."""
        url = self._engine.url
        return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(carpal_begin=begin) as connection, connection.begin():
                yield connection
        except exc.DBAPIError as error:
            if is_away(error):
                if isinstance(error, exc.ProgrammingError):  # no such table, no right to it: or a statement is wrong
                    logs.failure(error, doing="asking the ledger")
                self._engine.dispose()  # a session may stay what it was, such as read-only: the next try has its own
                raise LedgerDownError(f"The ledger {self.shown} does not answer: {_first_line(error)}") from error
            raise
        except exc.TimeoutError as error:
            raise LedgerDownError(f"The ledger {self.shown} has no free connection: {error}") from error

    def _migrate(self) -> None:
        """Bring the tables to the present form, once; of several processes that start together, one does it."""
        if self._is_migrated:
            return
        with self._migrating:
            self._upgrade()
            self._is_migrated = True

    def _upgrade(self) -> None:
        config = Config()
        config.set_main_option("script_location", "serve:migrations")
        head = ScriptDirectory.from_config(config).get_current_head()
        with self._sqlite_writer, self._transaction("BEGIN IMMEDIATE") as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            present = _present_revision(connection)
            if present not in known | {None}:
                raise LedgerError(
                    f"The ledger {self.shown} is at step {present}, which this release does not know "
                    f"(its newest is {head}). Use the release that migrated it."
                )
            if present != head:
                command.upgrade(config, "head")


def wait_for_database(url: str, seconds: float) -> Database:
    """A database that may be away at first; it is asked every half second.

    Raises:
        LedgerError: It is no such URL, its driver is missing, or a newer release has migrated it.
        LedgerDownError: It did not answer in time.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return Database(url)
        except LedgerDownError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)


def note(connection: sa.Connection, actor: str, act: str, detail: Mapping[str, Any]) -> None:
    """Write a line of the audit trail, in the transaction of the act itself."""
    row = {"created_s": time.time(), "actor": actor, "act": act, "detail": dict(detail)}
    connection.execute(sa.insert(tables.audit), row)


def is_away(error: exc.DBAPIError) -> bool:
    """Whether the database is at fault, and not what it was given.

    A standby that takes over while it is still read-only raises an ``InternalError``, one without tables or rights a
    ``ProgrammingError``: what is at fault itself says so by a rule of a table that it breaks, or a value out of range.
    """
    return error.connection_invalidated or not isinstance(error, exc.IntegrityError | exc.DataError)


def _engine(url: str) -> tuple[str, sa.Engine]:
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        raise LedgerError(
            f"A ledger is named by a URL such as sqlite:////data/ledger.db or postgresql+psycopg://user@host/name, "
            f"got {url!a}."
        ) from None
    backend, shown = parsed.get_backend_name(), parsed.render_as_string(hide_password=True)
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise LedgerError("A SQLite ledger must be a file, as in sqlite:////data/ledger.db: memory forgets.")
        file = as_path(parsed.database)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # answers, and the secret behind pseudonyms
        file.touch(0o600)
        for path in (file, *(file.with_name(file.name + beside) for beside in ("-wal", "-shm"))):
            with contextlib.suppress(PermissionError, FileNotFoundError):  # of another user, who shares it with us
                path.chmod(0o600)
        engine = sa.create_engine(
            parsed.set(database=str(file)), connect_args={"timeout": STATEMENT_TIMEOUT_S}, hide_parameters=True
        )
        event.listen(engine, "connect", _prepare_sqlite)
    elif backend == "postgresql":
        options = f"-c statement_timeout={STATEMENT_TIMEOUT_S}s -c lock_timeout={STATEMENT_TIMEOUT_S}s"
        arguments = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": options,
            "application_name": "carpal",
            **_TCP_LIMITS,
        }
        try:
            engine = sa.create_engine(
                parsed,
                connect_args=arguments,
                hide_parameters=True,  # an error that is logged must not quote a row
                pool_pre_ping=True,
                pool_timeout=STATEMENT_TIMEOUT_S,
            )
        except (ImportError, exc.NoSuchModuleError) as error:
            raise LedgerError(
                f"The ledger {shown} needs a driver that is not installed: {error}. "
                "pip install 'carpal[postgres]', and a URL that begins with postgresql+psycopg://"
            ) from None
    else:
        raise LedgerError(f"A ledger lies in SQLite or PostgreSQL, got {shown}.")
    event.listen(engine, "begin", _begin)
    return shown, engine


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions by itself, and late
    _switch_to_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch, as soon as no other connection writes to a file that is not switched yet: SQLite does not wait there."""
    end = time.monotonic() + STATEMENT_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _begin(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(connection.get_execution_options().get("carpal_begin", "BEGIN"))


def _present_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _first_line(error: exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
