"""What the service writes down: events with the id of the request that they belong to, and nothing about a person.

A line holds codes, counts, times and ids that the service made or checked. It never holds a header, a file name, a
path as it was asked for, a subject, a query string, or a sentence that quotes any of them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

LOGGER = logging.getLogger("carpal.serve")
_SERVE = logging.getLogger("ray.serve")
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_notes: ContextVar[dict[str, Any] | None] = ContextVar("notes", default=None)


@contextmanager
def request(request_id: str) -> Iterator[dict[str, Any]]:
    """Everything that is logged inside, also by tasks that begin there, carries this id.

    Yields:
        What `note` collects meanwhile.
    """
    notes: dict[str, Any] = {}
    tokens = _request_id.set(request_id), _notes.set(notes)
    try:
        yield notes
    finally:
        _request_id.reset(tokens[0])
        _notes.reset(tokens[1])


def request_id() -> str:
    """Of the request that is answered here; empty outside of one."""
    return _request_id.get()


def note(**values: Any) -> None:
    """Add to the line that will be written when the request has been answered; outside of one, nothing happens."""
    if (notes := _notes.get()) is not None:
        notes.update(values)


def event(name: str, **values: Any) -> None:
    """Write a line.

    Args:
        name: What happened, in a word.
        values: Plain values; see the module's own text for what they must not be.
    """
    LOGGER.info(name, extra=values)


def follow_serve(component: str) -> None:
    """Write to the file that Ray Serve keeps for this replica, rotated like its own lines.

    The lines keep our request id: Serve has one of its own where no proxy of it stands before the gateway.

    Args:
        component: Which part of the service this process is.
    """
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.handlers[:] = _SERVE.handlers
    LOGGER.filters[:] = [_Stamp(component)]


class _Stamp(logging.Filter):
    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def filter(self, record: logging.LogRecord) -> bool:
        record.component = self._component
        record.skip_context_filter = True  # else Serve's filter puts its own id over ours
        if not hasattr(record, "request_id") and request_id():
            record.request_id = request_id()
        return True
