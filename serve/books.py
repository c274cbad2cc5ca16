"""What one gateway keeps of the ledger: where to write, and the routing and the keys as they stand.

Routing and keys are read every half second, in one transaction, into one immutable value; while the database is away
the last one holds. So every gateway follows a change within a second, and no request waits for the database to know
who may ask and who answers.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request

from serve import logs
from serve.database import Database, LedgerDownError
from serve.entries import Answered, Entry
from serve.images import KeptImages
from serve.keys import ANYBODY, Caller, KeyRing, read_keys
from serve.ledger import Ledger
from serve.problems import Problem
from serve.recorder import HANG_S, Recorder, RecorderStatus
from serve.releases import read_releases
from serve.remembered import Remembered, marks_before
from serve.routing import RoutingState, current_state
from serve.spool import SpoolFullError, num_left_before, num_waiting, spool_of

FOLLOW_S = 0.5
READERS = 4
"""Readings of the ledger at a time, beside that of routing and keys."""
PATIENCE_S = 15.0
"""What only the ledger knows is waited for so long; a restart of PostgreSQL takes 1 to 10 s."""
STORE_TIMEOUT_S = 20.0
"""For an entry to be safe: the recorder gives the database less before it turns to the spool. Also for an image."""
KEEPERS = 16
"""Images that are written at a time; a store takes its time over each."""
CHAMPION = "champion"

EXPIRE_S = 3600.0
"""Images out of time are looked for this often."""
T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """What held when it was read."""

    state: RoutingState
    keys: KeyRing
    releases: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Snapshot":
        """From plain JSON values, as they are remembered."""
        return cls(RoutingState.from_dict(values["state"]), KeyRing(values["keys"]), tuple(values["releases"]))


class Books:
    """The ledger, as a gateway uses it.

    Args:
        url: Of the ledger.
        spool: Folder in which predictions wait while their database is away; each ledger has its own in it.
        is_open: Whether anybody may ask everything; else a key is needed.
        wait_s: Time to wait for a database that is away; it is not waited for where one remembers what it said.
        images: Keeps radiographs; None keeps none.

    Raises:
        LedgerError: There is no such ledger.
        LedgerDownError: It does not answer.
    """

    def __init__(
        self, url: str, spool: Path, *, is_open: bool, wait_s: float = 0.0, images: KeptImages | None = None
    ) -> None:
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)  # what is remembered holds a secret too
        self.is_open, self._images = is_open, images
        self._expire_at = 0.0
        database = Database(url, must_answer=False)
        self._remembered = Remembered(spool, database.shown)
        self._known = self._remembered.read()  # before it is written anew
        # a declared service starts its gateway and its keeper at the same time: it may be the first ever
        self.ledger, self._snapshot, outage = self._first(database, wait_s)
        self._spool = spool_of(self.ledger, spool)
        if num_files := num_left_before(self.ledger, spool):
            place = {"files": num_files, "folder": str(spool), "move_to": str(spool / self.ledger.mark)}
            logs.event("spool_files_of_no_ledger", level=logging.WARNING, **place)
        for mark in marks_before(self._known, self.ledger):
            if num_entries := num_waiting(spool, mark):
                place = {"entries": num_entries, "folder": str(spool / mark), "move_to": str(spool / self.ledger.mark)}
                logs.event("spool_entries_of_ledger_before", level=logging.WARNING, **place)
        self._recorder = Recorder(self.ledger, self._spool)
        if outage:
            self._recorder.doubt(outage)
        self._readers = ThreadPoolExecutor(READERS, "ledger-reader")  # those that hang must hold up nothing else
        self._follower = ThreadPoolExecutor(1, "ledger-follower")
        self._keepers = ThreadPoolExecutor(KEEPERS, "image-keeper")
        self._closing, self._refreshing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._thread.start()

    @property
    def state(self) -> RoutingState:
        """Who answers; one value a request, so that nobody meets half a change."""
        return self._snapshot.state

    @property
    def asleep(self) -> frozenset[str]:
        """Versions that have given their replicas back until they are asked."""
        return frozenset(row["version"] for row in self._snapshot.releases if row["status"] == "asleep")

    @property
    def image_days(self) -> float | None:
        """For how many days radiographs are kept; None where they are not."""
        return self._images.days if self._images else None

    def versions(self) -> list[dict[str, Any]]:
        """What the service holds: each version's description with its ``role``, ``status`` and, if it failed, why."""
        state, rows = self._snapshot.state, {row["version"]: row for row in self._snapshot.releases}
        order = [*state.bundles(), *(version for version in rows if version not in state.bundles())]
        return [
            {
                **_with_champion(rows[version]["description"], version == state.champion),
                "version": version,
                "role": state.role_of(version) if version in state.bundles() else None,
                "status": rows[version]["status"],
                "reason": rows[version]["reason"] or None,
            }
            for version in order
            if version in rows
        ]

    def caller(self, request: Request, *roles: str) -> Caller:
        """Whose request it is, by its header ``Authorization``.

        Args:
            request: Of it only the head is read.
            roles: One of them is enough for the path.

        Raises:
            Problem: There is no key, a wrong one, or one without such a role.
        """
        if self.is_open:
            return ANYBODY
        challenge = {"www-authenticate": "Bearer"}
        authorization = request.headers.get("authorization")
        scheme, _, token = (authorization or "").partition(" ")
        if not authorization or scheme.lower() != "bearer":
            raise Problem("key_missing", "A key is needed. Send it as Authorization: Bearer KEY.", challenge)
        if (caller := self._snapshot.keys.caller(token.strip())) is None:
            raise Problem("key_wrong", "The key is unknown or has ended. Ask for a new one.", challenge)
        if not any(caller.may(role) for role in roles):
            raise Problem("role_missing", f"The key lacks the role {' or '.join(roles)}. Use another one.")
        return caller

    async def store(self, *entries: Entry) -> None:
        """Return when what belongs together is safe, in the database or in the spool.

        An answer for which there is no room leaves no image behind. One that is merely late may yet be recorded, and
        then has its image.

        Raises:
            Problem: It is not, and cannot be at the moment.
        """
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await asyncio.wrap_future(self._recorder.record(*entries))
        except (SpoolFullError, TimeoutError) as error:
            if self._images and isinstance(error, SpoolFullError):
                for entry in entries:
                    if isinstance(entry, Answered):
                        self._remove_image(self._images, entry.id)
            sentence = "The answer cannot be recorded at the moment, so it is not given. Send the request again later."
            raise Problem("not_recorded", sentence) from None

    async def keep_image(self, prediction_id: str, data: bytes) -> None:
        """Return when the radiograph is kept, where the service was told to keep any.

        What is written after it was given up, as by a store that hangs and goes on, is removed again.

        Raises:
            Problem: It cannot be at the moment.
        """
        if (images := self._images) is None:
            return
        keeping = self._keepers.submit(images.keep, prediction_id, data)
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await asyncio.wrap_future(keeping)
        except OSError as error:  # or out of time, which is one of them
            keeping.add_done_callback(lambda _: self._remove_image(images, prediction_id))
            logs.failure(error, doing="keeping an image")
            sentence = "The image cannot be kept at the moment, as it must be. Send the request again later."
            raise Problem("not_recorded", sentence) from None

    async def look_up(self, read: Callable[..., T], *arguments: Any) -> T:
        """What the ledger says now, or what it makes of a change; a database that hangs is away, as for the recorder.

        The wait for other readings is none for the database: long lists that others read must not make it away.

        Raises:
            LedgerDownError: It does not answer, or other readings take up all the time.
        """
        if not self._recorder.is_up:  # it finds out; readers that hang would take all threads
            raise LedgerDownError(f"The ledger {self.ledger.database.shown} is away.")
        loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

        def begin() -> T:
            loop.call_soon_threadsafe(has_begun.set)
            return read(*arguments)

        reading = loop.run_in_executor(self._readers, begin)
        try:
            async with asyncio.timeout(HANG_S):
                await has_begun.wait()
            async with asyncio.timeout(HANG_S):
                return await reading
        except TimeoutError:
            if not has_begun.is_set():
                reading.cancel()
                raise LedgerDownError(f"Other readings have taken {HANG_S:g} s.") from None
            self._recorder.doubt(error := LedgerDownError(f"It has not answered for {HANG_S:g} s."))
            raise error from None

    async def ask(self, read: Callable[..., T], *arguments: Any) -> T:
        """What the ledger says, when it is there: a database that restarts is waited for.

        Raises:
            LedgerDownError: It stays away.
        """
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await self.look_up(read, *arguments)
            except LedgerDownError:
                if time.monotonic() >= end:
                    raise
            await asyncio.sleep(FOLLOW_S)

    def status(self) -> RecorderStatus:
        """Whether the database is there, and what waits for it."""
        return self._recorder.status()

    def is_catching_up(self) -> bool:
        """Whether entries of this gateway, or of another one on this machine, wait for the database."""
        return self._spool.is_anything_here()

    def refresh(self) -> None:
        """Read routing and keys now, after a change of one's own."""
        with self._refreshing:  # or what was read before a change might take the place of what was read after it
            self._snapshot = self._read()

    def close(self) -> None:
        """Record what was accepted, and stop."""
        self._closing.set()
        self._recorder.close()
        self._thread.join()
        self._follower.shutdown(wait=False)
        self._readers.shutdown(wait=False)
        self._keepers.shutdown(wait=False)
        self.ledger.database.close()

    def _first(self, database: Database, wait_s: float) -> tuple[Ledger, Snapshot, LedgerDownError | None]:
        """From the database, else as it is remembered, with why, else from the database when it answers."""
        end = time.monotonic() + wait_s
        while True:
            try:
                self.ledger = Ledger(database)
                return self.ledger, self._read(), None
            except LedgerDownError as error:
                if remembered := self._remembered.read():
                    logs.event("ledger_away_at_start", level=logging.WARNING)
                    return Ledger(database, remembered["pepper"]), Snapshot.of(remembered), error
                if time.monotonic() > end:
                    raise
            time.sleep(FOLLOW_S)

    def _read(self) -> Snapshot:
        with self.ledger.database.read() as connection:
            state = current_state(connection)
            if state is None:
                raise LedgerDownError(f"The ledger {self.ledger.database.shown} knows no champion yet.")
            read = {"state": state.to_dict(), "keys": read_keys(connection), "releases": read_releases(connection)}
        before = marks_before(self._known, self.ledger)
        self._remembered.write({**read, "pepper": self.ledger.pepper, "before": before})
        return Snapshot.of(read)

    def _remove_image(self, images: KeptImages, prediction_id: str) -> None:
        def remove() -> None:
            try:
                images.remove(prediction_id)
            except OSError as error:
                logs.failure(error, doing="removing the image of a request that was refused")

        # a thread of its own: the store may take its time, and the keepers may be busy or closed
        threading.Thread(target=remove, daemon=True).start()

    def _expire_images(self, images: KeptImages) -> None:
        try:
            if gone := images.expire():
                logs.event("images_expired", days=gone)
        except Exception as error:  # looked for again in an hour
            logs.failure(error, doing="removing images whose time is over")

    def _follow(self) -> None:
        reading: Future[None] | None = None
        while not self._closing.wait(FOLLOW_S):
            if self._images and time.monotonic() > self._expire_at:
                self._expire_at = time.monotonic() + EXPIRE_S
                # beside: a store that takes its time must not keep a key open that has ended
                threading.Thread(target=self._expire_images, args=(self._images,), daemon=True).start()
            reading = reading or self._follower.submit(self.refresh)
            if not wait([reading], HANG_S).done:
                self._recorder.doubt(LedgerDownError(f"It has not answered for {HANG_S:g} s."))
                continue  # with the same reading: it ends when the database goes on
            error, reading = reading.exception(), None
            if isinstance(error, LedgerDownError):
                self._recorder.doubt(error)  # which says so, and finds out when it is back
            elif error:  # the next reading may succeed: else the gateway answers by an old state for ever
                logs.failure(error, doing="reading routing and keys")


def _with_champion(description: dict[str, Any], is_champion: bool) -> dict[str, Any]:
    """The aliases were read when the version was loaded, and the champion has changed since."""
    others = [alias for alias in description.get("aliases", []) if alias != CHAMPION]
    return {**description, "aliases": sorted([*others, CHAMPION] if is_champion else others)}
