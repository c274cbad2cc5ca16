"""How much one gateway takes on: so many requests at a time, and of each key so many images a minute.

A place is taken before the body is read, so that memory stays bounded; who finds none is refused at once. A key's
images come out of a bucket that fills evenly and holds a minute's worth: bursts pass, a steady excess does not. What a
batch takes beyond the bucket is owed. Every gateway counts for itself.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from serve.keys import Caller
from serve.problems import Problem

MAX_IN_FLIGHT = 128
"""Requests that are read or scored at the same time; the next one gets 503 at once."""
MAX_BATCHES = 4
"""Of these, that may be batches: each holds many images in memory."""


class Limits:
    """Places and buckets; for one event loop.

    Args:
        clock: Seconds, never backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests = self._batches = 0
        self._buckets: dict[str, tuple[float, float]] = {}
        """From a key's id to the images that it may send at once, and when that was so."""

    @contextlib.contextmanager
    def place(self, caller: Caller, *, is_batch: bool = False) -> Iterator[None]:
        """A place for one request, until the block ends; the key pays for one image.

        Raises:
            Problem: There is no place, or the key's images of this minute are used up.
        """
        if self._requests >= MAX_IN_FLIGHT:
            raise Problem("overloaded", f"All {MAX_IN_FLIGHT} places are taken. Send it again in a second.")
        if is_batch and self._batches >= MAX_BATCHES:
            sentence = f"{MAX_BATCHES} batches are under way. Send it again in some seconds."
            raise Problem("overloaded", sentence, {"retry-after": "5"})
        self._pay(caller)
        self._requests += 1
        self._batches += is_batch
        try:
            yield
        finally:
            self._requests -= 1
            self._batches -= is_batch

    def owe(self, caller: Caller, images: int) -> None:
        """Take images out of the key's bucket that are let in already; it may go below empty."""
        if caller.per_minute is not None and images:
            left, then = self._buckets[caller.key_id]
            self._buckets[caller.key_id] = left - images, then

    def _pay(self, caller: Caller) -> None:
        if caller.per_minute is None:
            return
        now, full = self._clock(), float(caller.per_minute)
        left, then = self._buckets.get(caller.key_id, (full, now))
        left = min(full, left + (now - then) * full / 60)
        if left < 1:
            wait_s = math.ceil((1 - left) * 60 / full)
            raise Problem(
                "rate_limited",
                f"The key may send {caller.per_minute} images a minute, and they are used up. Wait {wait_s} s.",
                {"retry-after": str(wait_s)},
            )
        self._buckets[caller.key_id] = left - 1, now
