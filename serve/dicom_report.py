"""An answer as a DICOM structured report in the study of the radiograph: Enhanced SR, template TID 1500 of PS3.16.

The report refers to the image it measures and carries that image's patient and study, which go back to the caller and
are neither stored nor logged. Bone age is LOINC 37362-1 in UCUM months; intervals have codes of our own (99CARPAL).
"""

import io
from datetime import datetime
from typing import Any

import pydicom
from highdicom import UID
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DA, DT, TM

from preprocessing.quiet import quiet
from serve.fhir import HASHED
from serve.problems import Problem

BONE_AGE = CodedConcept("37362-1", "LN", "XR Bone age")
COMMENT = CodedConcept("121106", "DCM", "Comment")
MONTH = CodedConcept("mo", "UCUM", "month")
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


def report(data: bytes, answer: dict[str, Any], *, created: datetime, sex: str) -> bytes:
    """The report as a DICOM file; the same prediction and file have the same report, byte for byte.

    Args:
        data: The DICOM file that was scored.
        answer: What ``POST /v1/score`` gives.
        created: When it was given.
        sex: ``male``, ``female`` or ``unknown``.

    Raises:
        Problem: The file's header lacks what a report refers to, or has it malformed.
    """
    with quiet():
        try:
            image = _header(data)
            document = _document(image, answer, created, sex)
            buffer = io.BytesIO()
            document.save_as(buffer, enforce_file_format=True)
        except Problem:
            raise
        except Exception:  # whatever pydicom and highdicom say of a malformed element: it may quote a patient
            raise Problem(
                "report_impossible",
                "The header of this DICOM file cannot carry a report: an element of its patient or study is malformed. "
                "The answer is stored; accept application/json to read it.",
            ) from None
    return buffer.getvalue()


def _header(data: bytes) -> Dataset:
    image = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    if missing := [keyword for keyword in _NEEDED if not str(image.get(keyword) or "").strip()]:
        raise Problem(
            "report_impossible",
            f"A report refers to the image by its {', '.join(_NEEDED)}, and the file has no {missing[0]}. "
            "The answer is stored; accept application/json to read it.",
        )
    for keyword in _MAY_BE_EMPTY:
        if keyword not in image:
            setattr(image, keyword, "")
    return image


def _document(image: Dataset, answer: dict[str, Any], created: datetime, sex: str) -> EnhancedSR:
    parameters = [f"{of} {answer[of]}" for of in ("profile", *HASHED) if of in answer]
    group = MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(_uid(answer, "finding"), answer["prediction_id"]),
        algorithm_id=AlgorithmIdentification("Carpal", answer["version"], parameters),
        measurements=_measurements(answer),
        source_images=[SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
    )
    said = [f"Read for sex: {sex}.", *(warning["message"] for warning in answer["warnings"])]
    if sha256 := answer.get("image_sha256"):
        said.append(f"SHA-256 of the file: {sha256}")
    group[0].ContentSequence.extend(TextContentItem(COMMENT, text, RelationshipTypeValues.CONTAINS) for text in said)
    device = DeviceObserverIdentifyingAttributes(_uid({"prediction_id": answer["version"]}, "device"), name="Carpal")
    content = MeasurementReport(
        ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
        procedure_reported=BONE_AGE,
        imaging_measurements=[group],
    )
    document = EnhancedSR(
        [image],
        content,
        series_instance_uid=_uid(answer, "series"),
        series_number=1,
        sop_instance_uid=_uid(answer, "report"),
        instance_number=1,
        manufacturer="Carpal",
        is_complete=True,
    )
    document.SeriesDescription = "Bone age"
    local = created.astimezone()  # as the other devices of a site write it
    document.ContentDate = document.InstanceCreationDate = DA(local.date())
    document.ContentTime = document.InstanceCreationTime = TM(local.time())
    for equipment in document.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(local.replace(tzinfo=None))
    return document


def _measurements(answer: dict[str, Any]) -> list[Measurement]:
    found = [Measurement(BONE_AGE, round(answer["bone_age_months"], 2), MONTH)]
    for level, (low, high) in answer["intervals"].items():
        found.append(_own(f"low-{level}", f"Bone age, lower end of {level} % interval", low))
        found.append(_own(f"high-{level}", f"Bone age, upper end of {level} % interval", high))
    for sex, one in answer["by_sex"].items():
        found.append(_own(f"if-{sex}", f"Bone age if the child is {sex}", one["bone_age_months"]))
    if chronology := answer["chronology"]:
        found.append(_own("age", "Chronological age", chronology["chronological_age_months"]))
        if chronology["sds"] is not None:
            unit = CodedConcept("{SD}", "UCUM", "standard deviations")
            found.append(_own("sds", "Bone age less chronological age", chronology["sds"], unit))
    return found


def _own(code: str, meaning: str, value: float, unit: CodedConcept = MONTH) -> Measurement:
    return Measurement(CodedConcept(code, "99CARPAL", meaning), round(value, 2), unit)


def _uid(answer: dict[str, Any], what: str) -> UID:
    return UID(pydicom.uid.generate_uid(entropy_srcs=[answer["prediction_id"], what]))
