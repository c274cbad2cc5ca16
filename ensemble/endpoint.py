"""Any HTTP endpoint that takes a radiograph and says a bone age, asked under stress like a bundle.

Whatever it replies, however odd, is one answer, refusal or failure of that request: it never ends the run.
"""

import http.client
import json
import math
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from ensemble.subjects import Answer, Query

Unit = Literal["months", "years"]
_MONTHS: dict[Unit, float] = {"months": 1.0, "years": 12.0}

_TIMEOUT_S = 120.0
_MAX_ATTEMPTS = 6
_MAX_WAIT_S = 60.0
"""Of one wait: a limit counts by the minute."""
_REFUSALS = (400, 413, 415, 422)
"""What a service says of a file that it was given and will not read; any other status says nothing of the file."""
_UNREADABLE = (OSError, ValueError, RecursionError, http.client.HTTPException)
"""What reading a reply raises: a connection that breaks off, a status line or JSON that is none, or one too deep."""
_YOUNGEST_MONTHS, _OLDEST_MONTHS = -12.0, 300.0
"""Of any bone age that a system can mean, with room for its error; what lies outside is another unit, or a mark such as
-999 for none."""
_MAX_CODE = 80
"""Letters of a code; what is longer is prose."""


class SubjectError(ValueError):
    """The endpoint cannot be asked at all."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """How an HTTP service is asked. As it stands: Carpal's own ``POST /v1/score``, the file as the body."""

    url: str
    """Where to post; without a path, ``/v1/score`` is added. `SubjectError` where nothing could be sent to it."""
    form: str = ""
    """Field of a multipart form that holds the file; empty sends it as the body."""
    sex_field: str = "sex"
    """Field of the form, or of the query, that states the sex."""
    sex_words: tuple[str, ...] = ("female", "male", "unknown")
    """For a girl, a boy and a sex that is not known; without the third the field is then left out."""
    age_field: str = "chronological_age_months"
    """The same for the chronological age; left out where the query states none."""
    age_unit: Unit = "months"
    """Of the chronological age that is stated."""
    answer: str = "bone_age_months"
    """Where in the JSON the bone age stands; dots go deeper. What is no number there is a failure (``no_answer``), and
    so is one that is not finite or no human's, below -12 or above 300 months (``impossible_age``)."""
    answer_unit: Unit = "months"
    """Of the bone age and of its interval."""
    interval: str = "intervals.90"
    """Where the ends of the 90 % interval stand, low and high, where there is one. What stands there otherwise, such as
    one end, a null, or low above high, is no interval, and the bone age is an answer without one."""
    key: str = field(default="", repr=False)
    """Sent as a bearer token; empty sends none. `SubjectError` where no header can hold it."""

    def __post_init__(self) -> None:
        _check(self.url)
        if not (self.key.isascii() and self.key.isprintable()):  # every request would fail; it is not said again
            raise SubjectError(
                f"A key is of printable ASCII, got one of {len(self.key)} letters that is not. Mend CARPAL_KEY."
            )

    def ask(self, queries: Sequence[Query]) -> list[Answer]:
        """Ask a few at a time.

        Raises:
            SubjectError: Nobody answers at that address.
        """
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self._ask, queries))

    def _ask(self, query: Query) -> Answer:
        data, sex, age = query.data, query.sex, query.chronological_age_months
        words = dict(zip(("female", "male", None), self.sex_words, strict=False))
        said = {self.sex_field: words[sex]} if sex in words else {}
        said |= {} if age is None else {self.age_field: f"{age / _MONTHS[self.age_unit]:.4f}"}
        parts = urllib.parse.urlsplit(self.url)
        url = (parts if parts.path.strip("/") else parts._replace(path="/v1/score")).geturl()
        if self.form:
            body, kind = _multipart(said, self.form, data)
        else:
            body, kind = data, "application/octet-stream"
            url += ("&" if parts.query else "?") + urllib.parse.urlencode(said) if said else ""
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(url, body, headers, method="POST")
        # a web proxy in the environment must not catch what stays on this machine
        proxies: dict[str, str] | None = {} if parts.hostname in ("127.0.0.1", "localhost", "::1") else None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
        try:
            return self._answer(_read(opener, request))
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise SubjectError(
                    f"{url} wants a key that may score: {_reason(error)}. Put it into CARPAL_KEY."
                ) from None
            return Answer(None, reason=_reason(error), is_failure=error.code not in _REFUSALS)
        except TimeoutError:
            return Answer(None, reason="timeout", is_failure=True)
        except _UNREADABLE as error:
            if isinstance(getattr(error, "reason", error), ConnectionRefusedError):
                raise SubjectError(f"Nobody answers at {url}. Start the service, or mend the address.") from None
            is_late = isinstance(getattr(error, "reason", None), TimeoutError)
            return Answer(None, reason="timeout" if is_late else "no_answer", is_failure=True)

    def _answer(self, body: Any) -> Answer:
        value = _at(body, self.answer)
        if not isinstance(value, float):
            return Answer(None, reason="no_answer", is_failure=True)
        scale = _MONTHS[self.answer_unit]
        if not _YOUNGEST_MONTHS <= scale * value <= _OLDEST_MONTHS:  # nor is NaN
            return Answer(None, reason="impossible_age", is_failure=True)
        warnings = _at(body, "warnings")
        codes = [_code(warning) for warning in warnings] if isinstance(warnings, list) else []
        interval = _interval(_at(body, self.interval), scale)
        return Answer(scale * value, interval, warnings=tuple(code for code in codes if code))


