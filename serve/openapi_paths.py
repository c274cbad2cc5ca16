"""What can be asked of the service: one `Operation` a method and path, in the order of the readable page."""

from ensemble.bundle import VERSION_PATTERN
from serve.audit_routes import MAX_ID, MAX_LIMIT
from serve.entries import ID_PATTERN
from serve.experiment import NAME_PATTERN
from serve.experiment_routes import ACTS
from serve.openapi_parts import (
    AS_DICOM,
    AS_FHIR,
    FILE,
    FILES,
    IDEMPOTENCY,
    QUERY,
    SEX,
    Operation,
    in_forms,
    json_body,
    ok,
    parameter,
)
from serve.problems import STATUS
from serve.version_routes import VERSION_ACTS

_OF_THE_IMAGE = tuple(list(STATUS)[: list(STATUS).index("batch_malformed")])
_OF_THE_PARAMETERS = (
    *("sex_missing", "sex_unknown_word", "sex_contradiction", "unknown_parameter", "subject_malformed"),
    *("chronological_age_malformed", "profile_unknown", "profile_unavailable", "explain_malformed"),
    *("idempotency_malformed", "idempotency_conflict", "rate_limited"),
)
_OF_A_BODY = ("body_malformed", "body_incomplete", "body_timeout", "too_large")

_ID = parameter("id", {"type": "string", "pattern": f"^{ID_PATTERN.pattern}$"}, "`prediction_id` of an answer", "path")
_NAME = parameter("name", {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"}, "Of the experiment", "path")


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/score",
        name="score",
        summary="Bone age of one radiograph",
        description="PNG, JPEG, TIFF, BMP or DICOM. The answer is stored before it is given. A key may have so many "
        "images a minute; each gateway counts for itself, and a service has one unless it was given more.",
        role="score",
        parameters=[SEX, *QUERY, IDEMPOTENCY],
        body=FILE,
        answers=in_forms(ok("The reading", "Answer"), AS_FHIR, AS_DICOM),
        codes=(
            *(*_OF_THE_IMAGE, *_OF_THE_PARAMETERS, "body_incomplete", "body_timeout", "not_recorded"),
            *("not_acceptable", "report_impossible"),
        ),
    ),
    Operation(
        method="POST",
        path="/v1/score/batch",
        name="score_batch",
        summary="Bone ages of several radiographs",
        description="One answer each, failures included: each stands beside the status that it would have had alone, "
        "also where what is said about it is wrong. What is not done in time stands there as a `timeout`.",
        role="score",
        parameters=[
            *[parameter(each["name"], {"type": "string"}, "As of one, for all files") for each in (SEX, *QUERY)],
            IDEMPOTENCY,
        ],
        body=FILES,
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
        answers=in_forms(ok("As it was given", "Prediction"), AS_FHIR),
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
        description="Versions are compared by it, and of each reader's the latest counts. Sent again, it changes "
        "nothing and answers 200, unless its reader has given another one meanwhile: no `Idempotency-Key` counts here.",
        tag="predictions",
        role="score",
        parameters=[_ID],
        body=json_body("Reference"),
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
        body=json_body("VersionWanted"),
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
            parameter("version", {"type": "string", "pattern": f"^{VERSION_PATTERN.pattern}$"}, "In full", "path"),
            parameter("act", {"type": "string", "enum": list(VERSION_ACTS)}, "What to do", "path"),
        ],
        body=json_body("Nothing", required=False, words="There is nothing to say."),
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
        body=json_body("ExperimentWanted"),
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
        parameters=[_NAME, parameter("act", {"type": "string", "enum": list(ACTS)}, "What to do", "path")],
        body=json_body("Share", required=False, words="For `share` alone."),
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
            parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}, "Acts on a page"),
            parameter("before", {"type": "integer", "minimum": 1, "maximum": MAX_ID}, "Only what is older"),
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
        description="Asks the ensemble itself, and tells whether the ledger takes answers or they wait on disk; "
        "where neither has room for one, none can be given.",
        tag="service",
        answers=ok("It can", "Ready"),
        codes=("not_recorded",),
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
