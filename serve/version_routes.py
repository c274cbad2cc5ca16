"""Versions over HTTP: what is held, and what the commands ``add`` and ``retire`` do, with the caller's key as actor.

GET  /v1/versions                  what the service holds, and what became of each
POST /v1/versions                  {"version"}: load it beside the others
POST /v1/versions/{version}/{act}  champion: let it answer from now on; retire: take it down
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ensemble.bundle import VERSION_PATTERN
from serve.books import Books
from serve.changes import changed
from serve.parameters import read_json_object
from serve.problems import Problem
from serve.releases import ReleaseError, Releases
from serve.routing import RoutingConflictError, RoutingState

VERSION_ACTS: dict[str, Callable[..., RoutingState]] = {"champion": Releases.crown, "retire": Releases.retire}
"""What can be done with a version that is held."""


def version_routes(books: Books, held: Callable[[], Sequence[Mapping[str, Any]]]) -> list[Route]:
    """The routes, with their keys checked.

    Args:
        books: Who may ask, and where an act is written down.
        held: What is listed.
    """

    async def all_of_them(request: Request) -> Response:
        return await (add if request.method == "POST" else listed)(request)

    async def listed(request: Request) -> Response:
        books.caller(request, "read")
        return JSONResponse({"versions": held()})

    async def add(request: Request) -> Response:
        releases = Releases(books.ledger.database, books.caller(request, "admin").actor)
        version = (await read_json_object(request, {"version": str}, {}))["version"]
        if not VERSION_PATTERN.fullmatch(version):
            raise Problem("release_refused", "A version is named in full, such as ens-0123456789ab.")
        return JSONResponse((await _act(releases.add, version)).to_dict(), 202)

    async def act(request: Request) -> Response:
        releases = Releases(books.ledger.database, books.caller(request, "admin").actor)
        version, what = request.path_params["version"], request.path_params["act"]
        if what not in VERSION_ACTS:
            raise Problem("not_found", f"A version can be told to {', '.join(VERSION_ACTS)}. Use one of these paths.")
        await read_json_object(request, {}, {})
        if not VERSION_PATTERN.fullmatch(version):
            raise Problem("version_unknown", "There is no such version. See /v1/versions.")
        return JSONResponse((await _act(VERSION_ACTS[what], releases, version)).to_dict())

    async def _act(change: Callable[..., RoutingState], *arguments: Any) -> RoutingState:
        try:
            return await changed(books, change, *arguments)
        except (ReleaseError, RoutingConflictError) as error:
            raise Problem("release_refused", str(error)) from None

    return [
        Route("/v1/versions", all_of_them, methods=["GET", "POST"]),
        Route("/v1/versions/{version}/{act}", act, methods=["POST"]),
    ]
