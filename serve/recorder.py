"""Puts entries into the ledger before they are answered, and into the spool while the database is away.

One thread writes. What arrives while a transaction commits goes into the next one together, so that a disk's sync is
paid once a batch and not once a prediction.
"""

import logging
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from serve import logs
from serve.database import LedgerDownError
from serve.entries import Entry
from serve.ledger import Ledger
from serve.spool import Spool, SpoolFullError

MAX_BATCH = 256
"""Entries of one transaction."""
RETRY_S = 1.0
"""A database that is away is asked again after this time."""


@dataclass(frozen=True)
class RecorderStatus:
    """What ``/readyz`` tells."""

    is_up: bool
    """Whether entries go straight into the database."""
    spooled_bytes: int
    refused: int
    """Spooled entries that the database refused and that lie aside; 0 unless something is wrong with this program."""


class Recorder:
    """Records entries until it is closed.

    Args:
        ledger: Where they go.
        spool: Where they wait.
    """

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self._ledger, self._spool = ledger, spool
        self._waiting: deque[tuple[Entry, Future[None]]] = deque()
        self._wake = threading.Condition()
        self._is_up = True
        self._is_closing = False
        self._doubt: LedgerDownError | None = None
        self._refused = 0
        self._tell()
        self._prober = ThreadPoolExecutor(1, "ledger-probe")  # a database that hangs must not hold up the spool
        self._probe: Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def record(self, entry: Entry) -> "Future[None]":
        """Record an entry; the future is done when it is safe.

        Its errors are `SpoolFullError`, when the database is away and the spool full, and whatever the database says
        about an entry that it refuses.
        """
        future: Future[None] = Future()
        with self._wake:
            if self._is_closing:
                future.set_exception(SpoolFullError("The recorder is closed."))
                return future
            self._waiting.append((entry, future))
            self._wake.notify()
        return future

    def doubt(self, error: LedgerDownError) -> None:
        """Take the database for away until it answers: whoever reads from it may find out first."""
        with self._wake:
            if self._is_up:
                self._doubt = error
                self._wake.notify()

    def status(self) -> RecorderStatus:
        """Whether the database is there, and what waits for it."""
        return self._status

    def close(self) -> None:
        """Record what was accepted, then stop; what is spooled stays for the next process."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()
        self._prober.shutdown(wait=False)

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._waiting and not self._is_closing and not self._doubt:
                    # while something is spooled there is work without anybody's call
                    self._wake.wait(None if self._is_up and not self._spool else (0.0 if self._is_up else RETRY_S))
                doubt, self._doubt = self._doubt, None
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                if not batch and self._is_closing:
                    return
            if doubt:
                self._away(doubt)
            if batch:
                self._store(batch)
            if not self._is_up:
                self._ask_again()
            elif self._spool:
                self._replay()

    def _store(self, batch: list[tuple[Entry, "Future[None]"]]) -> None:
        if self._is_up and not self._spool:
            try:
                self._ledger.write([entry for entry, _ in batch])
            except LedgerDownError as error:
                self._away(error)
            except Exception:  # one entry of them is at fault: the others must not suffer
                for entry, future in batch:
                    self._store_alone(entry, future)
                return
            else:
                _done(batch)
                return
        try:
            self._spool.append([entry for entry, _ in batch])
        except SpoolFullError as error:
            for _, future in batch:
                future.set_exception(error)
        else:
            self._tell()
            _done(batch)

    def _store_alone(self, entry: Entry, future: "Future[None]") -> None:
        try:
            self._ledger.write([entry])
        except LedgerDownError as error:
            self._away(error)
            try:
                self._spool.append([entry])
            except SpoolFullError as full:
                future.set_exception(full)
            else:
                future.set_result(None)
        except Exception as error:  # handed to whoever asked, who answers 500
            future.set_exception(error)
        else:
            future.set_result(None)

    def _ask_again(self) -> None:
        if self._probe is None:
            self._probe = self._prober.submit(self._ledger.write, [])
        elif self._probe.done():
            self._is_up = self._probe.exception() is None
            self._probe = None
            self._tell()

    def _replay(self) -> None:
        """Bring one batch from the spool into the database; what arrives meanwhile queues behind it."""
        entries = self._spool.peek(MAX_BATCH)
        try:
            self._ledger.write(entries)
        except LedgerDownError as error:
            self._away(error)
            return
        except Exception:
            for entry in entries:
                try:
                    self._ledger.write([entry])
                except LedgerDownError as error:
                    self._away(error)
                    return
                except Exception as error:
                    self._refused += 1
                    self._spool.set_aside(entry)
                    logs.failure(error, doing="replaying the spool: the entry was set aside")
        self._spool.drop(len(entries))
        if not self._spool.peek(1):
            logs.event("ledger_complete", level=logging.WARNING)
        self._tell()

    def _away(self, error: LedgerDownError) -> None:
        self._is_up = False
        self._tell()
        logs.event("ledger_away", level=logging.WARNING, why=str(error))

    def _tell(self) -> None:
        self._status = RecorderStatus(self._is_up and not self._spool, self._spool.num_bytes(), self._refused)


def _done(batch: list[tuple[Entry, Any]]) -> None:
    for _, future in batch:
        future.set_result(None)
