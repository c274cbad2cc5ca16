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
MAX_FILES = 64
"""Of one batch."""
MAX_BATCH_BYTES = 4 * MAX_BODY_BYTES
"""Of all its files together."""
BODY_TIMEOUT_S = 30.0
"""Time for the whole body to arrive."""


def announced_bytes(request: Request, max_bytes: int = MAX_BODY_BYTES) -> int:
    """How much of a request's body will be held at most: what it announces, or all that it may have."""
    declared = request.headers.get("content-length", "")
    return min(int(declared), max_bytes) if declared.isdecimal() else max_bytes


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
    # eight, so that the refusal says how many there are; beyond that the form itself is refused
    files, fields = await _read_form(request, body, max_files=8, max_fields=16)
    if len(files) > 1:
        sentence = f"A request scores one image, got {len(files)}. Send one each, or all to /v1/score/batch."
        raise Problem("too_many_files", sentence)
    return files[0], given + fields


async def read_batch(request: Request) -> tuple[list[bytes], list[tuple[str, str]], list[tuple[str, str]]]:
    """The files of a batch, in order, the parameters of its path, and the text fields of its form.

    Raises:
        Problem: The body is no form with one file to `MAX_FILES`.
    """
    if _media_type(request) != "multipart/form-data":
        sentence = 'A batch is a multipart form with several parts "file", as curl -F file=@a.png -F file=@b.png sends.'
        raise Problem("bad_multipart", sentence)
    body = await read_body(request, MAX_BATCH_BYTES)
    files, fields = await _read_form(request, body, max_files=MAX_FILES, max_fields=8 * MAX_FILES)
    return files, request.query_params.multi_items(), fields


async def read_small_body(request: Request, max_bytes: int) -> bytes:
    """The whole body of a request that holds no place: where it is too large, nothing of it is read in vain."""
    return await _read(request, max_bytes, max_bytes, "Send less.")


async def read_body(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The whole body; the limit counts what arrives, since Content-Length may lie or be absent."""
    return await _read(request, max_bytes, MAX_DISCARDED_BYTES, "Send images compressed, smaller, or fewer.")


async def _read(request: Request, max_bytes: int, max_read: int, remedy: str) -> bytes:
    too_large = Problem("too_large", f"A body may have {max_bytes:,} bytes here. {remedy}")
    declared = request.headers.get("content-length", "")
    is_for_nobody = max_read <= max_bytes or request.headers.get("expect")  # or the client waits for leave to send
    if is_for_nobody and declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                size += len(piece)
                if size <= max_bytes:
                    pieces.append(piece)
                elif size <= max_read:
                    pieces.clear()
                else:
                    break
    except TimeoutError:
        raise Problem("body_timeout", f"The body must arrive within {BODY_TIMEOUT_S:.0f} s. Send it again.") from None
    except ClientDisconnect:
        raise Problem("body_incomplete", "The connection closed before the whole body was there.") from None
    if size > max_bytes:
        raise too_large
    return b"".join(pieces)


class _Form(MultiPartParser):
    spool_max_size = MAX_BATCH_BYTES  # a radiograph never touches the disk
    complete = False

    def on_end(self) -> None:
        self.complete = True


async def _read_form(
    request: Request, body: bytes, *, max_files: int, max_fields: int
) -> tuple[list[bytes], list[tuple[str, str]]]:
    """The bytes of the parts ``file``, one at least, and the text fields."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _Form(request.headers, stream(), max_files=max_files, max_fields=max_fields, max_part_size=1024)
    try:
        form = await parser.parse()
    except MultiPartException as error:  # its messages quote nothing of the form
        raise Problem("bad_multipart", f"The multipart form cannot be read: {error.message}") from None
    except UnicodeError:  # of a codec such as Python's "undefined"; the parser foresees its subclasses alone
        raise Problem("bad_multipart", "The multipart form is not in the charset that it names. Send utf-8.") from None
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
        if others:
            raise Problem("too_many_files", 'The form has a file in a part of another name than "file". Remove it.')
        fields = [(name, part) for name, part in form.multi_items() if isinstance(part, str)]
        return [await file.read() for file in files], fields
    finally:
        await form.close()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
