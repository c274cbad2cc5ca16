"""What one gateway keeps of the ledger: where to write, and the routing and the keys as they stand.

Routing and keys are read every half second, in one transaction, into one immutable value; while the database is away
the last one holds. So every gateway follows a change within a second, and no request waits for the database to know
who may ask and who answers.
"""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from serve.database import Database, LedgerDownError
from serve.keys import ANYBODY, Caller, KeyRing, read_keys
from serve.ledger import Entry, Ledger
from serve.problems import Problem
from serve.recorder import Recorder, RecorderStatus
from serve.routing import RoutingState, current_state
from serve.spool import Spool, SpoolFullError

FOLLOW_S = 0.5

_logger = logging.getLogger("carpal.serve")


@dataclass(frozen=True)
class Snapshot:
    """What held when it was read."""

    state: RoutingState
    keys: KeyRing


class Books:
    """The ledger, as a gateway uses it.

    Args:
        url: Of the ledger.
        spool: Folder for predictions while the database is away.
        is_open: Whether anybody may ask everything; else a key is needed.
        wait_s: Time to wait for a database that is away, since a gateway may be started again just then.

    Raises:
        LedgerError: There is no such ledger.
        LedgerDownError: It does not answer.
    """

    def __init__(self, url: str, spool: Path, *, is_open: bool, wait_s: float = 0.0) -> None:
        self._is_open = is_open
        self.ledger = _open_ledger(url, wait_s)
        self._recorder = Recorder(self.ledger, Spool(spool))
        self._snapshot = self._read()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._thread.start()

    @property
    def state(self) -> RoutingState:
        """Who answers; one value a request, so that nobody meets half a change."""
        return self._snapshot.state

    def caller(self, authorization: str | None, role: str) -> Caller:
        """Whose request it is.

        Args:
            authorization: The header of that name.
            role: That the path asks for.

        Raises:
            Problem: There is no key, a wrong one, or one without the role.
        """
        if self._is_open:
            return ANYBODY
        challenge = {"www-authenticate": "Bearer"}
        scheme, _, token = (authorization or "").partition(" ")
        if not authorization or scheme.lower() != "bearer":
            raise Problem("key_missing", "A key is needed. Send it as Authorization: Bearer KEY.", challenge)
        if (caller := self._snapshot.keys.caller(token.strip())) is None:
            raise Problem("key_wrong", "The key is unknown or has ended. Ask for a new one.", challenge)
        if not caller.may(role):
            raise Problem("role_missing", f"The key lacks the role {role}. Use another one.")
        return caller

    async def store(self, entry: Entry) -> None:
        """Return when the entry is safe, in the database or in the spool.

        Raises:
            Problem: It is not, and cannot be at the moment.
        """
        try:
            await asyncio.wrap_future(self._recorder.record(entry))
        except SpoolFullError:
            sentence = "The answer cannot be recorded at the moment, so it is not given. Send the request again later."
            raise Problem("not_recorded", sentence) from None

    def status(self) -> RecorderStatus:
        """Whether the database is there, and what waits for it."""
        return self._recorder.status()

    def refresh(self) -> None:
        """Read routing and keys now, after a change of one's own."""
        self._snapshot = self._read()

    def close(self) -> None:
        """Record what was accepted, and stop."""
        self._closing.set()
        self._recorder.close()
        self._thread.join()
        self.ledger.database.close()

    def _read(self) -> Snapshot:
        with self.ledger.database.read() as connection:
            state = current_state(connection)
            assert state is not None, "the service begins the routing before it starts a gateway"
            return Snapshot(state, KeyRing(read_keys(connection)))

    def _follow(self) -> None:
        while not self._closing.wait(FOLLOW_S):
            try:
                self._snapshot = self._read()
            except LedgerDownError:
                continue  # the recorder says so
            except Exception:  # the thread must live: a gateway that stops following answers by an old state for ever
                _logger.exception("routing and keys cannot be read")


def _open_ledger(url: str, wait_s: float) -> Ledger:
    end = time.monotonic() + wait_s
    while True:
        try:
            return Ledger(Database(url))
        except LedgerDownError:
            if time.monotonic() > end:
                raise
            time.sleep(FOLLOW_S)
