"""One thread for a replica's work, beside the event loop; a replica whose thread hangs is replaced.

The event loop answers Serve's health checks whatever the thread does: a decoder or a GPU that never comes back would go
unnoticed, and every request would wait until its time is over.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

HANG_S = 60.0
"""Twice what a request waits: nobody expects what takes so long."""
Result = TypeVar("Result")


class Worker:
    """Does one thing after the other.

    Args:
        name: Of the thread.
        begin: Called once in the thread, with `arguments`.
    """

    def __init__(self, name: str, begin: Callable[..., object] | None = None, *arguments: Any) -> None:
        self._thread = ThreadPoolExecutor(1, name, begin, arguments)
        self._since: float | None = None

    async def do(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """What `work` returns, when its turn has come."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, work, *arguments)

    def check(self) -> None:
        """Return at once.

        Raises:
            RuntimeError: What is under way takes longer than `HANG_S`.
        """
        since = self._since
        if since is not None and time.monotonic() - since > HANG_S:
            raise RuntimeError(f"The thread has not ended one piece of work within {HANG_S:g} s: it hangs.")

    def _timed(self, work: Callable[..., Result], *arguments: Any) -> Result:
        self._since = time.monotonic()
        try:
            return work(*arguments)
        finally:
            self._since = None


class FullError(RuntimeError):
    """Whoever came would have to wait for too long."""


class BoundedWorker(Worker):
    """A worker before whom few wait, and none for long.

    Args:
        name: Of the thread.
        most: Pieces of work under way and waiting.
        wait_s: How long a piece may have to wait, if each takes as long as the last one did.
        begin: As of `Worker`, with `arguments`.
    """

    def __init__(
        self, name: str, most: int, wait_s: float, begin: Callable[..., object] | None = None, *arguments: Any
    ) -> None:
        super().__init__(name, begin, *arguments)
        self._most, self._wait_s, self._last_s = most, wait_s, 0.0
        self.under_way = 0
        """Pieces of work, those that wait among them."""

    async def do(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """As `Worker.do`.

        Raises:
            FullError: Too many wait, or it would take too long.
        """
        if self.under_way >= self._most or self.under_way * self._last_s > self._wait_s:
            raise FullError
        self.under_way += 1
        try:
            return await super().do(self._measured, work, *arguments)
        finally:
            self.under_way -= 1

    def _measured(self, work: Callable[..., Result], *arguments: Any) -> Result:
        started = time.monotonic()
        try:
            return work(*arguments)
        finally:
            self._last_s = time.monotonic() - started
