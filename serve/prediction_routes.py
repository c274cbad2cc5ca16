"""What is stored of an answer, over HTTP: read it, see its heat map, add the reading that came later.

GET  /v1/predictions/{id}               the answer, its references and its shadow
GET  /v1/predictions/{id}/heatmap.png   where it came from, if that was asked for
POST /v1/predictions/{id}/reference     {"bone_age_months": 96.5, "reader": "b"}
"""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve import formats
from serve.books import Books
from serve.boundary import request_id_of
from serve.database import LedgerError
from serve.entries import ID_PATTERN
from serve.moments import moment
from serve.parameters import read_reference
from serve.problems import Problem


def prediction_routes(books: Books) -> list[Route]:
    """The routes, with their keys checked."""

    async def prediction(request: Request) -> Response:
        books.caller(request, "read")
        form = formats.wanted(request, offered=(formats.JSON, formats.FHIR))  # a DICOM report needs the DICOM file
        found = await _found(request)
        if form.media_type == formats.JSON:
            return JSONResponse(_stored(found))
        sex = found["sex"] or "unknown"
        return await formats.rendered(form, found["answer"], created_s=found["created_s"], sex=sex)

    async def heatmap(request: Request) -> Response:
        caller = books.caller(request, "read", "score")
        found = await _found(request)
        if not caller.may("read") and found["key_id"] != caller.key_id:
            raise Problem("role_missing", "The key lacks the role read, and asked for another prediction. Use another.")
        png = await books.ask(books.ledger.heatmap, found["id"])
        if png is None and books.is_catching_up():
            raise _catching_up()
        if png is None:
            raise Problem("heatmap_unknown", "This prediction has no heat map. Score with explain=true to get one.")
        return Response(png, media_type="image/png")

    async def reference(request: Request) -> Response:
        caller = books.caller(request, "score")
        months, reader = await read_reference(request)
        prediction_id = (await _found(request))["id"]
        add = books.ledger.add_reference
        try:
            is_new = await books.ask(partial(add, prediction_id, months, reader=reader, key_id=caller.key_id))
        except LedgerError as error:
            raise Problem("reference_malformed", str(error)) from None
        body = {"prediction_id": prediction_id, "bone_age_months": months, "reader": reader}
        return JSONResponse({**body, "request_id": request_id_of(request.scope)}, 201 if is_new else 200)

    async def _found(request: Request) -> dict[str, Any]:
        prediction_id = request.path_params["id"]
        is_id = ID_PATTERN.fullmatch(prediction_id) is not None
        found = await books.ask(books.ledger.prediction, prediction_id) if is_id else None
        if found is None and is_id and books.is_catching_up():
            raise _catching_up()
        if found is None:
            raise Problem("prediction_unknown", "There is no prediction of this id. Check it.")
        return found

    return [
        Route("/v1/predictions/{id}", prediction, methods=["GET"]),
        Route("/v1/predictions/{id}/heatmap.png", heatmap, methods=["GET"]),
        Route("/v1/predictions/{id}/reference", reference, methods=["POST"]),
    ]


def _stored(found: dict[str, Any]) -> dict[str, Any]:
    shadow = found["shadow"]
    return {
        "prediction_id": found["id"],
        "created": moment(found["created_s"]),
        "sex": found["sex"] or "unknown",
        "answer": found["answer"],
        "latency_ms": round(found["latency_ms"], 3),
        "experiment": found["experiment"],
        "arm": found["arm"],
        "shadow": None if shadow is None else shadow["answer"],
        "references": [
            {
                "bone_age_months": row["bone_age_months"],
                "reader": row["reader"],
                "created": moment(row["created_s"]),
            }
            for row in found["references"]
        ],
    }


def _catching_up() -> Problem:
    return Problem("unavailable", "The ledger is still catching up. Send the request again in a few seconds.")
