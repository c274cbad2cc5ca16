"""The contract of the service as an OpenAPI 3.1 document: `document` builds it, ``GET /openapi.json`` gives it.

Paths stand in `serve.openapi_paths`, shapes in `serve.openapi_schemas`. A test holds that every route of version 1 is
described and that no other is, and the answers are tried against the document with thousands of requests.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from serve.openapi_parts import Operation
from serve.openapi_paths import OPERATIONS
from serve.openapi_schemas import SCHEMAS
from serve.problems import STATUS

ROLE_WORDS = {"score": "score", "read": "read", "admin": "admin", "": "none: anybody may ask"}
_ALWAYS = ("bad_request", "internal", "unavailable", "overloaded", "timeout")
"""Problems that any request may meet: the last four in whatever stands before the service, too."""
_OF_KEYS = ("key_missing", "key_wrong", "role_missing")
_WHERE_OPEN = ("foreign_host",)


def document(*, is_open: bool) -> dict[str, Any]:
    """The document of this service.

    Args:
        is_open: Whether it asks for no key.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, is_open)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Carpal",
            "version": "1",
            "summary": "Bone age from hand radiographs.",
            "description": "Research software. Not for clinical use. Every refusal is a problem (RFC 9457) with a "
            "stable `code`; every answer carries `X-Request-ID`. `Idempotency-Key` counts where it is "
            "named, and nowhere else.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {} if is_open else {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation, is_open: bool) -> dict[str, Any]:
    needs_key = bool(operation.role) and not is_open
    is_reading = operation.method == "GET"
    codes = [*operation.codes, *_ALWAYS, *(_OF_KEYS if needs_key else ()), *(() if is_reading else ("cross_origin",))]
    codes += _WHERE_OPEN if is_open else ()
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.description,
        "tags": [operation.tag],
        "x-role": ROLE_WORDS[operation.role],
        "responses": {**operation.answers, **problems(codes)},
    }
    if operation.parameters:
        described["parameters"] = operation.parameters
    if operation.body:
        described["requestBody"] = operation.body
    if needs_key:
        described["security"] = [{"key": []}]
    return described


def problems(codes: Iterable[str]) -> dict[str, Any]:
    """The responses, by status, that problems with these codes are."""
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in found)}",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, found in sorted(by_status.items())
    }
