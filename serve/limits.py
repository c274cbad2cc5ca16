"""How much one gateway takes on: so many requests at a time, and of each key so many images a minute.

A place is taken before the body is read, so that memory stays bounded; who finds none is refused at once, and so is who
announces more bytes than all requests together may hold. While many wait there are only as many places as were answered
of late in the time that a caller may wait (Little's law): a queue that grows serves nobody, since its answers come when
they are given up. A key's images come out of a bucket that fills evenly and holds a minute's worth: bursts pass, a
steady excess does not. What a batch takes beyond the bucket is owed. Every gateway counts for itself.
"""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator

from serve.keys import Caller
from serve.problems import Problem

MAX_IN_FLIGHT = 128
"""Requests that are read or scored at the same time; the next one gets 503 at once."""
FEW = 32
"""Two batches of the ensemble, one computed and one decoded: so many are always let in, however slowly they are
answered, since with fewer one of the two would idle."""
MANY = FEW // 2
"""From so many on many wait; less than `FEW`, so that those who are always let in do not end it by turns."""
AT_FIRST = 64
"""So many are let in before it is known how fast they are answered: four batches."""
WAIT_S = 3.0
"""That an answer may be waited for while many wait."""
WINDOW_S = 3.0
"""Over which the answers are counted."""
MAX_BATCHES = 4
"""Of these, that may be batches: each holds many images in memory."""
MAX_HELD_BYTES = 1024 * 1024 * 1024
"""Of the bodies of all requests under way, as they were announced."""
FULL_HEADER = "x-carpal-full"
"""Of a refusal for want of a place: HAProxy, if there is one, refuses by itself for a moment (`serve.transport`)."""


class Limits:
    """Places and buckets; for one event loop.

    Args:
        clock: Seconds, never backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests = self._batches = self._bytes = 0
        self._many_since = math.inf
        """Since when there have been `MANY` requests or more."""
        self._answered: deque[float] = deque()
        """When, within the window."""
        self._buckets: dict[str, tuple[float, float]] = {}
        """From a key's id to the images that it may send at once, and when that was so."""

    @contextlib.contextmanager
    def place(self, caller: Caller, num_bytes: int = 0, *, is_batch: bool = False) -> Iterator[None]:
        """A place for one request, until the block ends; the key pays for one image.

        Args:
            caller: Whose key pays.
            num_bytes: Of its body, as announced.
            is_batch: Whether it holds several images.

        Raises:
            Problem: There is no place, or the key's images of this minute are used up.
        """
        if self._requests >= (places := self._places()):
            sentence = f"All {places} places are taken. Send it again in a second."
            raise Problem("overloaded", sentence, {FULL_HEADER: "1"})
        if is_batch and self._batches >= MAX_BATCHES:
            sentence = f"{MAX_BATCHES} batches are under way. Send it again in some seconds."
            raise Problem("overloaded", sentence, {"retry-after": "5"})
        if self._bytes + num_bytes > MAX_HELD_BYTES:
            sentence = (
                f"Requests under way hold {self._bytes:,} of {MAX_HELD_BYTES:,} bytes. Send it again in a second."
            )
            raise Problem("overloaded", sentence)
        self._pay(caller)
        self._requests += 1
        self._bytes += num_bytes
        self._batches += is_batch
        if self._requests == MANY:
            self._many_since = self._clock()
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= num_bytes
            self._batches -= is_batch
            self._answered.append(self._clock())
            if self._requests < MANY:
                self._many_since = math.inf

    def _places(self) -> int:
        begin = self._clock() - WINDOW_S
        while self._answered and self._answered[0] < begin:
            self._answered.popleft()
        if self._many_since > begin:  # not busy for long enough to know what it can do
            return min(AT_FIRST, MAX_IN_FLIGHT)
        return min(MAX_IN_FLIGHT, max(FEW, int(len(self._answered) / WINDOW_S * WAIT_S)))

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
