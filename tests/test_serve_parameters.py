"""How much of a JSON body is read."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from serve.parameters import MAX_JSON_BYTES, read_json_object
from serve.problems import Problem


@pytest.mark.parametrize(("announced", "pieces"), [(b"33554432", 0), (b"1", 9), (None, 9)])
def test_json_that_is_too_large_is_read_no_further(announced: bytes | None, pieces: int) -> None:
    read = []

    async def receive() -> dict[str, Any]:
        read.append(1)
        return {"type": "http.request", "body": b" " * (MAX_JSON_BYTES // 8), "more_body": True}

    headers = [] if announced is None else [(b"content-length", announced)]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(Problem, match="65,536 bytes") as caught:
        asyncio.run(read_json_object(request, {}, {}))
    assert (caught.value.status, len(read)) == (413, pieces)
