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
from serve import logs
from serve.access import Access
from serve.arms import Arms, Scorer
from serve.books import Books
from serve.boundary import Boundary, request_id_of
from serve.database import LedgerDownError
from serve.experiment_routes import experiment_routes
from serve.keys import Caller
from serve.ledger import Answered, Entry, Explained, fingerprint, new_id
from serve.metrics import Metrics
from serve.parameters import parse_idempotency_key
from serve.prediction_routes import prediction_routes
from serve.problems import Problem
from serve.protocol import read_query
from serve.scrape import Others, metrics_routes

MAX_IN_FLIGHT = 128
"""Requests that are read or scored at the same time; the next one gets 503 at once."""
DRAIN_S = 5.0
"""What shadows under way may take when the gateway ends."""


class Gateway:
    """The routes and their state.

    Args:
        scorer_of: From a bundle version to what scores with it.
        versions: What ``GET /v1/versions`` lists where no service notes its versions in the ledger; plain JSON values.
        books: Where predictions are stored, and who may ask.
        others: Asks all gateways what they counted; None where this one is alone.
    """

    def __init__(
        self,
        scorer_of: Callable[[str], Scorer],
        versions: Sequence[Mapping[str, Any]],
        books: Books,
        others: Others | None = None,
    ) -> None:
        self.metrics = Metrics(books)
        self._arms, self._books, self._others = Arms(scorer_of, books, self.metrics), books, others
        self._versions = [dict(version) for version in versions]
        self._in_flight = 0
        self._asking: dict[tuple[str, str], asyncio.Event] = {}
        """Idempotency keys whose first request is under way."""

    def app(self) -> Starlette:
        """The ASGI app."""
        routes = [
            Route("/v1/score", self.score, methods=["POST"]),
            *prediction_routes(self._books),
            Route("/v1/versions", self.versions, methods=["GET"]),
            *experiment_routes(self._books),
            *metrics_routes(self._books, self.metrics, self._others),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
        ]
        paths = {route.endpoint: route.path for route in routes}
        app = Starlette(
            routes=routes,
            middleware=[Middleware(Boundary), Middleware(Access, metrics=self.metrics, routes=paths)],
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
        caller = self._caller(request, "score")
        idempotency_key = parse_idempotency_key(request.headers.getlist("idempotency-key"))
        if self._in_flight >= MAX_IN_FLIGHT:
            raise Problem("overloaded", f"All {MAX_IN_FLIGHT} places are taken. Send it again in a second.")
        self._in_flight += 1
        try:
            if idempotency_key is None:
                return await self._score(request, caller, None)
            async with self._alone(caller.key_id, idempotency_key):
                return await self._score(request, caller, idempotency_key)
        finally:
            self._in_flight -= 1

    async def versions(self, request: Request) -> Response:
        self._caller(request, "read")
        return JSONResponse({"versions": self._books.versions() or self._versions})

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        version = await self._arms.version()
        status = self._books.status()
        ledger = {"status": "up" if status.is_up else "spooling", "spooled_bytes": status.spooled_bytes}
        return JSONResponse({"status": "ready", "version": version, "ledger": ledger})

    async def _score(self, request: Request, caller: Caller, idempotency_key: str | None) -> Response:
        query = await read_query(request)
        asked = fingerprint(query.data, {**query.options(), "subject": query.subject})
        if idempotency_key and (repeated := await self._repeated(caller, idempotency_key, asked)):
            return repeated
        prediction_id, request_id = new_id(), request_id_of(request.scope)
        unit = query.subject or prediction_id
        scored = await self._arms.score(query, unit, request_id)
        answer = {**scored.outcome.answer, "prediction_id": prediction_id, "request_id": request_id}
        stored = Answered(
            id=prediction_id,
            request_id=request_id,
            key_id=caller.key_id,
            idempotency_key=idempotency_key,
            fingerprint=asked,
            subject=self._books.ledger.pseudonym(query.subject) if query.subject else None,
            sex=None if query.sex == "unknown" else query.sex,
            version=answer["version"],  # what the ensemble holds, whatever its application is called
            bone_age_months=answer["bone_age_months"],
            answer=answer,
            latency_ms=scored.latency_ms,
            routing_version=scored.routing_version,
            experiment=scored.experiment.name if scored.experiment else None,
            arm=scored.arm,
            share=scored.experiment.share if scored.experiment else None,
        )
        beside: list[Entry] = []
        if scored.outcome.heatmap is not None:
            answer["heatmap"]["href"] = f"/v1/predictions/{prediction_id}/heatmap.png"
            beside.append(Explained(prediction_id=prediction_id, png=scored.outcome.heatmap))
        await self._arms.record(stored, *beside)
        self._arms.shadow(query, scored, stored, unit)
        return JSONResponse(answer)

    async def _repeated(self, caller: Caller, idempotency_key: str, asked: str) -> Response | None:
        """The first answer under this key, if there was one."""
        try:
            first = await asyncio.to_thread(self._books.ledger.repeated, caller.key_id, idempotency_key)
        except LedgerDownError:
            return None  # scoring goes on; should it be a repetition, both answers are kept, and the first one counts
        if first is None:
            return None
        if first["fingerprint"] != asked:
            sentence = "This Idempotency-Key was used for another image or other parameters. Take a new one."
            raise Problem("idempotency_conflict", sentence)
        return JSONResponse(first["answer"], headers={"idempotent-replayed": "true"})

    @contextlib.asynccontextmanager
    async def _alone(self, key_id: str, idempotency_key: str) -> AsyncIterator[None]:
        """Of several requests with one key at the same time, the first is answered before the others look."""
        key = (key_id, idempotency_key)
        while event := self._asking.get(key):
            await event.wait()
        self._asking[key] = event = asyncio.Event()
        try:
            yield
        finally:
            del self._asking[key]
            event.set()

    def _caller(self, request: Request, role: str) -> Caller:
        return self._books.caller(request.headers.get("authorization"), role)

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
