"""The HTTP surface: which path answers what. It knows nothing of Ray; a `Scorer` stands behind it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from preprocessing.radiograph import RadiographError
from serve.boundary import Boundary, request_id_of
from serve.protocol import Problem, Query, read_query

MAX_IN_FLIGHT = 128
"""Requests that are read or scored at the same time; the next one gets 503 at once."""
SCORE_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 5.0


class Scorer(Protocol):
    """Whatever turns an image into an answer: one version's Serve application, or a predictor right here."""

    async def score(self, query: Query) -> dict[str, Any]:
        """Score one image.

        Returns:
            What `serve.protocol.answer` makes of a prediction.

        Raises:
            RadiographError: The bytes hold no usable picture.
            Problem: The scorer is overloaded or away.
        """

    async def version(self) -> str:
        """The version that the ensemble holds, asked from the ensemble itself."""


class Gateway:
    """The routes and their state.

    Args:
        scorer: Answers every request.
        versions: What ``GET /v1/versions`` lists, newest first; plain JSON values.
    """

    def __init__(self, scorer: Scorer, versions: Sequence[Mapping[str, Any]]) -> None:
        self._scorer = scorer
        self._versions = [dict(version) for version in versions]
        self._in_flight = 0

    def app(self) -> Starlette:
        """The ASGI app."""
        app = Starlette(
            routes=[
                Route("/v1/score", self.score, methods=["POST"]),
                Route("/v1/versions", self.versions, methods=["GET"]),
                Route("/healthz", self.healthz, methods=["GET"]),
                Route("/readyz", self.readyz, methods=["GET"]),
            ],
            middleware=[Middleware(Boundary)],
            exception_handlers={
                HTTPException: _http_error,
                Problem: _problem,
                RadiographError: _radiograph_error,
            },
        )
        app.router.redirect_slashes = False  # /v1/score/ is another path, and a redirect would lose the body
        return app

    async def score(self, request: Request) -> Response:
        if self._in_flight >= MAX_IN_FLIGHT:
            raise Problem("overloaded", f"All {MAX_IN_FLIGHT} places are taken. Send it again in a second.")
        self._in_flight += 1
        try:
            query = await read_query(request)
            async with asyncio.timeout(SCORE_TIMEOUT_S):
                answer = await self._scorer.score(query)
        except TimeoutError:
            raise Problem("timeout", f"Scoring took more than {SCORE_TIMEOUT_S:.0f} s. Send it again.") from None
        finally:
            self._in_flight -= 1
        return JSONResponse({**answer, "request_id": request_id_of(request.scope)})

    async def versions(self, request: Request) -> Response:
        return JSONResponse({"versions": self._versions})

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                version = await self._scorer.version()
        except TimeoutError:
            raise Problem("unavailable", f"The ensemble did not answer within {READY_TIMEOUT_S:.0f} s.") from None
        return JSONResponse({"status": "ready", "version": version})


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request_id_of(request.scope))


async def _radiograph_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RadiographError)
    return Problem(error.code, str(error)).response(request_id_of(request.scope))


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such route, wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = dict(error.headers or {}).get("Allow", "")
        problem = Problem("method_not_allowed", f"This path answers {allowed}. Use that.", {"allow": allowed})
    elif error.status_code == 404:
        problem = Problem(
            "not_found", "There is nothing at this path. Try /v1/score, /v1/versions, /healthz or /readyz."
        )
    else:
        problem = Problem("bad_request", "The request cannot be understood.")
    return problem.response(request_id_of(request.scope))