def _check(url: str) -> None:
    """Refuse what no request can be sent to, before anything is asked."""
    rule = "A service's address is http(s)://HOST[:PORT][/PATH][?QUERY]"
    if " " in url or not (url.isascii() and url.isprintable()):
        raise SubjectError(f"{rule} in ASCII without spaces, got {url!r}. Write other letters percent-encoded.")
    try:
        parts = urllib.parse.urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number up to 65535, or of a bracket that is left open
        is_whole = False
    if not is_whole:
        raise SubjectError(f"{rule} with a PORT from 1 to 65535, got {url!r}. Mend the address.")
    if "@" in parts.netloc:  # which may hold a password, so it is not said again
        raise SubjectError(f"{rule}, got a name before {parts.hostname!r}. Leave it out; a key goes into CARPAL_KEY.")
    if "#" in url:
        raise SubjectError(f"{rule}, got {url!r}. Leave out # and what follows: no service is sent it.")


def _read(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> Any:
    """The answer's JSON; a service that is busy, or counts requests, is asked again when it says so."""
    for attempt in range(_MAX_ATTEMPTS):
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                return json.loads(response.read(), parse_int=float)  # of 400 digits too, which is then infinite
        except urllib.error.HTTPError as error:
            after = error.headers.get("Retry-After", "")
            if error.code not in (429, 503) or not after.isdecimal() or attempt == _MAX_ATTEMPTS - 1:
                raise
            error.close()
            time.sleep(min(float(after), _MAX_WAIT_S))
    raise AssertionError("the last attempt returns or raises")


def _at(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _interval(ends: Any, scale: float) -> tuple[float, float] | None:
    if not (isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, float) for end in ends)):
        return None
    low, high = scale * ends[0], scale * ends[1]
    return (low, high) if -math.inf < low <= high < math.inf else None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        code = _code(json.loads(error.read()))
    except _UNREADABLE:
        code = ""
    return code or f"http_{error.code}"


def _code(body: Any) -> str:
    """What stands in its field ``code``; empty of anything that a report could not print as one."""
    code = _at(body, "code")
    return code if isinstance(code, str) and len(code) <= _MAX_CODE and code.isprintable() else ""


def _multipart(fields: dict[str, str], name: str, data: bytes) -> tuple[bytes, str]:
    mark = secrets.token_hex(16)
    head = "".join(f'--{mark}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items())
    head += f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="radiograph"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return head.encode() + data + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"
