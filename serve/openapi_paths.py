"""What can be asked of the service: one `Operation` a method and path, in the order of the readable page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ensemble.bundle import VERSION_PATTERN
from ensemble.chronology import OLDEST_MONTHS
from serve.audit_routes import MAX_ID, MAX_LIMIT
from serve.entries import ID_PATTERN
from serve.experiment import NAME_PATTERN
from serve.experiment_routes import ACTS
from serve.formats import DICOM, FHIR
from serve.problems import STATUS
from serve.protocol import PROFILES
from serve.uploads import MAX_FILES
from serve.version_routes import VERSION_ACTS

IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "image/bmp", "application/dicom", "application/octet-stream")
_OF_THE_IMAGE = tuple(list(STATUS)[: list(STATUS).index("batch_malformed")])
_OF_THE_PARAMETERS = (
    *("sex_missing", "sex_unknown_word", "sex_contradiction", "unknown_parameter", "subject_malformed"),
    *("chronological_age_malformed", "profile_unknown", "profile_unavailable", "explain_malformed"),
    *("idempotency_malformed", "idempotency_conflict", "rate_limited"),
)
_OF_A_BODY = ("body_malformed", "body_incomplete", "body_timeout", "too_large")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    name: str
    """The operation's id."""
    summary: str
    description: str = ""
    tag: str = "scoring"
    role: str = ""
    """That a key needs; empty asks for none."""
    parameters: list[dict[str, Any]] = field(default_factory=list)
    body: dict[str, Any] | None = None
    answers: Mapping[str, Any]
    """Responses by status, of success."""
    codes: tuple[str, ...] = ()
    """Problems of its own."""


def ok(words: str, schema: str, kind: str = "application/json", status: str = "200") -> dict[str, Any]:
    """A response with a body of one of the schemas."""
    return {status: {"description": words, "content": {kind: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}}


def _json(schema: str, *, required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"required": required, "content": content}


def _parameter(name: str, schema: dict[str, Any], words: str, place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "description": words, "schema": schema}


_ID = _parameter("id", {"type": "string", "pattern": f"^{ID_PATTERN.pattern}$"}, "`prediction_id` of an answer", "path")
_NAME = _parameter("name", {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"}, "Of the experiment", "path")
_SEX = _parameter(
    "sex", {"type": "string", "enum": ["male", "female", "unknown"]}, "The reading depends on it; `unknown` gets both"
) | {"required": True}
_QUERY = [
    _parameter(
        "subject",
        {"type": "string", "minLength": 1, "maxLength": 128},
        "Whose radiograph it is; a pseudonym is stored",
    ),
    _parameter(
        "chronological_age_months",
        {"type": "number", "minimum": 0, "maximum": OLDEST_MONTHS},
        "When it was taken; judges the answer, never changes it",
    ),
    _parameter("profile", {"type": "string", "enum": list(PROFILES)}, "Which members answer"),
    _parameter("explain", {"type": "string", "enum": ["true", "false"]}, "Whether a heat map is wanted too"),
]
_FIELDS = {each["name"]: each["schema"] for each in (_SEX, *_QUERY)}
_IDEMPOTENCY = _parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
    "A repeated request with the same key gets the first answer, with `Idempotent-Replayed: true`",
    "header",
)
_FILE = {
    "required": True,
    "description": "The file as the whole body, whatever its content type says, or as the part `file` of a form, whose "
    "text fields may hold the parameters.",
    "content": {
        **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}, **_FIELDS},
                "additionalProperties": False,
            }
        },
    },
}
_FILES = {
    "required": True,
    "description": "A form with parts `file`. A parameter is said once for all files, in the path or as one field, or "
    "once for each of them, as fields in the files' order; an empty field says nothing about its file.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "minItems": 1,
                        "maxItems": MAX_FILES,
                    },
                    **{name: {"type": "array", "items": {"type": "string"}} for name in _FIELDS},
                },
                "additionalProperties": False,
            }
        }
    },
}
_FHIR: dict[str, Any] = {FHIR: {"schema": {"type": "object", "properties": {"resourceType": {"const": "Observation"}}}}}
_DICOM: dict[str, Any] = {DICOM: {"schema": {"type": "string", "contentMediaType": DICOM}}}


