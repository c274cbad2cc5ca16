"""Shapes of what goes in and out, as JSON Schema. Answers may gain members; what is sent may hold no unknown one."""

from dataclasses import fields
from typing import Any

from ensemble.bundle import VERSION_PATTERN
from serve.entries import ID_PATTERN
from serve.experiment import BOUNDS, MODES, NAME_PATTERN, PROMOTE, Policy

_NUMBER, _TEXT, _INTEGER = {"type": "number"}, {"type": "string"}, {"type": "integer"}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_VERSION = {"type": "string", "examples": ["ens-0123456789ab"]}
_MOMENT = {"type": "string", "format": "date-time"}
_PREDICTION_ID = {"type": "string", "pattern": f"^{ID_PATTERN.pattern}$"}
_KINDS = {"float": "number", "int": "integer", "str": "string"}


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(words: str = "", *, closed: bool = False, optional: dict[str, Any] | None = None, **must: Any) -> Any:
    made: dict[str, Any] = {"type": "object", "required": list(must), "properties": {**must, **(optional or {})}}
    return made | ({"description": words} if words else {}) | ({"additionalProperties": False} if closed else {})


def _list(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": schema, **more}


_INTERVALS = {
    "type": "object",
    "description": "Low and high end in months, by percent of cases held",
    "additionalProperties": _list(_NUMBER, minItems=2, maxItems=2),
}
_SUM = {"description": "A figure with its interval", "type": "object"}
_BUNDLE = {"type": "string", "description": "Hash of the bundle's manifest; the version is its beginning"}
_COHORT = {"type": "string", "description": "Hash of the cohort that the version was trained on"}
SCHEMAS: dict[str, Any] = {
    "Problem": _object(
        "RFC 9457",
        type={"const": "about:blank"},
        title=_TEXT,
        status=_INTEGER,
        detail={"type": "string", "description": "Rule, value, remedy"},
        code={"type": "string", "description": "Stable; a newer release may know more"},
        request_id=_TEXT,
    ),
    "Answer": _object(
        bone_age_months={"type": "number", "minimum": 0, "maximum": 240},
        bone_age={"type": "string", "examples": ["10 years 6 months"]},
        spread_months={"type": "number", "minimum": 0, "description": "Standard deviation between members"},
        intervals=_INTERVALS,
        by_sex={
            "type": "object",
            "description": "Both answers where the sex is unknown; the number is then their mixture",
            "additionalProperties": _object(
                bone_age_months=_NUMBER,
                intervals=_INTERVALS,
                probability={"type": "number", "minimum": 0, "maximum": 1},
            ),
        },
        male_probability=_optional(_SHARE),
        chronology=_optional(_ref("Chronology")),
        profile=_TEXT,
        distribution=_list(
            {"type": "number", "minimum": 0}, minItems=240, maxItems=240, description="Of 0, 1, …, 239 months"
        ),
        warnings=_list(_object(code=_TEXT, message=_TEXT)),
        version=_VERSION,
        recipe={"type": "string", "description": "Hash of the recipe that prepared the picture"},
        prediction_id=_PREDICTION_ID,
        request_id=_TEXT,
        optional={
            "heatmap": _ref("HeatMap"),
            "image_sha256": {"type": "string", "description": "Of the file as it was sent; answers of old lack it"},
            "bundle": _BUNDLE,
            "cohort": _COHORT,
        },
    ),
    "HeatMap": _object(
        "Where an answer comes from",
        method=_TEXT,
        unit=_TEXT,
        reach_months={"type": "number", "description": "Of the strongest place, either way"},
        view={"type": "string", "description": "That the members see who carry most of the answer"},
        share={**_SHARE, "description": "Of the answer that comes from them"},
        side={"type": "integer", "description": "Pixels of the heat map's sides"},
        matrix=_list(_NUMBER, minItems=6, maxItems=6, description="Lays it over the picture, as SVG and CSS write it"),
        picture=_object(width=_INTEGER, height=_INTEGER),
        href=_TEXT,
    ),
    "Batch": _object(
        request_id=_TEXT,
        failed=_INTEGER,
        answers=_list(
            _object(index=_INTEGER, status=_INTEGER, optional={"answer": _ref("Answer"), "problem": _ref("Problem")})
        ),
    ),
    "Chronology": _object(
        chronological_age_months=_NUMBER,
        difference_months={"type": "number", "description": "Bone age less chronological age"},
        sd_months=_optional(_NUMBER),
        sds=_optional({"type": "number", "description": "The difference in standard deviations"}),
        status=_optional({"type": "string", "enum": ["delayed", "normal", "advanced"]}),
        borderline=_optional({"type": "boolean"}),
        source=_TEXT,
    ),
    "Prediction": _object(
        prediction_id=_PREDICTION_ID,
        created=_MOMENT,
        sex={"type": "string", "enum": ["male", "female", "unknown"]},
        answer=_ref("Answer"),
        latency_ms=_NUMBER,
        experiment=_optional(_TEXT),
        arm=_optional({"type": "string", "enum": ["champion", "challenger"]}),
        shadow=_optional({"type": "object"}),
        references=_list(_object(bone_age_months=_NUMBER, reader=_TEXT, created=_MOMENT)),
    ),
    "Reference": _object(
        bone_age_months={"type": "number", "minimum": 0, "exclusiveMaximum": 240},
        optional={
            "reader": {"type": "string", "maxLength": 32, "pattern": "^[ -~]*$", "description": "A code, no name"}
        },
        closed=True,
    ),
    "ReferenceKept": _object(prediction_id=_PREDICTION_ID, bone_age_months=_NUMBER, reader=_TEXT, request_id=_TEXT),
    "Audit": _object(
        acts=_list(_object(id={"type": "integer"}, created=_MOMENT, actor=_TEXT, act=_TEXT, detail={"type": "object"})),
        next=_optional({"type": "integer"}),
    ),
    "Versions": _object(
        versions=_list(
            _object(
                version=_VERSION,
                optional={
                    "aliases": _list(_TEXT),
                    "recipe": _TEXT,
                    "bundle": _BUNDLE,
                    "cohort": _COHORT,
                    "members": _INTEGER,
                    "trials": _list(
                        _object(
                            "What a member, or a student of `fast`, was trained by, and the hashes of its weights",
                            study=_TEXT,
                            trial=_INTEGER,
                            seed=_INTEGER,
                            config_hash=_TEXT,
                            folds=_list(_TEXT),
                        )
                    ),
                    "role": _optional({"enum": ["champion", "challenger", "loaded"]}),
                    "status": {"enum": ["loading", "ready", "asleep", "failed"]},
                    "reason": _optional(_TEXT),
                },
            )
        )
    ),
    "VersionWanted": _object(version={"type": "string", "pattern": f"^{VERSION_PATTERN.pattern}$"}, closed=True),
    "Policy": {
        "type": "object",
        "description": "When an experiment ends by itself",
        "additionalProperties": False,
        "properties": {
            each.name: {
                "type": _KINDS[getattr(each.type, "__name__", str(each.type))],
                "default": each.default,
                **(dict(zip(("minimum", "maximum"), BOUNDS[each.name], strict=True)) if each.name in BOUNDS else {}),
                **({"enum": list(PROMOTE)} if each.name == "promote" else {}),
            }
            for each in fields(Policy)
        },
    },
    "ExperimentWanted": _object(
        name={"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"},
        challenger={"type": "string", "pattern": f"^{VERSION_PATTERN.pattern}$"},
        optional={
            "mode": {"type": "string", "enum": list(MODES)},
            "shares": _list({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
            "policy": _ref("Policy"),
        },
        closed=True,
    ),
    "Experiment": _object(
        name=_TEXT,
        mode={"type": "string", "enum": list(MODES)},
        champion=_VERSION,
        challenger=_VERSION,
        shares=_list(_NUMBER, minItems=1),
        step=_INTEGER,
        salt=_TEXT,
        policy={"type": "object"},
    ),
    "Routing": _object(
        version={"type": "integer", "description": "Counts the changes"},
        champion=_VERSION,
        previous=_optional(_VERSION),
        experiment=_optional(_ref("Experiment")),
        loaded=_list(_VERSION),
    ),
    "Experiments": _object(
        routing=_ref("Routing"),
        experiments=_list(
            _object(
                name=_TEXT,
                definition=_ref("Experiment"),
                started_s=_NUMBER,
                ended_s=_optional(_NUMBER),
                outcome=_optional(_TEXT),
            )
        ),
    ),
    "Report": _object(
        experiment=_ref("Experiment"),
        as_of_s=_NUMBER,
        predictions=_INTEGER,
        subjects_with_reading=_INTEGER,
        difference=_optional(
            _object(
                "Error of the champion less that of the challenger: above zero the challenger is better",
                mean_months=_NUMBER,
                lower_months=_NUMBER,
                upper_months=_NUMBER,
                n=_INTEGER,
                alpha=_NUMBER,
                clipped=_INTEGER,
                method=_TEXT,
            )
        ),
        arms=_object(champion={"type": "object"}, challenger={"type": "object"}),
        recent={"type": "object"},
        agreement={"type": "object", "additionalProperties": _optional(_SUM)},
        subgroups=_list({"type": "object"}),
        ratio=_optional({"type": "object"}),
        outcome=_optional(_TEXT),
        policy=_optional(_object(act=_TEXT, why=_TEXT, is_due={"type": "boolean"})),
    ),
    "Share": _object(optional={"share": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.99}}, closed=True),
    "Nothing": _object(closed=True),
    "Alive": _object(status={"const": "alive"}),
    "Ready": _object(
        status={"const": "ready"},
        version=_VERSION,
        ledger=_object(status={"type": "string", "enum": ["up", "spooling"]}, spooled_bytes=_INTEGER, refused=_INTEGER),
    ),
}
"""By name, for ``components.schemas``."""
