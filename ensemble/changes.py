"""The changes of a registry: numbered records, each of which only one writer can have made.

    changes/000000001.json   {"number": 1, "time": ..., "event": "publish", "version": ..., "state": {...}}

A record is created under the next number, and creating fails when the number is taken. That is a compare-and-swap on
the whole registry: whoever was slower reads what has changed and decides again. A local disk has it as a link to a
finished file, object stores as a conditional put; no lock is held, so none is left behind by a killed process. Each
record carries the state after it, so that one is read to know what points where, and a random token, by which its
writer knows it again: a put whose answer was lost may be refused when it is sent once more.
"""

import contextlib
import inspect
import json
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from ensemble.staging import sync_folder
from preprocessing.storage import AnyPath, StorageError, is_local, read_json, remote, written_beside

Change = dict[str, Any]
State = dict[str, Any]
"""``aliases``: alias to version; ``removed``: names of the folders that were taken away."""
_RECORD = re.compile(r"([0-9]{9})\.json")
_TRIES = 100
_HIDDEN = {"state", "token"}
_NAMED = {"publish": ("version",), "remove": ("version",), "alias": ("alias", "version"), "gate": ("version",)}
"""What a record of an event must name, each in a word."""
_REFUSING = ("s3", "s3a", "gs", "gcs", "memory")
"""Stores that refuse the second of two writers themselves. On most others a driver looks whether the file is there and
then writes, and both writers may have looked before one has written."""


class ChangeError(ValueError):
    """The change cannot be made, or its record is none."""


class Changes:
    """All changes below one folder, oldest first; local or at any fsspec URI."""

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder

    def state(self) -> State:
        """What holds after the last change."""
        last = self._last()
        return dict(self._read(last)["state"]) if last else {"aliases": {}, "removed": []}

    def all(self) -> list[Change]:
        """Every change, without the state that it led to.

        Raises:
            ChangeError, StorageError: A record is broken.
        """
        return [self._change(number) for number in range(1, self._last() + 1)]

    def readable(self) -> tuple[list[Change], list[str]]:
        """As `all` those whose record is whole, and a sentence for each that is not."""
        changes, faults = [], []
        for number in range(1, self._last() + 1):
            try:
                changes.append(self._change(number))
            except (ChangeError, StorageError) as error:
                faults.append(str(error))
        return changes, faults

    def make(self, decide: Callable[[State], tuple[Change, State] | None]) -> Change | None:
        """Make one change on top of whatever holds when it is made.

        Args:
            decide: From the state to the change and the state after it, or None when nothing is to be done; it
                raises where the change must not be made. Called again when somebody else was faster, also where it
                has raised: what it saw may have been half of the other's change.

        Returns:
            The change as it was recorded, or None.

        Raises:
            ChangeError: Others keep changing the registry, or the store cannot refuse a second writer.
        """
        if not is_local(self._folder):
            check_store(self._folder)
        for _ in range(_TRIES):
            last = self._last()
            state = dict(self._read(last)["state"]) if last else {"aliases": {}, "removed": []}
            try:
                decided = decide(state)
            except (ValueError, OSError):
                if self._last() == last:
                    raise
                continue
            if decided is None:
                return None
            change, state = decided
            time = datetime.now(UTC).isoformat(timespec="seconds")
            record = {"number": last + 1, "time": time, **change}
            if self._create(last + 1, {**record, "state": state}):
                return record
        raise ChangeError(f"{self._folder} was changed by others {_TRIES} times in a row. Try again.")

    def _last(self) -> int:
        if not self._folder.exists():
            return 0
        if not is_local(self._folder):
            remote(self._folder).fs.invalidate_cache()  # a listing may be remembered from before the other's change
        found = (_RECORD.fullmatch(path.name) for path in self._folder.iterdir())
        return max((int(match[1]) for match in found if match), default=0)

    def _change(self, number: int) -> Change:
        return {key: value for key, value in self._read(number).items() if key not in _HIDDEN}

    def _read(self, number: int) -> Change:
        place = self._place(number)
        record = read_json(place)
        if not _is_record(record):
            raise ChangeError(
                f"{place} is no record of a change: it must be an object with event, time, what the event names, and "
                "the state after it. Restore it from a backup."
            )
        return dict(record)

    def _place(self, number: int) -> AnyPath:
        return self._folder / f"{number:09d}.json"

    def _create(self, number: int, record: Change) -> bool:
        """Write a record that was not there; False when it is there by now."""
        data = (json.dumps(record | {"token": secrets.token_hex(8)}, indent=1) + "\n").encode()
        if is_local(self._folder):
            return _create_file(Path(str(self._place(number))), data)
        place = remote(self._place(number))
        with contextlib.suppress(FileExistsError):
            place.fs.pipe_file(place.path, data, mode="create")
        return bool(place.fs.cat_file(place.path) == data)


def check_store(folder: AnyPath) -> None:
    """Refuse a store on which two people could make one change at once.

    Raises:
        ChangeError: It, or the driver that is installed for it, is not known to refuse a second writer.
    """
    place = remote(folder)
    write = place.fs.pipe_file
    is_inherited = getattr(write, "__func__", None) is AbstractFileSystem.pipe_file
    if place.protocol not in _REFUSING:
        raise ChangeError(
            f"A registry must lie where the second of two writers is refused, got {folder}: on {place.protocol} two "
            "people could move an alias at once. Keep it on a local or shared disk, on S3 or on Google Cloud Storage."
        )
    if is_inherited or "mode" not in inspect.signature(write).parameters:
        raise ChangeError(
            f"{folder}: the installed driver of {place.protocol} ({type(place.fs).__module__}) cannot refuse the "
            "second of two writers. Install its newest release, or keep the registry on a local or shared disk."
        )


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(state := record.get("state"), dict):
        return False
    words = [record.get(name) for name in ("event", "time", *_NAMED.get(str(record.get("event")), ()))]
    is_state = isinstance(state.get("aliases"), dict) and isinstance(state.get("removed"), list)
    return is_state and all(isinstance(word, str) for word in words)


def _create_file(path: Path, data: bytes) -> bool:
    with written_beside(path, data) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:  # a disk without links, such as some network shares
            raise StorageError(f"{path.parent} must be on a disk that knows hard links: {error}.") from None
        sync_folder(path.parent)
        return True
