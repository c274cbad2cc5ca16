"""What goes over the wire: a request becomes bytes and a sex, a prediction or a problem becomes JSON.

Every refusal is one JSON object of RFC 9457 (``application/problem+json``) with a stable ``code``;
`STATUS` lists them all.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from preprocessing.radiograph import MAX_BYTES

if TYPE_CHECKING:
    from ensemble.bundle import Bundle
    from ensemble.predictor import Prediction

MAX_BODY_BYTES = MAX_BYTES + 64 * 1024
"""Largest body: the largest file, and room for the frame of a multipart form around it."""
MAX_DISCARDED_BYTES = 4 * MAX_BODY_BYTES
"""What is read of a body that is too large, and thrown away: a client sees no answer while it still sends."""
BODY_TIMEOUT_S = 30.0
"""Time for the whole body to arrive."""
SEX_WORDS = {"male": "male", "m": "male", "female": "female", "f": "female"}
"""Accepted words, in any case, and what they mean."""

STATUS = {
    # the image; all but the last three are codes of RadiographError
    "empty": 400,
    "too_large": 413,
    "unsupported_format": 415,
    "unreadable": 422,
    "truncated": 422,
    "too_many_pixels": 413,
    "too_compressed": 413,
    "too_small": 422,
    "multi_frame": 422,
    "colour_photograph": 422,
    "encapsulated_document": 415,
    "blank": 422,
    "bad_multipart": 400,
    "file_missing": 422,
    "too_many_files": 422,
    # the parameters
    "sex_missing": 422,
    "sex_unknown_word": 422,
    "sex_contradiction": 422,
    "unknown_parameter": 422,
    "subject_malformed": 422,
    "reference_malformed": 422,
    "body_malformed": 422,
    "experiment_refused": 409,
    # the caller
    "key_missing": 401,
    "key_wrong": 401,
    "role_missing": 403,
    "idempotency_malformed": 422,
    "idempotency_conflict": 422,
    # the request
    "bad_request": 400,
    "body_incomplete": 400,
    "body_timeout": 408,
    "not_found": 404,
    "prediction_unknown": 404,
    "experiment_unknown": 404,
    "method_not_allowed": 405,
    # the service
    "overloaded": 503,
    "unavailable": 503,
    "not_recorded": 503,
    "timeout": 504,
    "internal": 500,
}
"""Every code the service answers with, and its HTTP status."""


class Problem(Exception):
    """A request that is refused.

    Args:
        code: One of `STATUS`.
        detail: A sentence for the caller: rule, value, remedy. It must hold no header and no file name.
        headers: Further response headers.
    """

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers = code, detail, dict(headers or {})
        self.status = STATUS.get(code, 422)  # a newer preprocessing may refuse an image for a new reason
        if self.status == 503:
            self.headers.setdefault("retry-after", "1")

    def response(self, request_id: str) -> Response:
        """The refusal as JSON."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        return Response(json.dumps(body), self.status, self.headers, media_type="application/problem+json")


@dataclass(frozen=True)
class Query:
    """One radiograph to score."""

    data: bytes
    """The encoded file, as sent."""
    sex: str
    """``male`` or ``female``."""
    subject: str | None = None
    """Whose radiograph it is, as the caller names it; it is neither logged nor stored, its pseudonym is."""


async def read_query(request: Request) -> Query:
    """Take the image and the sex out of a request, however they were sent.

    The image is the body itself, whatever its content type says, or the part ``file`` of a multipart form.
    Sex and subject are query parameters or fields of that form. Nothing is ignored silently: a parameter
    that does not exist is refused, so that a misspelt one cannot change a reading unnoticed.

    Raises:
        Problem: The request does not hold exactly one image and one sex.
    """
    body = await read_body(request)
    given = request.query_params.multi_items()
    data = body
    if _media_type(request) == "multipart/form-data":
        data, fields = await _read_form(request, body)
        given = given + fields
    if unknown := {name for name, _ in given} - {"sex", "subject"}:
        raise Problem(
            "unknown_parameter", f"The parameters are sex and subject, got also {_quoted(min(unknown))}. Remove it."
        )
    sex = parse_sex(value for name, value in given if name == "sex")
    return Query(data, sex, parse_subject(value for name, value in given if name == "subject"))


def parse_sex(words: Iterable[str]) -> str:
    """The one sex that all given words mean.

    Raises:
        Problem: No word, an unknown word, or words that contradict each other.
    """
    meanings = set()
    for word in words:
        if (meaning := SEX_WORDS.get(word.strip().lower())) is None:
            raise Problem("sex_unknown_word", f"The sex must be male or female (or m, f), got {_quoted(word)}.")
        meanings.add(meaning)
    if not meanings:
        raise Problem(
            "sex_missing", "The reading depends on the sex, and none was given. Add ?sex=male or ?sex=female."
        )
    if len(meanings) > 1:
        raise Problem("sex_contradiction", "The sex was given as male and as female. Send one of them, once.")
    return meanings.pop()


