"""One count, one time and one line in the log for each request that a gateway answers."""

import asyncio
import time
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import logs
from serve.boundary import request_id_of
from serve.metrics import Metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines; counted, and written down only when they fail."""


class Access:
    """ASGI middleware inside the boundary.

    Args:
        app: What answers.
        metrics: Where it is counted.
        routes: From a route's function to its path. A path as it was asked for is never kept: it may hold anything, and
            each would be a time series of its own.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Mapping[Callable[..., object], str]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with logs.request(request_id_of(scope)) as notes:
            self._metrics.begun()
            try:
                await self._app(scope, receive, watched)
            except asyncio.CancelledError:
                status = 499  # the caller went away; nginx's word for it, nobody receives it
                raise
            except Exception:
                notes.setdefault("code", "internal")
                raise
            finally:
                route = self._routes.get(scope.get("endpoint", _nowhere), "none")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                seconds = time.perf_counter() - started
                self._metrics.ended(route, method, status, notes.get("code"), seconds)
                if status >= 500 or route not in _UNLOGGED:
                    milliseconds = round(1000 * seconds, 3)
                    logs.event("request", method=method, route=route, status=status, ms=milliseconds, **notes)


def _nowhere() -> None:
    """Stands for the function of a request that met no route."""
