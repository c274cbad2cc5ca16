"""The HTTP surface: which path answers what. It knows nothing of Ray; a `Scorer` a version stands behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from preprocessing.radiograph import RadiographError
from serve import formats, logs
from serve.access import Access
from serve.arms import Arms
from serve.audit_routes import audit_routes
from serve.batch_routes import batch_routes
from serve.books import Books
from serve.boundary import Boundary, request_id_of
from serve.database import LedgerDownError
from serve.document_routes import document_routes
from serve.experiment_routes import experiment_routes
from serve.limits import Limits
from serve.metrics import Metrics
from serve.pages import page_routes
from serve.parameters import parse_idempotency_key
from serve.prediction_routes import prediction_routes
from serve.problems import Problem
from serve.protocol import read_query
from serve.reports import Reports
from serve.scoring import Scoring
from serve.scrape import Others, metrics_routes
from serve.uploads import announced_bytes
from serve.version_routes import version_routes
from serve.versions import Scorer

DRAIN_S = 5.0
"""What shadows under way may take when the gateway ends."""


class Gateway:
    """The routes and their state.

    Args:
        scorer_of: From a bundle version to what scores with it.
        versions: What ``GET /v1/versions`` lists where no service notes its versions in the ledger; plain JSON values.
        books: Where predictions are stored, and who may ask.
        others: Asks all gateways what they counted; None where this one is alone.
        is_local: Whether only who calls it by a name of loopback is answered.
    """

    def __init__(
        self,
        scorer_of: Callable[[str], Scorer],
        versions: Sequence[Mapping[str, Any]],
        books: Books,
        others: Others | None = None,
        *,
        is_local: bool = False,
    ) -> None:
        self._is_local = is_local
        self.metrics = Metrics(books)
        self._arms, self._books, self._others = Arms(scorer_of, books, self.metrics), books, others
        self._versions = [dict(version) for version in versions]
        self._limits, self._scoring = Limits(), Scoring(self._arms, books)

    def app(self) -> Starlette:
        """The ASGI app."""
        reports = Reports()
        routes = [
            Route("/v1/score", self.score, methods=["POST"]),
            *batch_routes(self._books, self._scoring, self._limits),
            *prediction_routes(self._books),
            *version_routes(self._books, self._held),
            *experiment_routes(self._books, reports),
            *audit_routes(self._books),
            *document_routes(self._books),
            *page_routes(self._books, self._scoring, self._limits, reports, self._held),
            *metrics_routes(self._books, self.metrics, self._others),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
        ]
        paths = {route.endpoint: route.path for route in routes}
        app = Starlette(
            routes=routes,
            middleware=[
                Middleware(Boundary, is_local=self._is_local),
                Middleware(Access, metrics=self.metrics, routes=paths),
            ],
            exception_handlers={
                HTTPException: _http_error,
                Problem: _problem,
                RadiographError: _radiograph_error,
                LedgerDownError: _ledger_down,
            },
            lifespan=self._life,
        )
        app.router.redirect_slashes = False  # /v1/score/ is another path, and a redirect would lose the body
        return app

    async def score(self, request: Request) -> Response:
        caller = self._books.caller(request, "score")
        idempotency_key = parse_idempotency_key(request.headers.getlist("idempotency-key"))
        form = formats.wanted(request)
        with self._limits.place(caller, announced_bytes(request)):
            query = await read_query(request)
            formats.check_before_scoring(form, query.data)
            given = await self._scoring.give(query, caller, request_id_of(request.scope), idempotency_key)
            headers = {"idempotent-replayed": "true"} if given.is_repeated else {}
            return await formats.rendered(  # a DICOM report reads the file once more
                form,
                given.answer,
                created_s=given.created_s,
                sex=query.sex,
                subject=query.subject,
                data=query.data,
                headers=headers,
            )

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        version = await self._arms.version()
        status = self._books.status()
        if status.is_full:
            sentence = "The ledger is away and the spool is full: no answer can be recorded, so none is given."
            raise Problem("not_recorded", sentence)
        ledger = {
            "status": "up" if status.is_up else "spooling",
            "spooled_bytes": status.spooled_bytes,
            "refused": status.refused,
        }
        return JSONResponse({"status": "ready", "version": version, "ledger": ledger})

    def _held(self) -> Sequence[Mapping[str, Any]]:
        return self._books.versions() or self._versions

    @contextlib.asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(self._arms.look())
        try:
            yield
        finally:
            looking.cancel()
            await self._arms.drain(DRAIN_S)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _refused(request, error)


async def _radiograph_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RadiographError)
    return _refused(request, Problem(error.code, str(error)))


async def _ledger_down(request: Request, error: Exception) -> Response:
    sentence = "The ledger does not answer at the moment. Send the request again in a few seconds."
    return _refused(request, Problem("unavailable", sentence))


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
    return _refused(request, problem)


def _refused(request: Request, problem: Problem) -> Response:
    logs.note(code=problem.code)
    return problem.response(request_id_of(request.scope))
