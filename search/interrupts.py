"""SIGINT and SIGTERM while a search runs: the first one ends it soon, wherever it stands, and `resume` goes on.

Plain Python ends by KeyboardInterrupt at once. Where that would leave processes behind, or be lost, a signal is kept
until the work is over. While trials run, Ray Tune takes SIGINT for itself, ends them and saves its state.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType

from preprocessing.ray_thread import running_beside

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], object]
Claim = Callable[[], None]
"""Puts the handlers in place again, which somebody else may have taken."""


def heeded() -> AbstractContextManager[Claim]:
    """Either signal raises KeyboardInterrupt in here, or goes to whoever takes SIGINT for itself."""
    # set even where it is the default: a shell ignores SIGINT for what it runs in the background
    return _handled(signal.default_int_handler, lambda number, frame: signal.raise_signal(signal.SIGINT))


@contextmanager
def postponed() -> Iterator[Claim]:
    """Any signals in here raise KeyboardInterrupt once, at the end."""
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    with _handled(keep, keep) as claim:
        yield claim
    if came:
        raise KeyboardInterrupt


@contextmanager
def ray_running(start: Callable[[], object], end: Callable[[], object], *, is_own: bool) -> Iterator[None]:
    """Ray, by `running_beside`, where a signal finds it in one piece.

    An exception in the middle of its start would leave its processes behind, so a signal waits for it, unless it joins
    a cluster, which may take long.

    Args:
        start: Starts it.
        end: Ends it; not called where it was left in the middle of its start.
        is_own: Whether its processes are ours.
    """

    def end_undisturbed() -> None:
        with postponed():
            end()

    with ExitStack() as running:
        with postponed() if is_own else heeded() as claim:
            running.enter_context(running_beside(start, end_undisturbed, claim))
        yield


@contextmanager
def _handled(on_interrupt: Handler, on_termination: Handler) -> Iterator[Claim]:
    before = [signal.getsignal(each) for each in _SIGNALS]

    def claim() -> None:
        for each, handler in zip(_SIGNALS, (on_interrupt, on_termination), strict=True):
            signal.signal(each, handler)

    claim()
    try:
        yield claim
    finally:
        for each, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(each, handler)
