"""What the contract is put together from: an `Operation`, and the parameters and bodies of a reading."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ensemble.chronology import OLDEST_MONTHS
from serve.formats import DICOM, FHIR
from serve.parameters import MAX_JSON_BYTES
from serve.protocol import PROFILES
from serve.uploads import MAX_FILES

IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "image/bmp", "application/dicom", "application/octet-stream")


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


def json_body(schema: str, *, required: bool = True, words: str = "") -> dict[str, Any]:
    """A body of one of the schemas."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        "required": required,
        "description": f"{words} At most {MAX_JSON_BYTES:,} bytes.".strip(),
        "content": content,
    }


def parameter(name: str, schema: dict[str, Any], words: str, place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "description": words, "schema": schema}


SEX = parameter(  # that it must stand in one of two places is more than OpenAPI can say
    "sex",
    {"type": "string", "enum": ["male", "female", "unknown"]},
    "The reading depends on it; `unknown` gets both. It must be given, here or as a field of the form",
)
QUERY = [
    parameter(
        "subject",
        {"type": "string", "minLength": 1, "maxLength": 128},
        "Whose radiograph it is; a pseudonym is stored",
    ),
    parameter(
        "chronological_age_months",
        {"type": "number", "minimum": 0, "maximum": OLDEST_MONTHS},
        "When it was taken; judges the answer, never changes it",
    ),
    parameter("profile", {"type": "string", "enum": list(PROFILES)}, "Which members answer"),
    parameter("explain", {"type": "string", "enum": ["true", "false"]}, "Whether a heat map is wanted too"),
]
_FIELDS = {each["name"]: each["schema"] for each in (SEX, *QUERY)}
IDEMPOTENCY = parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
    "A repeated request with the same key gets the first answer, with `Idempotent-Replayed: true`",
    "header",
)
FILE = {
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
FILES = {
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
AS_FHIR: dict[str, Any] = {
    FHIR: {"schema": {"type": "object", "properties": {"resourceType": {"const": "Observation"}}}}
}
AS_DICOM: dict[str, Any] = {DICOM: {"schema": {"type": "string", "contentMediaType": DICOM}}}


def in_forms(answers: dict[str, Any], *forms: dict[str, Any]) -> dict[str, Any]:
    """The answers, 200 also in other media types than JSON, by ``Accept``."""
    content = answers["200"]["content"]
    for form in forms:
        content = {**content, **form}
    return {**answers, "200": {**answers["200"], "content": content}}
