"""Ray, started in a thread of its own: in the main one it would take the handlers of signals for itself."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager

_POLL_SECONDS = 0.02


@contextmanager
def running_beside(
    start: Callable[[], object], end: Callable[[], object], claim_signals: Callable[[], object]
) -> Iterator[None]:
    """Ray, started or joined before and left after.

    In the main thread Ray would put a handler of SIGTERM there that exits at once, wherever it stands; its native part
    puts a deadly one in any case. So it starts beside, and the caller's handlers are put back all the while. The thread
    lives until the block ends: Ray ties the life of its processes to whichever started them.

    Args:
        start: Starts it; what it raises is raised here.
        end: Ends it; not called where it was left in the middle of its start.
        claim_signals: Puts the caller's handlers in place again; may raise, to leave.
    """
    started, is_over = Future[object](), threading.Event()

    def live() -> None:
        try:
            started.set_result(start())
        except BaseException as error:
            started.set_exception(error)
        is_over.wait()

    threading.Thread(target=live, name="ray", daemon=True).start()
    try:
        while not started.done():
            claim_signals()
            wait([started], timeout=_POLL_SECONDS)
        claim_signals()
        started.result()
        yield
    finally:
        if started.done():
            end()
        is_over.set()
