"""Several images in one request: one answer each, in order, and what is wrong with one is its own."""

import asyncio
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve import batch_routes
from serve.problems import Problem
from tests.hostile_uploads import DICOM, JPEG, PNG
from tests.test_serve_gateway import MeanScorer, books, client, scorer

__all__ = ["books", "client", "scorer"]  # fixtures
BATCH = "/v1/score/batch"


def send(client: TestClient, *files: bytes, path: str = BATCH, **fields: Any) -> Any:
    headers = fields.pop("headers", {})
    return client.post(path, files=[("file", ("x.png", data)) for data in files], data=fields, headers=headers)


def test_each_file_has_the_answer_that_it_would_have_alone(client: TestClient) -> None:
    alone = [client.post("/v1/score?sex=male", content=data).json()["bone_age_months"] for data in (PNG, JPEG, DICOM)]
    found = send(client, PNG, JPEG, DICOM, sex="male").json()
    assert found["failed"] == 0
    assert [answer["index"] for answer in found["answers"]] == [0, 1, 2]
    assert [answer["answer"]["bone_age_months"] for answer in found["answers"]] == alone


def test_one_that_fails_is_told_and_the_others_are_answered(client: TestClient) -> None:
    found = send(client, PNG, b"no image", PNG, sex="male").json()
    assert found["failed"] == 1
    assert [answer["status"] for answer in found["answers"]] == [200, 415, 200]
    problem = found["answers"][1]["problem"]
    assert (problem["code"], problem["status"]) == ("unsupported_format", 415)
    assert problem["request_id"] == found["request_id"]


def test_a_field_is_said_for_all_or_for_each(client: TestClient) -> None:
    found = send(client, PNG, PNG, PNG, sex=["m", "f", "u"], profile="fast", chronological_age_months=["", "90", ""])
    said = [
        (answer["answer"]["sex"], answer["answer"]["profile"], answer["answer"]["chronological_age_months"])
        for answer in found.json()["answers"]
    ]
    assert said == [("male", "fast", None), ("female", "fast", 90.0), ("unknown", "fast", None)]


def test_a_wrong_word_about_one_file_fails_that_one(client: TestClient) -> None:
    found = send(client, PNG, PNG, sex=["m", "boy"]).json()
    assert [answer["status"] for answer in found["answers"]] == [200, 422]
    assert found["answers"][1]["problem"]["code"] == "sex_unknown_word"


@pytest.mark.parametrize(
    ("fields", "code"), [({"sex": ["m", "f", "m"]}, "batch_malformed"), ({"Sex": "m"}, "unknown_parameter")]
)
def test_what_is_said_about_no_file_in_particular_refuses_the_batch(
    client: TestClient, fields: dict[str, Any], code: str
) -> None:
    answer = send(client, PNG, PNG, **fields)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_a_batch_is_a_form(client: TestClient) -> None:
    answer = client.post(f"{BATCH}?sex=male", content=PNG)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_multipart")
    assert send(client, *[PNG] * 65, sex="male").json()["code"] == "bad_multipart"


def test_a_repeated_batch_gets_its_first_answers(client: TestClient) -> None:
    headers = {"idempotency-key": "night-1"}
    first, again = (send(client, PNG, JPEG, sex="male", headers=headers).json()["answers"] for _ in range(2))
    assert [answer["answer"]["prediction_id"] for answer in again] == [
        answer["answer"]["prediction_id"] for answer in first
    ]
    other = send(client, PNG, PNG, sex="male", headers=headers).json()["answers"]
    assert [answer["status"] for answer in other] == [200, 422]


def test_a_failure_of_ours_is_one_image_s_and_tells_nothing(
    client: TestClient, scorer: MeanScorer, caplog: pytest.LogCaptureFixture
) -> None:
    scorer.failure = RuntimeError("secret of the house")
    found = send(client, PNG, sex="male")
    assert found.status_code == 200
    assert found.json()["answers"][0]["problem"]["code"] == "internal"
    assert "secret" not in found.text + caplog.text
    assert [record.message for record in caplog.records if record.name == "carpal.serve"] == ["failed"]


def test_a_batch_takes_few_places_at_a_time(
    client: TestClient, scorer: MeanScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most = 0, 0
    score = scorer.score

    async def counted(query: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002)
        under_way -= 1
        return await score(query)

    monkeypatch.setattr(scorer, "score", counted)
    assert send(client, *[PNG] * 30, sex="male").json()["failed"] == 0
    assert 1 < most <= 8


def test_what_is_not_done_in_time_costs_no_other_image_its_answer(
    client: TestClient, scorer: MeanScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = scorer.score

    async def slowly(query: Any) -> Any:
        await asyncio.sleep(60 * (query.data == JPEG))
        return await score(query)

    monkeypatch.setattr(scorer, "score", slowly)
    monkeypatch.setattr(batch_routes, "ANSWER_TIMEOUT_S", 5.0)
    found = send(client, PNG, JPEG, PNG, sex="male").json()
    assert [answer["status"] for answer in found["answers"]] == [200, 504, 200]
    assert found["answers"][1]["problem"]["code"] == "timeout"


def test_an_overloaded_scorer_fails_images_not_the_batch(client: TestClient, scorer: MeanScorer) -> None:
    scorer.failure = Problem("overloaded", "Every place is taken.")
    assert [answer["status"] for answer in send(client, PNG, PNG, sex="m").json()["answers"]] == [503, 503]
