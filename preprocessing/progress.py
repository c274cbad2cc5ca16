"""One line that says how far a stage is and how long it still takes."""

import sys
import time
from collections.abc import Callable


class Progress:
    """Prints ``label  120/400  30 %  12 s left`` to standard error, without flooding a log file.

    On a terminal the line rewrites itself; elsewhere a new line appears every few seconds.
    """

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total = label, total
        self._start = self._last = time.monotonic()
        self._begin: tuple[float, int] | None = None  # when it was first called, and with how much
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, note: str = "") -> None:
        """Say that `done` of the total are finished."""
        now = time.monotonic()
        begin, done_before = self._begin = self._begin or (now, done)
        finished = done >= self._total
        if not finished and now - self._last < (0.2 if self._live else 5.0):
            return
        self._last = now
        elapsed = now - self._start
        rest = ""
        if done > done_before:  # what an earlier run has done says nothing of this one's speed
            rest = f"{(now - begin) * (self._total - done) / (done - done_before):4.0f} s left"
        if finished:
            rest = f"in {elapsed:.1f} s"
        line = (
            f"{self._label}  {done}/{self._total}  {100 * done / max(self._total, 1):3.0f} %  {rest}  {note}".rstrip()
        )
        end = "\n" if finished or not self._live else ""
        sys.stderr.write(f"\r\x1b[K{line}{end}" if self._live else f"{line}\n")
        sys.stderr.flush()


def counting(what: str) -> Callable[[int, int], None]:
    """A progress line that learns the total with the first step: call it with what is done and the total."""
    bars: list[Progress] = []

    def show(done: int, total: int) -> None:
        if not bars:
            bars.append(Progress(what, total))
        bars[0](done)

    return show
