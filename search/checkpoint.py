"""The state of a fold in training, so that a killed worker goes on where it was.

trials/0007/fold_0.checkpoint     the whole training state at a step; removed when the fold is finished
trials/0007/fold_0.attempt.json   which step a running worker began at; still there when it was killed

Both name what they belong to. A file that is damaged, or of another configuration or cohort, is left aside, and said.
"""

import hashlib
import io
import time
from typing import Any

import torch

from preprocessing.storage import AnyPath, is_local, read_json, write_atomic, write_json

FORMAT = b"carpal-checkpoint-1"
SECONDS = 60.0
"""Longest time between two checkpoints, where writing one takes less than a twentieth of it."""
SHARE = 0.05
"""Share of the time that may go into writing checkpoints: large networks on slow disks get fewer of them."""
DEATHS = 2
"""Workers killed at one and the same checkpoint that are taken for a lack of memory: the system gives no reason. Once
the batches are in smaller parts there, each further one is."""


class FoldCheckpoint:
    """Writes and reads the checkpoint of one fold."""

    def __init__(self, path: AnyPath, key: str = "") -> None:
        """Nothing is read or written yet.

        Args:
            path: The checkpoint's file; its attempt lies beside it.
            key: Hash of all that the training depends on; not needed to `remove` it.
        """
        self._path, self._key = path, key
        self._attempt = path.with_name(f"{path.name.removesuffix('.checkpoint')}.attempt.json")
        self._written, self._cost = time.monotonic(), 0.0
        self._step = 0

    def load(self, device: str) -> tuple[dict[str, Any] | None, str]:
        """The state, or None with a sentence on why there is one that cannot be used (empty: there is none)."""
        if not self._path.exists():
            return None, ""
        head, _, payload = self._path.read_bytes().partition(b"\n")
        said_format, key, digest = [*head.split(b" "), b"", b""][:3]
        if said_format != FORMAT or digest.decode(errors="replace") != hashlib.sha256(payload).hexdigest():
            return None, f"{self._path.name} is damaged; the fold begins anew."
        if key.decode() != self._key:
            return None, f"{self._path.name} belongs to another configuration or cohort; the fold begins anew."
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True), ""

    def save(self, state: dict[str, Any], step: int, parts: int) -> None:
        """Replace the checkpoint; a reader sees the old one or the new one."""
        start = time.monotonic()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        head = b" ".join([FORMAT, self._key.encode(), hashlib.sha256(payload).hexdigest().encode()])
        write_atomic(self._path, b"\n".join([head, payload]))
        self._step = step
        self._write_attempt(deaths=0, parts=parts)
        self._written = time.monotonic()
        self._cost = self._written - start

    def is_wanted(self, *, is_measured: bool) -> bool:
        """Whether to write one now: after a measurement, or when the last one is old, and never for too much time."""
        age = time.monotonic() - self._written
        return age >= self._cost / SHARE and (is_measured or age > SECONDS)

    def begin(self, step: int, parts: int) -> tuple[int, bool]:
        """Note that a worker begins at a step.

        Args:
            step: Of the checkpoint it goes on from, 0 without one.
            parts: In which its batches would pass.

        Returns:
            Parts that the attempt before had come down to, if more; and whether workers were killed here so often
            that they should be more still.
        """
        deaths, enough, self._step = 0, DEATHS, step
        if self._attempt.exists():
            before = read_json(self._attempt)
            if before["key"] == self._key and before["step"] == step:
                deaths, parts = before["deaths"] + 1, max(parts, before["parts"])
                enough = 1 if before.get("narrowed") else DEATHS
        self._write_attempt(deaths=deaths % enough, parts=parts, narrowed=enough == 1)
        return parts, deaths >= enough

    def narrow(self, parts: int) -> None:
        """Note that the parts are more now, so that the next attempt need not find it out again."""
        self._write_attempt(deaths=0, parts=parts, narrowed=True)

    def end(self) -> None:
        """Note that the worker ends by its own will: finished, stopped or failed, but not killed."""
        self._attempt.unlink(missing_ok=True)

    def remove(self) -> None:
        """Leave nothing behind, nor what a write left that was cut short."""
        leftovers = self._path.parent.glob(f".{self._path.name}.*") if is_local(self._path) else []
        for path in (self._path, self._attempt, *leftovers):
            path.unlink(missing_ok=True)

    def _write_attempt(self, *, deaths: int, parts: int, narrowed: bool = False) -> None:
        about = {"key": self._key, "step": self._step, "deaths": deaths, "parts": parts, "narrowed": narrowed}
        write_json(self._attempt, about)
