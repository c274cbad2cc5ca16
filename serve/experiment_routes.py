"""Experiments over HTTP: list and read them, start and end them. What the commands do, with the caller's key as actor.

GET  /v1/experiments                 every experiment, and who is champion
POST /v1/experiments                 {"name", "challenger", "mode", "shares", "policy"}
GET  /v1/experiments/{name}          its report, and what the policy makes of it
POST /v1/experiments/{name}/{act}    stop, promote, rollback; share with {"share"}
"""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ensemble.bundle import VERSION_PATTERN
from serve.books import Books
from serve.changes import changed
from serve.experiment import NAME_PATTERN, Experiment, ExperimentError, Policy
from serve.experiment_policy import decide
from serve.experiment_report import report
from serve.lifecycle import Lifecycle, experiment_named, experiments
from serve.parameters import read_json_object
from serve.problems import Problem
from serve.reports import Reports
from serve.routing import RoutingConflictError, RoutingState

ACTS = ("stop", "promote", "rollback", "share")


def experiment_routes(books: Books, reports: Reports) -> list[Route]:
    """The routes, with their keys checked."""

    async def all_of_them(request: Request) -> Response:
        return await (start if request.method == "POST" else listed)(request)

    async def listed(request: Request) -> Response:
        books.caller(request, "read")
        rows = await books.ask(experiments, books.ledger.database)
        return JSONResponse({"routing": books.state.to_dict(), "experiments": rows})

    async def start(request: Request) -> Response:
        actor = books.caller(request, "admin").actor
        values = await read_json_object(
            request, {"name": str, "challenger": str}, {"mode": str, "shares": list, "policy": dict}
        )
        if not VERSION_PATTERN.fullmatch(values["challenger"]):
            raise Problem("experiment_refused", "A challenger is named by its version, such as ens-0123456789ab.")

        def begin() -> RoutingState:
            return Lifecycle(books.ledger.database, actor).start(
                values["name"],
                values["challenger"],
                mode=values.get("mode", "shadow"),
                shares=tuple(float(share) for share in values.get("shares", [])),
                policy=Policy.from_dict(values.get("policy", {})),
            )

        return JSONResponse((await _act(begin)).to_dict(), 201)

    async def one(request: Request) -> Response:
        books.caller(request, "read")
        name = request.path_params["name"]
        row = await _named(name)
        running = books.state.experiment
        is_running = running is not None and running.name == name
        experiment = running if running and is_running else Experiment.from_dict(row["definition"])
        found = await reports.read(report, books.ledger.database, experiment)
        decision = decide(experiment, found)
        policy = {"act": decision.act, "why": decision.why, "is_due": decision.is_due} if is_running else None
        return JSONResponse({**found, "outcome": row["outcome"], "policy": policy})

    async def act(request: Request) -> Response:
        actor = books.caller(request, "admin").actor
        name, what = request.path_params["name"], request.path_params["act"]
        if what not in ACTS:
            raise Problem("not_found", f"An experiment can be told to {', '.join(ACTS)}. Use one of these paths.")
        values = await read_json_object(request, {"share": float} if what == "share" else {}, {})
        definition = (await _named(name))["definition"]
        data = {} if what == "share" else await reports.data_of_act(books.ledger.database, definition)

        def change() -> RoutingState:
            lifecycle = Lifecycle(books.ledger.database, actor)
            if what == "share":
                return lifecycle.set_share(name, values["share"])
            state: RoutingState = getattr(lifecycle, what)(name, data)
            return state

        return JSONResponse((await _act(change)).to_dict())

    async def _named(name: str) -> dict[str, Any]:
        if not NAME_PATTERN.fullmatch(name):
            raise Problem("experiment_unknown", "There is no experiment of this name. See /v1/experiments.")
        try:
            return await books.ask(experiment_named, books.ledger.database, name)
        except ExperimentError as error:
            raise Problem("experiment_unknown", str(error)) from None

    async def _act(change: Callable[[], RoutingState]) -> RoutingState:
        try:
            return await changed(books, change)
        except (ExperimentError, RoutingConflictError, TypeError, ValueError, OverflowError) as error:
            raise Problem("experiment_refused", str(error)) from None

    return [
        Route("/v1/experiments", all_of_them, methods=["GET", "POST"]),
        Route("/v1/experiments/{name}", one, methods=["GET"]),
        Route("/v1/experiments/{name}/{act}", act, methods=["POST"]),
    ]
