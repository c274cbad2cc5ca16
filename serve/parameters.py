"""What a request says beside the image: its idempotency key, a reading that came later, a JSON object."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from serve.problems import Problem
from serve.uploads import read_small_body

MAX_JSON_BYTES = 64 * 1024
"""Of a body of JSON: it is read without a place among the requests, and parsed on the event loop."""


def parse_idempotency_key(words: list[str]) -> str | None:
    """The ``Idempotency-Key`` of a request, or None.

    Raises:
        Problem: It is too long, holds anything but visible ASCII, or there are two.
    """
    if not words:
        return None
    if len(words) > 1 or not (0 < len(words[0]) <= 128 and all("!" <= letter <= "~" for letter in words[0])):
        raise Problem("idempotency_malformed", "An Idempotency-Key has 1 to 128 visible ASCII letters. Send one such.")
    return words[0]


async def read_reference(request: Request) -> tuple[float, str]:
    """A reading, and the code of its reader: ``{"bone_age_months": 96.5, "reader": "b"}``.

    Raises:
        Problem: The body holds no such object.
    """
    values = await read_json_object(request, {"bone_age_months": float}, {"reader": str})
    reader = values.get("reader", "")
    if not (len(reader) <= 32 and reader.isascii() and reader.isprintable()):
        raise Problem("reference_malformed", "A reader is a code of at most 32 ASCII letters, no name. Shorten it.")
    return values["bone_age_months"], reader


async def read_json_object(
    request: Request, required: Mapping[str, type], optional: Mapping[str, type]
) -> dict[str, Any]:
    """A JSON object with these members and no others; no body stands for an empty one.

    Raises:
        Problem: It is none, lacks a member, has one too many, or one of another type; or it is too large.
    """
    body = await read_small_body(request, MAX_JSON_BYTES)
    try:
        values = json.loads(body, parse_constant=_no_number) if body else {}
    except (ValueError, RecursionError):
        values = None
    names = f"{', '.join(required) or 'no member that must be there'}; {', '.join(optional) or 'no other'}"
    malformed = Problem("body_malformed", f"The body is a JSON object with {names}. Send one.")
    known = {**required, **optional}
    if not isinstance(values, dict) or set(values) - set(known) or set(required) - set(values):
        raise malformed
    for name, value in values.items():
        if known[name] is float and isinstance(value, int | float) and not isinstance(value, bool):
            values[name] = float(value) if abs(value) < 1e300 else float("inf")
        elif not isinstance(value, known[name]):
            raise malformed
    return values


def _no_number(word: str) -> float:
    raise ValueError(word)  # NaN and Infinity are no JSON
