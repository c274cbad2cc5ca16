"""A change of the routing over HTTP: made beside the event loop, and followed by this gateway at once."""

from collections.abc import Callable
from typing import Any

from serve import logs
from serve.books import Books
from serve.database import LedgerDownError
from serve.problems import Problem
from serve.routing import RoutingState


async def changed(books: Books, change: Callable[..., RoutingState], *arguments: Any) -> RoutingState:
    """The routing after a change.

    A change that was made stands: where the routing cannot be read right after it, the caller is told of it all the
    same, and this gateway follows with its next reading, as all others do.

    Raises:
        Problem: The ledger does not answer. A change that hangs may yet be made when it goes on.
        Exception: Whatever else `change` raises; then nothing was changed.
    """
    try:
        state = await books.look_up(change, *arguments)
    except LedgerDownError:
        sentence = "The ledger does not answer, and the change may yet be made. Look before you send it again."
        raise Problem("unavailable", sentence) from None
    try:
        await books.look_up(books.refresh)
    except Exception as error:
        logs.failure(error, doing="reading routing and keys after a change")
    return state
