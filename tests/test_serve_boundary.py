"""The outermost layer around a foreign app, as it stands around Serve's proxy."""

from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from serve.boundary import SECURITY_HEADERS, Boundary


def client_of(app: Any) -> TestClient:
    return TestClient(Boundary(app), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [(404, 404, "not_found"), (408, 504, "timeout"), (503, 503, "overloaded"), (500, 503, "unavailable")],
)
def test_plain_text_refusal_becomes_a_problem(status: int, expected: int, code: str) -> None:
    answer = client_of(PlainTextResponse("Request dropped", status, {"retry-after": "7"})).get("/")
    assert (answer.status_code, answer.json()["code"]) == (expected, code)
    assert answer.headers["retry-after"] == "7"
    assert "dropped" not in answer.text


def test_app_that_says_nothing_is_unavailable() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    answer = client_of(silent).get("/")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_inner_request_id_header_is_replaced_not_doubled() -> None:
    inner = PlainTextResponse("fine", headers={"x-request-id": "inner"})
    answer = client_of(inner).get("/", headers={"x-request-id": "outer"})
    assert answer.headers.get_list("x-request-id") == ["outer"]


def test_control_headers_do_not_pass() -> None:
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await PlainTextResponse("fine")(scope, receive, send)

    headers = {
        "serve_multiplexed_model_id": "x",
        "x-session-id": "y",
        "x-request-timeout-seconds": "1",
        "accept": "*/*",
    }
    client_of(app).get("/", headers=headers)
    assert b"accept" in seen
    assert not {b"serve_multiplexed_model_id", b"x-session-id", b"x-request-timeout-seconds"} & set(seen)


def test_two_boundaries_agree_on_the_id() -> None:
    answer = TestClient(Boundary(Boundary(PlainTextResponse("", 404)))).get("/")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("status", [200, 404, 500])
def test_every_answer_carries_the_security_headers_and_none_of_cors(status: int) -> None:
    answer = client_of(PlainTextResponse("", status)).get("/", headers={"origin": "http://elsewhere"})
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert "unsafe" not in SECURITY_HEADERS["content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "origin": "http://behind-a-proxy"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://testserver"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "http://testserver.elsewhere"}, False),
        ({"origin": "null"}, False),
    ],
)
def test_a_page_of_another_origin_changes_nothing(headers: dict[str, str], passes: bool) -> None:
    client = client_of(PlainTextResponse("fine"))
    answer = client.post("/", headers=headers)
    assert answer.status_code == (200 if passes else 403)
    assert passes or answer.json()["code"] == "cross_origin"
    assert client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("localhost", True),
        ("LocalHost:8000", True),
        ("127.0.0.1:8000", True),
        ("127.9.9.9", True),
        ("[::1]:8000", True),
        ("elsewhere.example", False),
        ("localhost.elsewhere.example:8000", False),
        ("127.0.0.1.elsewhere.example", False),
        ("192.168.0.7:8000", False),
        ("localhost:8000:80", False),
        ("", False),
    ],
)
def test_an_open_service_answers_to_the_names_of_loopback_alone(host: str, passes: bool) -> None:
    client = TestClient(Boundary(PlainTextResponse("fine"), is_local=True))
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == (200 if passes else 421)
    assert passes or answer.json()["code"] == "foreign_host"
    assert client_of(PlainTextResponse("fine")).get("/", headers={"host": host}).status_code == 200
