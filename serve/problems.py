"""Refusals: every code the service answers with, and the one shape in which a caller gets it.

Every refusal is one JSON object of RFC 9457 (``application/problem+json``) with a stable ``code``; `STATUS` lists them
all.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

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
    "not_a_hand": 422,
    "two_hands": 422,
    "cut_off": 422,
    "saturated": 422,
    "low_contrast": 422,
    "bad_multipart": 400,
    "file_missing": 422,
    "too_many_files": 422,
    "batch_malformed": 422,
    "report_impossible": 422,
    # the parameters
    "sex_missing": 422,
    "sex_unknown_word": 422,
    "sex_contradiction": 422,
    "unknown_parameter": 422,
    "page_malformed": 422,
    "subject_malformed": 422,
    "chronological_age_malformed": 422,
    "profile_unknown": 422,
    "profile_unavailable": 422,
    "explain_malformed": 422,
    "reference_malformed": 422,
    "body_malformed": 422,
    "experiment_refused": 409,
    "release_refused": 409,
    # the caller
    "key_missing": 401,
    "key_wrong": 401,
    "role_missing": 403,
    "rate_limited": 429,
    "cross_origin": 403,
    "foreign_host": 421,
    "idempotency_malformed": 422,
    "idempotency_conflict": 422,
    # the request
    "bad_request": 400,
    "body_incomplete": 400,
    "body_timeout": 408,
    "not_found": 404,
    "prediction_unknown": 404,
    "heatmap_unknown": 404,
    "experiment_unknown": 404,
    "version_unknown": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
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

    def body(self, request_id: str) -> dict[str, Any]:
        """The refusal as plain JSON values."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }

    def response(self, request_id: str) -> Response:
        """The refusal as JSON."""
        body = self.body(request_id)
        return Response(json.dumps(body), self.status, self.headers, media_type="application/problem+json")
