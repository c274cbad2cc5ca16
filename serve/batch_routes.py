"""Several images in one request: ``POST /v1/score/batch``, one answer each, failures included.

A form with parts ``file``. A parameter is said once for all files (in the path or as one field), or once for each of
them, as fields in the files' order; an empty field says nothing about its file. What is not done in the time of one
answer is given up, each image by itself.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from preprocessing.radiograph import RadiographError
from serve import logs
from serve.books import Books
from serve.boundary import request_id_of
from serve.keys import Caller
from serve.limits import Limits
from serve.parameters import parse_idempotency_key
from serve.problems import Problem
from serve.protocol import PARAMETERS, parse_query
from serve.scoring import Scoring
from serve.uploads import MAX_BATCH_BYTES, MAX_FILES, announced_bytes, read_batch
from serve.versions import ANSWER_TIMEOUT_S

AT_ONCE = 8
"""Images of one batch that are scored at a time: single requests find room between them."""


def batch_routes(books: Books, scoring: Scoring, limits: Limits) -> list[Route]:
    """The route, with its key checked."""

    async def batch(request: Request) -> Response:
        caller = books.caller(request, "score")
        idempotency_key = parse_idempotency_key(request.headers.getlist("idempotency-key"))
        if idempotency_key and len(f"{idempotency_key}/{MAX_FILES}") > 128:
            raise Problem("idempotency_malformed", "A batch's Idempotency-Key has at most 125 letters. Shorten it.")
        request_id = request_id_of(request.scope)
        # from the first byte on, as Serve and HAProxy count, which then give up all answers together
        deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        with limits.place(caller, announced_bytes(request, MAX_BATCH_BYTES), is_batch=True):
            files, of_path, fields = await read_batch(request)
            said = deal(of_path, fields, len(files))
            limits.owe(caller, len(files) - 1)
            turns = asyncio.Semaphore(AT_ONCE)

            async def one(index: int) -> dict[str, Any]:
                key = f"{idempotency_key}/{index}" if idempotency_key else None
                try:
                    async with asyncio.timeout_at(deadline), turns:
                        given = await _answered(scoring, files[index], said[index], caller, request_id, key)
                except TimeoutError:
                    sentence = (
                        f"A batch has {ANSWER_TIMEOUT_S:.0f} s, and this image was not done. Send fewer at a time."
                    )
                    given = _refused(Problem("timeout", sentence), request_id)
                return {"index": index, **given}

            answers = await asyncio.gather(*[one(index) for index in range(len(files))])
        failed = sum("problem" in answer for answer in answers)
        return JSONResponse({"request_id": request_id, "failed": failed, "answers": answers})

    return [Route("/v1/score/batch", batch, methods=["POST"])]


def deal(
    of_path: Sequence[tuple[str, str]], fields: Sequence[tuple[str, str]], num_files: int
) -> list[list[tuple[str, str]]]:
    """What is said about each file.

    Raises:
        Problem: A parameter is said some times, but neither once nor once for each file.
    """
    said: list[list[tuple[str, str]]] = [list(of_path) for _ in range(num_files)]
    for name in dict.fromkeys(name for name, _ in fields):
        if name not in PARAMETERS:
            raise Problem("unknown_parameter", f"The parameters are {', '.join(PARAMETERS)}. Remove any other.")
        values = [value for other, value in fields if other == name]
        if len(values) not in (1, num_files):
            raise Problem(
                "batch_malformed",
                f"The field {name} is given once, or for each of the {num_files} files, got {len(values)}.",
            )
        for index, about in enumerate(said):
            if value := values[index if len(values) > 1 else 0]:
                about.append((name, value))
    return said


async def _answered(
    scoring: Scoring,
    data: bytes,
    said: Sequence[tuple[str, str]],
    caller: Caller,
    request_id: str,
    idempotency_key: str | None,
) -> dict[str, Any]:
    """An answer, or the problem of one image, with the status that it would have had alone."""
    try:
        given = await scoring.give(parse_query(data, said), caller, request_id, idempotency_key)
    except RadiographError as error:
        problem = Problem(error.code, str(error))
    except Problem as error:
        problem = error
    except Exception as error:  # one image must not take the others' answers away, whatever it is
        logs.failure(error, request_id=request_id, doing="an image of a batch")
        problem = Problem("internal", "The service failed at this image; its log has the cause.")
    else:
        return {"status": 200, "answer": given.answer}
    return _refused(problem, request_id)


def _refused(problem: Problem, request_id: str) -> dict[str, Any]:
    return {"status": problem.status, "problem": problem.body(request_id)}
