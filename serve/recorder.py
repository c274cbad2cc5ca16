"""Puts entries into the ledger before they are answered, and into the spool while the database is away.

One thread decides, and another one asks the database: it may hang instead of refusing, as behind a cable that is cut.
What arrives while a transaction commits goes into the next one together, so that a disk's sync is paid once a batch and
not once a prediction.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, replace

from serve import logs
from serve.database import LedgerDownError
from serve.entries import Entry
from serve.ledger import Ledger
from serve.spool import Spool, SpoolFullError

MAX_BATCH = 256
"""Answers of one transaction, each with what belongs to it."""
RETRY_S = 1.0
"""A database that is away is asked again after this time."""
HANG_S = 8.0
"""A database that has not answered for so long is away; its own limits are shorter."""
FULL_S = 10.0
"""A spool counts as full so long after it refused an entry."""
ADOPT_S = 10.0
"""What other processes left in the spool is looked for this often."""


@dataclass(frozen=True)
class RecorderStatus:
    """What ``/readyz`` tells."""

    is_up: bool
    """Whether entries go straight into the database."""
    spooled_bytes: int
    refused: int
    """Spooled entries that the database refused and that lie aside; 0 unless something is wrong with this program."""
    is_full: bool = False
    """Whether an entry found no room in the spool a moment ago: what is asked now will be refused."""


class Recorder:
    """Records entries until it is closed.

    Args:
        ledger: Where they go.
        spool: Where they wait.
    """

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self._ledger, self._spool = ledger, spool
        self._waiting: deque[_Given] = deque()
        self._wake = threading.Condition()
        self._is_up = True
        self._is_closing = False
        self._full_until = 0.0
        self._doubt: LedgerDownError | None = None
        self._adopt_at = time.monotonic() + ADOPT_S
        self._tell()
        self._writer = ThreadPoolExecutor(1, "ledger-writer")
        self._probe: Future[None] | None = None
        """What the writer does while the database is taken for away."""
        self._late: list[Entry] = []
        """The oldest entries of the spool, where the probe is to write them."""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def record(self, *entries: Entry) -> "Future[None]":
        """Record what belongs together, all of it or nothing; the future is done when it is safe.

        Its errors are `SpoolFullError`, when the database is away and the spool full, and whatever the database says
        about an entry that it refuses.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # a caller that goes away must not take it back: it will be set
        with self._wake:
            if self._is_closing:
                future.set_exception(SpoolFullError("The recorder is closed."))
                return future
            self._waiting.append((entries, future))
            self._wake.notify()
        return future

    def doubt(self, error: LedgerDownError) -> None:
        """Take the database for away until it answers: whoever reads from it may find out first."""
        with self._wake:
            if self._is_up:
                self._doubt = error
                self._wake.notify()

    @property
    def is_up(self) -> bool:
        """Whether the database answered when it was last asked; entries may still wait for it."""
        return self._is_up

    def status(self) -> RecorderStatus:
        """Whether the database is there, and what waits for it."""
        return replace(self._status, is_full=time.monotonic() < self._full_until)

    def close(self) -> None:
        """Record what was accepted, then stop; what is spooled stays for the next process."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()
        self._writer.shutdown(wait=False)

    def _run(self) -> None:
        while True:
            doubt, batch = self._next()
            if not batch and self._is_closing:
                return
            try:
                self._work(doubt, batch)
            except Exception as error:  # the thread must live: every answer waits for it
                logs.failure(error, doing="recording")
                _failed(batch, error)
                time.sleep(RETRY_S)

    def _next(self) -> tuple[LedgerDownError | None, list["_Given"]]:
        """Wait until there is something to do."""
        with self._wake:
            if not self._waiting and not self._is_closing and not self._doubt:
                # while something is spooled there is work without anybody's call
                self._wake.wait((0.0 if self._spool else ADOPT_S) if self._is_up else RETRY_S)
            doubt, self._doubt = self._doubt, None
            return doubt, [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]

    def _work(self, doubt: LedgerDownError | None, batch: list["_Given"]) -> None:
        if doubt:
            self._away(doubt)
        if batch:
            self._store(batch)
        if time.monotonic() > self._adopt_at:
            self._adopt_at = time.monotonic() + ADOPT_S
            self._spool.adopt()
            self._tell()
        if not self._is_up:
            self._ask_again()
        elif self._spool:
            self._replay()

    def _store(self, batch: list["_Given"]) -> None:
        if self._is_up and not self._spool:
            try:
                self._write(_entries(batch), lambda: _done(batch))
                return
            except LedgerDownError as error:
                self._away(error)
            except Exception:  # one entry of them is at fault: the others must not suffer
                for given in batch:
                    self._store_alone(given)
                return
        self._put_by(batch)

    def _store_alone(self, given: "_Given") -> None:
        if not self._is_up:
            self._put_by([given])
            return
        try:
            self._write(given[0], lambda: _done([given]))
        except LedgerDownError as error:
            self._away(error)
            self._put_by([given])
        except Exception as error:  # handed to whoever asked, who answers 500
            _failed([given], error)

    def _put_by(self, batch: list["_Given"]) -> None:
        """Into the spool."""
        try:
            self._spool.append(_entries(batch))
        except SpoolFullError as error:
            self._full_until = time.monotonic() + FULL_S
            _failed(batch, error)
        except Exception as error:  # one entry of them is at fault, by a NaN, say: the others must not suffer
            if len(batch) == 1:
                _failed(batch, error)
            else:
                for given in batch:
                    self._put_by([given])
        else:
            _done(batch)
        self._tell()

    def _write(self, entries: Sequence[Entry], tell: Callable[[], None] = lambda: None) -> None:
        """Write into the database; one that hangs is away, and says when it is back by what it was to write.

        What it writes late was spooled meanwhile and comes again, which changes nothing.

        Args:
            entries: To be written together.
            tell: Tells who waits, in the writer's own thread: a change of threads less before the answer goes out.
        """

        def write() -> None:
            self._ledger.write(entries)
            tell()

        writing = self._writer.submit(write)
        try:
            writing.result(HANG_S)
        except TimeoutError:
            if writing.done():
                raise  # the write's own
            self._probe = writing
            raise LedgerDownError(f"The ledger has not answered for {HANG_S:g} s.") from None

    def _ask_again(self) -> None:
        if self._probe is None:
            self._probe = self._writer.submit(self._ledger.try_writing)
        elif self._probe.done():
            self._is_up = self._probe.exception() is None
            if self._is_up and self._late and self._spool.peek(len(self._late)) == self._late:
                self._spool.drop(len(self._late))  # or a slow database would be given the same ones for ever
            self._probe, self._late = None, []
            self._full_until = 0.0 if self._is_up else self._full_until
            self._tell()

    def _replay(self) -> None:
        """Bring one batch from the spool into the database; what arrives meanwhile queues behind it."""
        entries = self._spool.peek(MAX_BATCH)
        try:
            self._write(entries)
        except LedgerDownError as error:
            self._late = entries if self._probe else []
            self._away(error)
            return
        except Exception:
            self._replay_alone(entries)
            return
        self._spool.drop(len(entries))
        if not self._spool.peek(1):
            logs.event("ledger_complete", level=logging.WARNING)
        self._tell()

    def _replay_alone(self, entries: Sequence[Entry]) -> None:
        """One of them is at fault, and lies aside afterwards."""
        for entry in entries:
            try:
                self._write([entry])
            except LedgerDownError as error:
                self._late = [entry] if self._probe else []
                self._away(error)
                return
            except Exception as error:
                self._spool.set_aside(entry)
                logs.failure(error, doing="replaying the spool: the entry was set aside")
            self._spool.drop(1)
        self._tell()

    def _away(self, error: LedgerDownError) -> None:
        self._is_up = False
        self._tell()
        logs.event("ledger_away", level=logging.WARNING, why=str(error))

    def _tell(self) -> None:
        waits = self._spool.num_bytes()
        self._status = RecorderStatus(self._is_up and not self._spool, waits, self._spool.num_set_aside)


_Given = tuple[tuple[Entry, ...], "Future[None]"]
"""What belongs together, and who waits for it."""


def _entries(batch: list[_Given]) -> list[Entry]:
    return [entry for entries, _ in batch for entry in entries]


def _done(batch: list[_Given]) -> None:
    for _, future in batch:
        with contextlib.suppress(InvalidStateError):  # what is written late was told when it was spooled
            future.set_result(None)


def _failed(batch: list[_Given], error: Exception) -> None:
    for _, future in batch:
        with contextlib.suppress(InvalidStateError):
            future.set_exception(error)
