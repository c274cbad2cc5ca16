"""What the service writes down: events with the id of the request that they belong to, and nothing about a person.

A line holds codes, counts, times and ids that the service made or checked. It never holds a header, a file name, a
path as it was asked for, a subject, a query string, or a sentence that quotes any of them.
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from serve import log_file

LOGGER = logging.getLogger("carpal.serve")
SERVE_LOGGING = {"encoding": "JSON", "log_level": "WARNING", "enable_access_log": False}
"""Ray Serve's own lines: no access log, which has the paths as they were asked for."""
_SERVE = logging.getLogger("ray.serve")
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_MAX_CAUSES = 5
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


def event(name: str, /, *, level: int = logging.INFO, **values: Any) -> None:
    """Write a line.

    Args:
        name: What happened, in a word.
        level: As `logging` counts them.
        values: Plain values; see the module's own text for what they must not be.
    """
    LOGGER.log(level, name, extra=_with_id(values))


def failure(error: BaseException, **values: Any) -> None:
    """Write down an error that nobody foresaw: its type and where it was raised, not its message.

    Messages of decoders and databases quote what they were given.
    """
    causes: list[dict[str, Any]] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < _MAX_CAUSES:
        causes.append({"error": type(cause).__name__, "where": places(cause)})
        cause = cause.__cause__ or cause.__context__
    LOGGER.error("failed", extra=_with_id({**values, "causes": causes}))


def places(error: BaseException) -> list[str]:
    """Where an error was raised: file, line and function of each call, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def milliseconds(seconds: Mapping[str, float]) -> dict[str, Any]:
    """Times as a line shows them: ``{"model": 0.0123}`` becomes ``{"model_ms": 12.3}``."""
    return {f"{stage}_ms": round(1000 * spent, 3) for stage, spent in seconds.items()}


def follow_serve(component: str, *, is_guess: bool = False) -> None:
    """Write to the file that Ray Serve keeps for this replica, rotated like its own lines.

    The lines keep our request id: Serve has one of its own where no proxy of it stands before the gateway.

    Args:
        component: Which part of the service this process is.
        is_guess: Whether another name that the process gave itself stands.
    """
    if is_guess and LOGGER.filters:
        return
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.handlers[:] = log_file.beside(_SERVE.handlers)
    LOGGER.filters[:] = [_Stamp(component)]


def _with_id(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"request_id": request_id(), **values} if request_id() else dict(values)


class _Stamp(logging.Filter):
    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def filter(self, record: logging.LogRecord) -> bool:
        record.component = self._component
        record.skip_context_filter = True  # else Serve's filter puts its own id over ours
        return True
