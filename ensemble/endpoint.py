"""Any HTTP endpoint that takes a radiograph and says a bone age, asked under stress like a bundle."""

import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ensemble.subjects import Answer, Query

_TIMEOUT_S = 120.0
_MAX_ATTEMPTS = 6
_MAX_WAIT_S = 60.0
"""Of one wait: a limit counts by the minute."""
_REFUSALS = (400, 413, 415, 422)
"""What a service says of a file that it was given and will not read; any other status says nothing of the file."""


class SubjectError(ValueError):
    """The endpoint cannot be asked at all."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """How an HTTP service is asked. As it stands: Carpal's own ``POST /v1/score``, the file as the body."""

    url: str
    """Where to post; without a path, ``/v1/score`` is added."""
    form: str = ""
    """Field of a multipart form that holds the file; empty sends it as the body."""
    sex_field: str = "sex"
    """Field of the form, or of the query, that states the sex."""
    sex_words: tuple[str, ...] = ("female", "male", "unknown")
    """For a girl, a boy and a sex that is not known; without the third the field is then left out."""
    age_field: str = "chronological_age_months"
    """The same for the chronological age, in months; left out where the query states none."""
    answer: str = "bone_age_months"
    """Where in the JSON the bone age stands; dots go deeper."""
    answer_unit: str = "months"
    interval: str = "intervals.90"
    """Where the ends of the 90 % interval stand, where there is one."""
    key: str = field(default="", repr=False)
    """Sent as a bearer token; empty sends none."""

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
        said |= {} if age is None else {self.age_field: f"{age:.2f}"}
        parts = urllib.parse.urlsplit(self.url)
        url = self.url if parts.path.strip("/") else f"{self.url.rstrip('/')}/v1/score"
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
                    f"{url} wants a key that may score: {_code(error)}. Put it into CARPAL_KEY."
                ) from None
            return Answer(None, reason=_code(error), is_failure=error.code not in _REFUSALS)
        except TimeoutError:
            return Answer(None, reason="timeout", is_failure=True)
        except (OSError, ValueError) as error:
            if isinstance(getattr(error, "reason", error), ConnectionRefusedError):
                raise SubjectError(f"Nobody answers at {url}. Start the service, or mend the address.") from None
            is_late = isinstance(getattr(error, "reason", None), TimeoutError)
            return Answer(None, reason="timeout" if is_late else "no_answer", is_failure=True)

    def _answer(self, body: Any) -> Answer:
        value = _at(body, self.answer)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            return Answer(None, reason="no_answer", is_failure=True)
        scale = 12.0 if self.answer_unit == "years" else 1.0
        ends = _at(body, self.interval)
        interval = (
            (float(ends[0]) * scale, float(ends[1]) * scale) if isinstance(ends, list) and len(ends) == 2 else None
        )
        warnings = body.get("warnings") if isinstance(body, dict) else None
        codes = [str(w.get("code")) for w in warnings if isinstance(w, dict)] if isinstance(warnings, list) else []
        return Answer(scale * float(value), interval, warnings=tuple(codes))


def _read(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> Any:
    """The answer's JSON; a service that is busy, or counts requests, is asked again when it says so."""
    for attempt in range(_MAX_ATTEMPTS):
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            after = error.headers.get("Retry-After", "")
            if error.code not in (429, 503) or not after.isdigit() or attempt == _MAX_ATTEMPTS - 1:
                raise
            error.close()
            time.sleep(min(float(after), _MAX_WAIT_S))
    raise AssertionError("the last attempt returns or raises")


def _at(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _code(error: urllib.error.HTTPError) -> str:
    try:
        code = json.loads(error.read()).get("code")
    except (ValueError, AttributeError, OSError):
        code = None
    return str(code) if code else f"http_{error.code}"


def _multipart(fields: dict[str, str], name: str, data: bytes) -> tuple[bytes, str]:
    mark = secrets.token_hex(16)
    head = "".join(f'--{mark}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items())
    head += f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="radiograph"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return head.encode() + data + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"
