"""How files arrive: as the body itself or in a multipart form; limits count what comes, not what was announced."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from preprocessing.radiograph import MAX_BYTES
from serve.problems import Problem

MAX_BODY_BYTES = MAX_BYTES + 64 * 1024
"""Largest body: the largest file, and room for the frame of a multipart form around it."""
MAX_DISCARDED_BYTES = 4 * MAX_BODY_BYTES
"""What is read of a body that is too large, and thrown away: a client sees no answer while it still sends."""
BODY_TIMEOUT_S = 30.0
"""Time for the whole body to arrive."""


async def read_upload(request: Request) -> tuple[bytes, list[tuple[str, str]]]:
    """The one file of a request, and its parameters: those of the path, then the form's text fields.

    The file is the body itself, whatever its content type says, or the part ``file`` of a multipart form.

    Raises:
        Problem: The request does not hold exactly one file.
    """
    body = await read_body(request)
    given = request.query_params.multi_items()
    if _media_type(request) != "multipart/form-data":
        return body, given
    (data,), fields = await _read_form(request, body)
    return data, given + fields


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


async def _read_form(request: Request, body: bytes) -> tuple[list[bytes], list[tuple[str, str]]]:
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
        return [await files[0].read()], fields
    finally:
        await form.close()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
