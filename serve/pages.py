"""Pages for people: a reading at ``/`` and what the experiments do at ``/experiments``.

Everything that a page shows is rendered here, from the same answers that programs get; its scripts send a form, put
the answer into the page, and keep the key in memory. A page needs no network but the service, and loads no code that
is not a file beside this module: the policy of `serve.boundary` allows nothing else.

GET  /, /experiments         the pages
POST /page/reading           as POST /v1/score, answered with a part of a page
GET  /page/experiments       what runs and what ran, as a part of a page
GET  /static/{name}          style sheet and scripts
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from ensemble.prediction import in_words
from preprocessing.page import embed, environment
from serve.books import Books
from serve.boundary import request_id_of
from serve.database import LedgerDownError
from serve.experiment import NAME_PATTERN, ExperimentError
from serve.limits import Limits
from serve.page_experiment import overview
from serve.page_picture import picture
from serve.page_reading import reading_of
from serve.problems import Problem
from serve.protocol import read_query
from serve.reports import Reports
from serve.scoring import Scoring
from serve.uploads import announced_bytes

_HERE = Path(__file__).parent
STATIC = {path.name: path for path in sorted((_HERE / "static").iterdir())}
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_routes(
    books: Books,
    scoring: Scoring,
    limits: Limits,
    reports: Reports,
    versions: Callable[[], Sequence[Mapping[str, Any]]],
) -> list[Route]:
    """The routes of the pages.

    Args:
        books: Who may ask, and what is stored.
        scoring: What ``POST /v1/score`` asks.
        limits: How many may ask.
        reports: Who reads what takes long.
        versions: What ``GET /v1/versions`` lists.
    """
    templates = environment(_HERE / "templates", words=in_words, months_signed=_signed_words, moment=_moment)
    drawing = asyncio.Semaphore(1)  # people must not slow the programs down

    def page(name: str, **values: Any) -> Response:
        return HTMLResponse(templates.get_template(name).render(**values))

    async def home(request: Request) -> Response:
        return page("reading.html", state=books.state, is_open=books.is_open, image_days=books.image_days)

    async def reading(request: Request) -> Response:
        caller = books.caller(request, "score")
        with limits.place(caller, announced_bytes(request)):
            query = await read_query(request)
            given = await scoring.give(query, caller, request_id_of(request.scope), None)
            async with drawing:
                shown = await asyncio.to_thread(picture, query.data)
            heat = await _heat(given.answer)
        values = reading_of(given.answer, query.sex)
        return page("reading_part.html", **values, picture=embed(shown.png), shown=shown, heat=heat and embed(heat))

    async def _heat(answer: Mapping[str, Any]) -> bytes | None:
        """Of an answer that was just stored; None while it waits on disk for the ledger."""
        with contextlib.suppress(LedgerDownError):
            return await books.look_up(books.ledger.heatmap, answer["prediction_id"])
        return None

    async def experiments(request: Request) -> Response:
        return page("experiments.html", is_open=books.is_open)

    async def experiments_part(request: Request) -> Response:
        caller = books.caller(request, "read")
        name = request.query_params.get("name") or None
        if name and not NAME_PATTERN.fullmatch(name):
            raise Problem("experiment_unknown", "There is no experiment of this name. See /v1/experiments.")
        try:
            values = await reports.read(overview, books, name)
        except ExperimentError as error:
            raise Problem("experiment_unknown", str(error)) from None
        now = datetime.now(UTC).strftime("%H:%M:%S UTC")
        return page("experiments_part.html", **values, now=now, versions=versions(), may_act=caller.may("admin"))

    async def static(request: Request) -> Response:
        if (path := STATIC.get(request.path_params["name"])) is None:
            raise Problem("not_found", "The pages have no such file. Open / or /experiments.")
        return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix], headers={"cache-control": "no-cache"})

    return [
        Route("/", home, methods=["GET"]),
        Route("/experiments", experiments, methods=["GET"]),
        Route("/page/reading", reading, methods=["POST"]),
        Route("/page/experiments", experiments_part, methods=["GET"]),
        Route("/static/{name}", static, methods=["GET"]),
    ]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _signed_words(months: float) -> str:
    return f"{in_words(abs(months))} {'ahead' if months > 0 else 'behind'}" if round(months) else "no difference"