def _in_forms(answers: dict[str, Any], *forms: dict[str, Any]) -> dict[str, Any]:
    """The answers, 200 also in other media types than JSON, by ``Accept``."""
    content = answers["200"]["content"]
    for form in forms:
        content = {**content, **form}
    return {**answers, "200": {**answers["200"], "content": content}}


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/score",
        name="score",
        summary="Bone age of one radiograph",
        description="PNG, JPEG, TIFF, BMP or DICOM. The answer is stored before it is given. A key may have so many "
        "images a minute; each gateway counts for itself, and a service has one unless it was given more.",
        role="score",
        parameters=[_SEX, *_QUERY, _IDEMPOTENCY],
        body=_FILE,
        answers=_in_forms(ok("The reading", "Answer"), _FHIR, _DICOM),
        codes=(
            *(*_OF_THE_IMAGE, *_OF_THE_PARAMETERS, "body_incomplete", "body_timeout", "not_recorded", "timeout"),
            *("not_acceptable", "report_impossible"),
        ),
    ),
    Operation(
        method="POST",
        path="/v1/score/batch",
        name="score_batch",
        summary="Bone ages of several radiographs",
        description="One answer each, failures included: each stands beside the status that it would have had alone, "
        "also where what is said about it is wrong.",
        role="score",
        parameters=[
            *[_parameter(each["name"], {"type": "string"}, "As of one, for all files") for each in (_SEX, *_QUERY)],
            _IDEMPOTENCY,
        ],
        body=_FILES,
        answers=ok("One answer a file, in their order", "Batch"),
        codes=(
            *("batch_malformed", "unknown_parameter", "bad_multipart", "file_missing", "too_many_files", "too_large"),
            *("empty", "idempotency_malformed", "rate_limited", "body_incomplete", "body_timeout"),
        ),
    ),
    Operation(
        method="GET",
        path="/v1/predictions/{id}",
        name="prediction",
        summary="A stored prediction",
        description="With its shadow, where a challenger scored beside it, and the readings that came later.",
        tag="predictions",
        role="read",
        parameters=[_ID],
        answers=_in_forms(ok("As it was given", "Prediction"), _FHIR),
        codes=("prediction_unknown", "not_acceptable"),
    ),
    Operation(
        method="GET",
        path="/v1/predictions/{id}/heatmap.png",
        name="heatmap",
        summary="Where an answer came from",
        description="An RGBA picture of months by place, to be laid over the radiograph with the answer's "
        "`heatmap.matrix`. Of an answer to `explain=true`; the key that asked for it may see it too.",
        tag="predictions",
        role="read",
        parameters=[_ID],
        answers={"200": {"description": "PNG", "content": {"image/png": {"schema": {"type": "string"}}}}},
        codes=("prediction_unknown", "heatmap_unknown"),
    ),
    Operation(
        method="POST",
        path="/v1/predictions/{id}/reference",
        name="reference",
        summary="A reading that came later",
        description="Versions are compared by it. The same reading sent again changes nothing and answers 200.",
        tag="predictions",
        role="score",
        parameters=[_ID],
        body=_json("Reference"),
        answers={**ok("It was known", "ReferenceKept"), **ok("It is new", "ReferenceKept", status="201")},
        codes=("prediction_unknown", "reference_malformed", *_OF_A_BODY),
    ),
    Operation(
        method="GET",
        path="/v1/versions",
        name="versions",
        summary="The ensemble versions that are served",
        tag="versions",
        role="read",
        answers=ok("Newest first", "Versions"),
    ),
    Operation(
        method="POST",
        path="/v1/versions",
        name="add_version",
        summary="Load a version beside the others",
        description="It gets no traffic yet. The list of versions tells when it is ready, or why it cannot be served.",
        tag="versions",
        role="admin",
        body=_json("VersionWanted"),
        answers=ok("It is being loaded, or was there", "Routing", status="202"),
        codes=("release_refused", *_OF_A_BODY),
    ),
    Operation(
        method="POST",
        path="/v1/versions/{version}/{act}",
        name="act_on_version",
        summary="Let a version answer from now on, or take it down",
        description="`champion` wants one that is ready; the one before stays loaded, as the way back. `retire` wants "
        "one that answers nobody.",
        tag="versions",
        role="admin",
        parameters=[
            _parameter("version", {"type": "string", "pattern": f"^{VERSION_PATTERN.pattern}$"}, "In full", "path"),
            _parameter("act", {"type": "string", "enum": list(VERSION_ACTS)}, "What to do", "path"),
        ],
        body=_json("Nothing", required=False) | {"description": "There is nothing to say."},
        answers=ok("The routing from now on", "Routing"),
        codes=("version_unknown", "release_refused", "not_found", *_OF_A_BODY),
    ),
    Operation(
        method="GET",
        path="/v1/experiments",
        name="experiments",
        summary="Every experiment, and who is champion",
        tag="experiments",
        role="read",
        answers=ok("Newest first", "Experiments"),
    ),
    Operation(
        method="POST",
        path="/v1/experiments",
        name="start_experiment",
        summary="Put a challenger beside the champion",
        description="One experiment runs at a time. Left out, `mode` is `shadow`, `shares` all, half, or 5, 20, 50 %.",
        tag="experiments",
        role="admin",
        body=_json("ExperimentWanted"),
        answers=ok("It runs", "Routing", status="201"),
        codes=("experiment_refused", *_OF_A_BODY),
    ),
    Operation(
        method="GET",
        path="/v1/experiments/{name}",
        name="experiment",
        summary="The report of an experiment",
        description="Difference in error with an interval that may be looked at at any time, agreement, subgroups, "
        "latency, failures, the check of the split, and what the policy makes of it.",
        tag="experiments",
        role="read",
        parameters=[_NAME],
        answers=ok("As of now", "Report"),
        codes=("experiment_unknown",),
    ),
    Operation(
        method="POST",
        path="/v1/experiments/{name}/{act}",
        name="act_on_experiment",
        summary="Promote, roll back, stop, or give a split another share",
        tag="experiments",
        role="admin",
        parameters=[_NAME, _parameter("act", {"type": "string", "enum": list(ACTS)}, "What to do", "path")],
        body=_json("Share", required=False) | {"description": "For `share` alone."},
        answers=ok("The routing from now on", "Routing"),
        codes=("experiment_unknown", "experiment_refused", "not_found", *_OF_A_BODY),
    ),
    Operation(
        method="GET",
        path="/v1/audit",
        name="audit",
        summary="Every act of an administrator or a policy",
        description="Newest first. `next` of one page is `before` of the one after it, and null on the last.",
        tag="service",
        role="admin",
        parameters=[
            _parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}, "Acts on a page"),
            _parameter("before", {"type": "integer", "minimum": 1, "maximum": MAX_ID}, "Only what is older"),
        ],
        answers=ok("With the data they were decided on", "Audit"),
        codes=("unknown_parameter", "page_malformed"),
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Counters for Prometheus",
        tag="service",
        role="read",
        answers={
            "200": {
                "description": "Of every gateway",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    ),
    Operation(
        method="GET",
        path="/healthz",
        name="alive",
        summary="Whether the gateway lives",
        tag="service",
        answers=ok("It does", "Alive"),
    ),
    Operation(
        method="GET",
        path="/readyz",
        name="ready",
        summary="Whether an answer can be given now",
        description="Asks the ensemble itself, and tells whether the ledger takes answers or they wait on disk.",
        tag="service",
        answers=ok("It can", "Ready"),
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="contract",
        summary="This document",
        tag="service",
        answers={
            "200": {"description": "OpenAPI 3.1", "content": {"application/json": {"schema": {"type": "object"}}}}
        },
    ),
)
