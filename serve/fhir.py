"""An answer as a FHIR Observation, valid in R4, R4B and R5: https://hl7.org/fhir/R4/observation.html.

Its code is LOINC 37362-1, bone age from a radiograph, as HL7's own profile of a bone age has it; months are UCUM's
``mo``. Status is ``preliminary``: nobody has verified it. What has no code of its own is named in words. The hashes of
bundle, recipe and cohort are versions of the device; the radiograph is referred to by that of its file.
"""

from datetime import datetime
from html import escape
from typing import Any

BONE_AGE = {"system": "http://loinc.org", "code": "37362-1", "display": "XR Bone age"}
AGE = {"system": "http://loinc.org", "code": "30525-0", "display": "Age"}
HASHED = ("bundle", "recipe", "cohort")
"""What an answer names by hash; answers of old lack all but the recipe."""
_CATEGORY = {
    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
    "code": "imaging",
    "display": "Imaging",
}
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_JUDGED = {"delayed": ("L", "Low"), "normal": ("N", "Normal"), "advanced": ("H", "High")}


def observation(answer: dict[str, Any], *, created: datetime, sex: str, subject: str | None = None) -> dict[str, Any]:
    """The resource, as plain JSON values.

    Args:
        answer: What ``POST /v1/score`` gives.
        created: When it was given, with its time zone.
        sex: ``male``, ``female`` or ``unknown``.
        subject: As the caller named the child; it is in the resource as an identifier without a system.
    """
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        "id": answer["prediction_id"],
        "text": {"status": "generated", "div": _narrative(answer)},
        "contained": [
            {
                "resourceType": "Device",
                "id": "carpal",
                "identifier": [{"value": answer["version"]}],
                "manufacturer": "Carpal",
                "version": [
                    {"value": answer["version"]},
                    *({"type": {"text": f"Hash of the {of}"}, "value": answer[of]} for of in HASHED if of in answer),
                ],
            }
        ],
        "status": "preliminary",
        "category": [{"coding": [_CATEGORY]}],
        "code": {"coding": [BONE_AGE], "text": "Bone age"},
        "issued": created.isoformat(timespec="milliseconds"),
        "valueQuantity": _months(answer["bone_age_months"]),
        "method": {"text": f"Ensemble of neural networks, profile {answer['profile']}"},
        "device": {"reference": "#carpal"},
        "component": _components(answer, sex),
    }
    if subject is not None:
        resource["subject"] = {"identifier": {"value": subject}}
    if sha256 := answer.get("image_sha256"):
        resource["derivedFrom"] = [_file(sha256)]
    if answer["warnings"]:
        resource["note"] = [{"text": warning["message"]} for warning in answer["warnings"]]
    if (chronology := answer["chronology"]) and chronology["status"]:
        code, display = _JUDGED[chronology["status"]]
        coding = {"system": _INTERPRETATION, "code": code, "display": display}
        words = f"{chronology['status']} for the chronological age, by {chronology['source']}"
        resource["interpretation"] = [{"coding": [coding], "text": words}]
    return resource


def _file(sha256: str) -> dict[str, Any]:
    """The radiograph, as the one kind of resource that R4 and R5 have for a file; the service has no address for it."""
    return {
        "type": "DocumentReference",
        "identifier": {"type": {"text": "SHA-256 of the file"}, "value": sha256},
        "display": "The radiograph",
    }


def _components(answer: dict[str, Any], sex: str) -> list[dict[str, Any]]:
    found = [
        {"code": {"text": "Sex that the bone age is read for"}, "valueString": sex},
        *_intervals(answer["intervals"], ""),
        {
            "code": {"text": "Standard deviation between the members of the ensemble"},
            "valueQuantity": _months(answer["spread_months"]),
        },
    ]
    for assumed, one in answer["by_sex"].items():
        found.append(
            {
                "code": {"text": f"Bone age if the child is {assumed}"},
                "valueQuantity": _months(one["bone_age_months"]),
            }
        )
        found += _intervals(one["intervals"], f" if the child is {assumed}")
    if chronology := answer["chronology"]:
        found.append(
            {
                "code": {"coding": [AGE], "text": "Chronological age"},
                "valueQuantity": _months(chronology["chronological_age_months"]),
            }
        )
        if chronology["sds"] is not None:
            sds = {"value": chronology["sds"], "unit": "SD", "system": "http://unitsofmeasure.org", "code": "{SD}"}
            words = "Bone age less chronological age, in standard deviations"
            found.append({"code": {"text": words}, "valueQuantity": sds})
    return found


def _intervals(intervals: dict[str, list[float]], of: str) -> list[dict[str, Any]]:
    return [
        {
            "code": {"text": f"Prediction interval that holds {level} % of cases{of}"},
            "valueRange": {"low": _months(low), "high": _months(high)},
        }
        for level, (low, high) in intervals.items()
    ]


def _months(value: float) -> dict[str, Any]:
    return {"value": value, "unit": "months", "system": "http://unitsofmeasure.org", "code": "mo"}


def _narrative(answer: dict[str, Any]) -> str:
    words = f"Bone age {answer['bone_age']} ({answer['bone_age_months']:.1f} months), by {answer['version']}"
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{escape(words)}</div>'
