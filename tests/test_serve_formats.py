"""The forms of an answer: negotiated, and valid by the definitions of those who read them."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pydicom
import pytest
from fhir.resources.observation import Observation as ObservationR5
from fhir.resources.R4B.observation import Observation as ObservationR4B
from starlette.requests import Request
from starlette.testclient import TestClient

from ensemble.prediction import Prediction, SexAnswer
from preprocessing.quality import Finding
from serve import dicom_report, fhir, formats, limits
from serve.dicom_report import report
from serve.problems import Problem
from serve.protocol import Outcome, Query, answer
from tests.dicom_files import NAME, PATIENT, dicom
from tests.hostile_uploads import PNG
from tests.test_serve_gateway import MeanScorer, books, client, scorer

__all__ = ["books", "client", "scorer"]  # fixtures
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PIXELS = np.random.default_rng(1).integers(0, 256, (90, 70)).astype(np.uint8)
STUDY = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
INTERVALS = {80: (90.0, 120.0), 90: (80.5, 121.0)}
WARNING = Finding("contradiction", "warned", 1.0, 1.0, "The sex given is male, the DICOM header says <female>.")


def prediction(**changes: Any) -> dict[str, Any]:
    flat = np.full(240, 1 / 240, np.float32)
    found = Prediction(100.25, 2.0, flat, "ens-1", "r", "b", "c", warnings=(WARNING,), intervals=INTERVALS, **changes)
    return {**answer(found.beside(60.0, "male")), "prediction_id": "0" * 32, "request_id": "r", "image_sha256": "i"}


BY_SEX = {"female": SexAnswer(90.0, INTERVALS, 0.25), "male": SexAnswer(112.0, INTERVALS, 0.75)}


def wanted(*accept: str) -> formats.Form:
    headers = [(b"accept", text.encode("latin-1")) for text in accept]
    return formats.wanted(Request({"type": "http", "headers": headers}))


@pytest.mark.parametrize(
    ("accept", "media_type", "version"),
    [
        ("", formats.JSON, "4.0"),
        ("*/*", formats.JSON, "4.0"),
        ("text/html, */*;q=0.1", formats.JSON, "4.0"),
        ("application/fhir+json", formats.FHIR, "4.0"),
        ("application/fhir+json; fhirVersion=5.0", formats.FHIR, "5.0"),
        ("application/json;q=0.5, application/dicom", formats.DICOM, "4.0"),
        ("APPLICATION/DICOM, */*", formats.JSON, "4.0"),
        ("application/*, application/json;q=0, application/dicom;q=0.9", formats.FHIR, "4.0"),
    ],
)
def test_the_form_that_is_liked_best_is_given(accept: str, media_type: str, version: str) -> None:
    assert wanted(accept) == formats.Form(media_type, version)


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "application/json;q=0",
        "application/fhir+json; fhirVersion=3.0",
        ";;;=",
        "application/json;q=nan",
        ",",
    ],
)
def test_a_form_that_is_not_there_is_refused(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        wanted(accept)
    assert caught.value.status == 406


@pytest.mark.parametrize("by_sex", [{}, BY_SEX])
@pytest.mark.parametrize("definition", [ObservationR4B, ObservationR5])
def test_the_observation_is_valid_in_r4_and_r5(definition: Any, by_sex: dict[str, SexAnswer]) -> None:
    found = fhir.observation(prediction(by_sex=by_sex), created=NOW, sex="male", subject="a")
    read = definition.model_validate_json(json.dumps(found))
    assert float(read.valueQuantity.value) == 100.25
    assert read.valueQuantity.code == "mo"
    assert read.code.coding[0].code == "37362-1"
    assert read.status == "preliminary"
    assert read.interpretation[0].coding[0].code == "H"


def test_the_observation_says_what_the_answer_says() -> None:
    found = fhir.observation(prediction(by_sex=BY_SEX), created=NOW, sex="unknown")
    said = {component["code"]["text"]: component for component in found["component"]}
    assert said["Prediction interval that holds 90 % of cases"]["valueRange"]["low"]["value"] == 80.5
    assert said["Bone age if the child is female"]["valueQuantity"]["value"] == 90.0
    assert said["Chronological age"]["valueQuantity"]["value"] == 60.0
    assert found["note"] == [{"text": WARNING.message}]
    assert "subject" not in found


def test_observation_and_report_name_bundle_recipe_cohort_and_file_by_hash() -> None:
    found = fhir.observation(prediction(), created=NOW, sex="male")
    versions = {each["type"]["text"]: each["value"] for each in found["contained"][0]["version"] if "type" in each}
    assert versions == {"Hash of the bundle": "b", "Hash of the recipe": "r", "Hash of the cohort": "c"}
    assert found["derivedFrom"][0]["identifier"] == {"type": {"text": "SHA-256 of the file"}, "value": "i"}
    written = report(dicom(PIXELS, **STUDY), prediction(), created=NOW, sex="male")
    items = pydicom.dcmread(io.BytesIO(written)).ContentSequence[-1].ContentSequence[0].ContentSequence
    said = [(item.ConceptNameCodeSequence[0].CodeValue, item.get("TextValue")) for item in items]
    parameters = [text for code, text in said if code == "111002"]  # Algorithm Parameters, of TID 4019
    assert parameters == ["profile full", "bundle b", "recipe r", "cohort c"]
    assert ("121106", "SHA-256 of the file: i") in said


def test_an_answer_of_old_which_names_no_hash_but_the_recipe_s_still_has_its_forms() -> None:
    old = {name: value for name, value in prediction().items() if name not in ("bundle", "cohort", "image_sha256")}
    ObservationR4B.model_validate(found := fhir.observation(old, created=NOW, sex="male"))
    assert "derivedFrom" not in found
    assert report(dicom(PIXELS, **STUDY), old, created=NOW, sex="male")


def test_the_report_belongs_to_the_image_s_study_and_measures_in_months() -> None:
    data = dicom(PIXELS, **STUDY)
    written = report(data, prediction(by_sex=BY_SEX), created=NOW, sex="unknown")
    assert written == report(data, prediction(by_sex=BY_SEX), created=NOW, sex="unknown")
    found = pydicom.dcmread(io.BytesIO(written))
    assert (found.Modality, found.StudyInstanceUID, found.PatientID) == ("SR", "1.2.3", PATIENT)
    assert (found.PreliminaryFlag, found.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    (series,) = found.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    measured = {}
    for item in found.ContentSequence[-1].ContentSequence[0].ContentSequence:
        if item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0]
            unit = value.MeasurementUnitsCodeSequence[0].CodeValue
            measured[item.ConceptNameCodeSequence[0].CodeValue] = (float(value.NumericValue), unit)
    assert measured["37362-1"] == (100.25, "mo")
    assert measured["low-90"] == (80.5, "mo")
    assert measured["if-female"] == (90.0, "mo")


@pytest.mark.parametrize("lost", ["StudyInstanceUID", "SOPInstanceUID"])
def test_a_header_that_names_no_study_carries_no_report(lost: str) -> None:
    with pytest.raises(Problem) as caught:
        report(dicom(PIXELS, **{**STUDY, lost: ""}), prediction(), created=NOW, sex="male")
    assert caught.value.code == "report_impossible"
    assert NAME not in caught.value.detail


def test_a_report_is_for_dicom_files(client: TestClient) -> None:
    refused = client.post("/v1/score?sex=male", content=PNG, headers={"accept": "application/dicom"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


def test_each_form_comes_over_http(client: TestClient, scorer: MeanScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def score(query: Query) -> Outcome:
        return Outcome({**prediction(), "version": "ens-0"})

    monkeypatch.setattr(scorer, "score", score)
    path, data = "/v1/score?sex=male&subject=a", dicom(PIXELS, **STUDY)
    resource = client.post(path, content=data, headers={"accept": "application/fhir+json"})
    assert resource.headers["content-type"] == "application/fhir+json; fhirVersion=4.0"
    assert resource.json()["subject"] == {"identifier": {"value": "a"}}
    document = client.post(path, content=data, headers={"accept": "application/dicom"})
    assert document.headers["content-type"] == "application/dicom"
    assert pydicom.dcmread(io.BytesIO(document.content)).PatientID == PATIENT
    later = f"/v1/predictions/{resource.json()['id']}"
    stored = client.get(later, headers={"accept": "application/fhir+json; fhirVersion=5.0"})
    assert stored.json()["valueQuantity"] == resource.json()["valueQuantity"]
    assert "subject" not in stored.json()
    assert client.get(later, headers={"accept": "application/dicom"}).status_code == 406


def test_a_request_holds_its_place_until_its_report_is_written(
    client: TestClient, scorer: MeanScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def score(query: Query) -> Outcome:
        return Outcome({**prediction(), "version": "ens-0"})

    monkeypatch.setattr(scorer, "score", score)
    monkeypatch.setattr(limits, "MAX_IN_FLIGHT", 1)
    path, data, refused = "/v1/score?sex=male", dicom(PIXELS, **STUDY), []

    def written(*arguments: Any, **more: Any) -> bytes:
        refused.append(client.post(path, content=PNG).json()["code"])
        return report(*arguments, **more)

    monkeypatch.setattr(dicom_report, "report", written)
    assert client.post(path, content=data, headers={"accept": "application/dicom"}).status_code == 200
    assert refused == ["overloaded"]
