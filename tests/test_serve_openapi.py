"""The contract: every route is described, and what the service answers is what the document says."""

import re
from pathlib import Path

import pytest
from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.testclient import TestClient

from serve.boundary import _translate
from serve.openapi import document
from serve.openapi_paths import OPERATIONS
from serve.problems import STATUS
from tests.conftest import ROOT
from tests.page_fixtures import Site

OF_PAGES = {"/", "/docs", "/experiments", "/page/experiments", "/page/reading", "/static/{name}"}
KEYED = [
    *((operation.method, operation.path, operation.role) for operation in OPERATIONS),
    (
        "POST",
        "/page/reading",
        "score",
    ),  # parts of pages: no contract describes them, and they ask for keys all the same
    ("GET", "/page/experiments", "read"),
]
FILLED = {"{id}": "0" * 32, "{name}": "e", "{act}": "stop", "{version}": "ens-0123456789ab"}


def test_every_route_is_described_and_no_other(tmp_path: Path) -> None:
    site = Site(tmp_path)
    served = {
        (method, route.path)
        for route in site.app.routes
        if isinstance(route, Route) and route.path not in OF_PAGES
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {(operation.method, operation.path) for operation in OPERATIONS}
    site.books.close()


def test_every_reference_of_the_document_leads_somewhere() -> None:
    made = document(is_open=False)
    schemas = made["components"]["schemas"]
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            found.extend([value["$ref"]] if "$ref" in value else [])
            for each in value.values():
                walk(each)
        elif isinstance(value, list | tuple):
            for each in value:
                walk(each)

    walk(made)
    assert {reference.rpartition("/")[2] for reference in found} <= set(schemas)
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


def test_the_key_of_a_repetition_is_named_where_it_counts() -> None:
    named = {each.path for each in OPERATIONS if "Idempotency-Key" in {one["name"] for one in each.parameters}}
    assert named == {"/v1/score", "/v1/score/batch"}
    (sentence,) = re.findall(r"An `Idempotency-Key` makes.*?;", (ROOT / "README.md").read_text(), re.DOTALL)
    assert set(re.findall(r"`(/v1/\S+)`", sentence)) == named


def test_every_code_stands_under_the_operation_that_answers_it_or_is_of_the_path() -> None:
    told = {code for operation in OPERATIONS for code in operation.codes}
    always = {"bad_request", "internal", "unavailable", "overloaded", "timeout", "cross_origin", "foreign_host"}
    assert set(STATUS) - told - always == {"key_missing", "key_wrong", "role_missing", "method_not_allowed"}


def test_what_proxies_answer_by_themselves_stands_under_every_operation() -> None:
    codes = {_translate(status, MutableHeaders())[0] for status in (408, 429, 500, 502, 503, 504)}
    assert codes == {"timeout", "overloaded", "unavailable"}
    for path in document(is_open=False)["paths"].values():
        for operation in path.values():
            told = " ".join(answer["description"] for answer in operation["responses"].values())
            assert all(f"`{code}`" in told for code in codes), operation["operationId"]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("closed"), is_open=False)


@pytest.mark.parametrize(("method", "path", "role"), KEYED, ids=lambda word: word or "nobody")
def test_a_route_opens_to_its_own_role_alone(closed: Site, method: str, path: str, role: str) -> None:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    client = TestClient(closed.app, raise_server_exceptions=False)

    def ask(authorization: str) -> tuple[int, str]:
        headers = {"authorization": authorization} if authorization else {}
        answer = client.request(method, path, headers=headers)
        return answer.status_code, answer.json().get("code", "") if "json" in answer.headers["content-type"] else ""

    if not role:
        assert ask("")[0] in (200, 503)  # nobody looks after the versions here, so it may not be ready
        return
    wrong, right = closed.keys.add("other", {"score", "read"} - {role}), closed.keys.add("right", [role])
    ended = closed.keys.add("ended", ["admin"])
    closed.keys.end(ended.split("_")[1])
    closed.books.refresh()
    assert ask("") == ask(f"Basic {right}") == (401, "key_missing")
    for token in ("", "carpal", right[:-1], right + "A", right.upper(), ended, f"{right} {right}"):
        assert ask(f"Bearer {token}") == (401, "key_wrong"), token
    if path != f"/v1/predictions/{FILLED['{id}']}/heatmap.png":  # which the key may see that asked for it
        assert ask(f"Bearer {wrong}") == (403, "role_missing")
    assert ask(f"Bearer {right}")[0] not in (401, 403)