def parse_subject(words: Iterable[str]) -> str | None:
    """The one subject that was given, or None.

    Raises:
        Problem: It is empty, too long, or there are two.
    """
    subjects = set(words)
    if not subjects:
        return None
    (subject, *others) = subjects
    if others or not (0 < len(subject) <= 128 and subject.isprintable()):
        raise Problem(
            "subject_malformed", "A subject has 1 to 128 printable letters, and a request has one. Send an identifier."
        )
    return subject


def answer(prediction: "Prediction") -> dict[str, Any]:
    """A prediction as plain JSON values; the gateway adds the request's id."""
    return {
        "bone_age_months": round(float(prediction.bone_age_months), 4),
        "bone_age": prediction.bone_age,
        "spread_months": round(float(prediction.spread_months), 4),
        "intervals": _intervals(prediction.intervals),
        "by_sex": {
            sex: {
                "bone_age_months": round(answer.bone_age_months, 4),
                "intervals": _intervals(answer.intervals),
                "probability": round(answer.probability, 4),
            }
            for sex, answer in prediction.by_sex.items()
        },
        "male_probability": None if prediction.male_probability is None else round(prediction.male_probability, 4),
        "chronology": prediction.chronology.to_dict() if prediction.chronology else None,
        "profile": prediction.profile,
        "distribution": [round(float(share), 7) for share in prediction.distribution],
        "warnings": [{"code": finding.code, "message": finding.message} for finding in prediction.warnings],
        "version": prediction.version,
        "recipe": prediction.recipe,
    }


def _intervals(intervals: Mapping[int, tuple[float, float]]) -> dict[str, list[float]]:
    """Low and high ends in months, by percent of cases held; JSON's keys are words."""
    return {str(level): [round(low, 4), round(high, 4)] for level, (low, high) in intervals.items()}


def describe(bundle: "Bundle", aliases: Mapping[str, str]) -> dict[str, Any]:
    """A bundle as ``GET /v1/versions`` lists it."""
    return {
        "version": bundle.version,
        "aliases": sorted(alias for alias, version in aliases.items() if version == bundle.version),
        "recipe": bundle.recipe.hash,
        "members": len(bundle.members),
    }


async def read_body(request: Request) -> bytes:
    """The whole body; the limit counts what arrives, since Content-Length may lie or be absent."""
    too_large = Problem("too_large", f"A body may have {MAX_BODY_BYTES:,} bytes. Send the image compressed or smaller.")
    declared = request.headers.get("content-length", "")
    if request.headers.get("expect") and declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise too_large  # the client waits for leave to send: refuse before it does
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                size += len(piece)
                if size <= MAX_BODY_BYTES:
                    pieces.append(piece)
                elif size <= MAX_DISCARDED_BYTES:
                    pieces.clear()
                else:
                    break
    except TimeoutError:
        raise Problem("body_timeout", f"The body must arrive within {BODY_TIMEOUT_S:.0f} s. Send it again.") from None
    except ClientDisconnect:
        raise Problem("body_incomplete", "The connection closed before the whole body was there.") from None
    if size > MAX_BODY_BYTES:
        raise too_large
    return b"".join(pieces)


class _Form(MultiPartParser):
    spool_max_size = MAX_BODY_BYTES  # a radiograph never touches the disk
    complete = False

    def on_end(self) -> None:
        self.complete = True


async def _read_form(request: Request, body: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    """The bytes of the part ``file``, and the text fields."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _Form(request.headers, stream(), max_files=8, max_fields=16, max_part_size=1024)
    try:
        form = await parser.parse()
    except MultiPartException as error:  # its messages quote nothing of the form
        raise Problem("bad_multipart", f"The multipart form cannot be read: {error.message}") from None
    try:
        if not parser.complete:
            raise Problem("bad_multipart", "The multipart form lacks its closing boundary: it was cut short.")
        files = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        others = [name for name, part in form.multi_items() if isinstance(part, UploadFile) and name != "file"]
        if not files:
            raise Problem(
                "file_missing",
                'The form has no file in a part named "file", as curl -F file=@radiograph.png sends.',
            )
        if len(files) > 1 or others:
            raise Problem(
                "too_many_files",
                f"A request scores one image, got {len(files) + len(others)}. Send one each.",
            )
        fields = [(name, part) for name, part in form.multi_items() if isinstance(part, str)]
        return await files[0].read(), fields
    finally:
        await form.close()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")
