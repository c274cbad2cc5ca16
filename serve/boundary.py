"""The outermost layer: whatever happens inside, the caller gets one request id and, on error, one JSON shape.

It stands around the gateway's app and, through a hook of Ray Serve, around Serve's own proxy as well.
There it mends what Serve's proxy does by itself (read and tried on Ray 2.60): it answers 500 when a header
such as X-Request-ID is not UTF-8, appends a second X-Request-ID, lets callers set their own time limit
by header, and reports overload or a lost replica in plain text or not at all.

It also keeps other sites' pages out. No answer carries a CORS header, so a browser lets no other origin read one; and
what would change something is refused where the browser says that another origin sent it, since an open service on
loopback can be reached by every page that its user visits (the rule of Go's ``net/http.CrossOriginProtection``). A page
whose own name is made to lead to this machine (DNS rebinding) is of the same origin for the browser; an open service
therefore answers to the names of loopback alone.
"""

import ipaddress
import re
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preprocessing import environment
from serve import logs
from serve.problems import Problem

FOR_PROCESSES = environment.FOR_PROCESSES | {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.boundary:proxy_middlewares",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
"""Environment of every process of the service; the first of the two puts the boundary around Serve's proxy."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONTROL_HEADERS = re.compile(
    rb"(serve[-_]multiplexed[-_]model[-_]id|x[-_](session[-_]id|request[-_](timeout|disc).*))"
)
"""Headers by which a caller could steer Serve's router and time limits."""
_PORT = re.compile(r":\d*$", re.ASCII)
_OWN_TYPES = ("application/json", "application/problem+json", "text/html; charset=utf-8")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SECURITY_HEADERS = {
    # scripts and styles are files of this service, never inline; a page may show pictures that it made itself
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every answer. ``Strict-Transport-Security`` belongs to whatever terminates TLS before the service."""


class Boundary:
    """ASGI middleware that gives every request an id and every failure the form of `Problem`.

    Args:
        app: What answers.
        is_local: Whether only who calls it by a name of loopback is answered.
    """

    def __init__(self, app: ASGIApp, *, is_local: bool = False) -> None:
        self._app, self._is_local = app, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _identify(scope)
        response = _Response(send, request_id)
        if self._is_local and not _is_called_local(scope):
            await response.fail("foreign_host")
            return
        if _is_foreign(scope):
            await response.fail("cross_origin")
            return
        try:
            await self._app(scope, receive, response.send)
        except Exception as error:
            logs.failure(error, request_id=request_id)
            await response.fail("internal")
        else:
            if not response.started:  # Serve's proxy returns without a word when a replica died under the request
                await response.fail("unavailable")


def proxy_middlewares() -> list[Middleware]:
    """What Ray Serve puts around its proxy; named in ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``."""
    logs.follow_serve("proxy", is_guess=True)  # where HAProxy is the proxy, Serve asks each replica for these
    return [Middleware(Boundary)]


def request_id_of(scope: MutableMapping[str, Any]) -> str:
    """The id of a request that passed a `Boundary`."""
    return str(next(value for name, value in scope["headers"] if name == b"x-request-id"), "ascii")


def is_loopback(name: str) -> bool:
    """Whether a host's name or address means this machine alone."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _identify(scope: Scope) -> str:
    """Keep a well-formed id from the caller or make one; every inner layer reads it from the same header."""
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    valid = len(given) == 1 and _REQUEST_ID.fullmatch(given[0])
    request_id = given[0] if valid else uuid.uuid4().hex.encode()
    kept = [pair for pair in scope["headers"] if pair[0] != b"x-request-id" and not _CONTROL_HEADERS.fullmatch(pair[0])]
    scope["headers"] = [*kept, (b"x-request-id", request_id)]
    return request_id.decode()


def _is_foreign(scope: Scope) -> bool:
    """Whether a browser says that a page of another origin sent this, and it is no mere reading."""
    if scope["method"] in _SAFE_METHODS:
        return False
    headers = Headers(scope=scope)
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = headers.get("origin")  # alone where the address is neither HTTPS nor loopback
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def _is_called_local(scope: Scope) -> bool:
    """Whether every ``Host`` is a name of loopback, with any port. A browser always sends one."""
    names = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return all(is_loopback(_PORT.sub("", name)) for name in names)


class _Response:
    """Passes a response on, with our headers; an error that is not in our form is replaced by one that is."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.started = self._replaced = False

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if message["status"] >= 400 and headers.get("content-type") not in _OWN_TYPES:
                await self.fail(*_translate(message["status"], headers))
                return
            self._sign(headers)
        await self._send(message)

    async def fail(self, code: str, headers: dict[str, str] | None = None) -> None:
        """Answer with a problem, unless half a response is out already: then nothing true can be added."""
        if self.started:
            return
        self._replaced = True
        response = Problem(code, _SENTENCES[code], headers).response(self._request_id)
        self._sign(response.headers)
        await self._send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self._send({"type": "http.response.body", "body": response.body})

    def _sign(self, headers: MutableHeaders) -> None:
        self.started = True
        headers["X-Request-ID"] = self._request_id
        for name, value in SECURITY_HEADERS.items():
            headers[name] = value
        headers.setdefault("Cache-Control", "no-store")


_SENTENCES = {
    "not_found": "There is nothing at this path. Try /v1/score, /v1/versions, /healthz or /readyz.",
    "bad_request": "The request cannot be understood.",
    "foreign_host": "This open service answers to localhost alone. Call it so, or make a key and serve without --open.",
    "cross_origin": "A page of another origin may not send this. Open the service's own page, or use a program.",
    "timeout": "The answer took too long and was given up. Send the request again.",
    "overloaded": "More requests wait than can be answered in time. Send it again after a pause.",
    "unavailable": "The scorer cannot be reached at the moment. Send the request again after a pause.",
    "internal": "The service failed at this request; its log has the cause under this request's id.",
}


def _translate(status: int, headers: MutableHeaders) -> tuple[str, dict[str, str]]:
    """Our code for an answer that Serve's proxy gave by itself."""
    kept = {name: headers[name] for name in ("retry-after", "allow") if name in headers}
    known = {404: "not_found", 408: "timeout", 429: "overloaded", 503: "overloaded", 504: "timeout"}
    return known.get(status, "bad_request" if status < 500 else "unavailable"), kept
