"""The audit trail over HTTP: who did what, page by page, for administrators alone."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from serve.books import Books
from serve.database import Database
from serve.gateway import Gateway
from serve.keys import Keys
from serve.lifecycle import Lifecycle
from serve.routing import Routing

A, B = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, dict[str, str]]]]:
    """A closed service on which keys were made and an experiment was started and stopped, and headers by role."""
    folder = tmp_path_factory.mktemp("audit")
    url = f"sqlite:///{folder}/ledger.db"
    database = Database(url)
    Routing(database).begin(A)
    keys = Keys(database, "local:root")
    made = {role: keys.add(role, [role]) for role in ("score", "read", "admin")}
    Lifecycle(database, "local:root").start("e", B)
    Lifecycle(database, "policy").stop("e", {"why": "test"})
    books = Books(url, folder / "spool", is_open=False)

    def no_scorer(version: str) -> None:
        raise AssertionError("nothing is scored here")

    with TestClient(Gateway(no_scorer, [], books).app(), raise_server_exceptions=False) as client:  # type: ignore[arg-type, return-value]
        yield client, {role: {"authorization": f"Bearer {key}"} for role, key in made.items()}
    books.close()


def test_every_act_is_told_with_its_data_newest_first(site: tuple[TestClient, dict[str, dict[str, str]]]) -> None:
    client, headers = site
    told = client.get("/v1/audit", headers=headers["admin"]).json()
    assert [(one["actor"], one["act"]) for one in told["acts"]] == [
        ("policy", "experiment.stop"),
        ("local:root", "experiment.start"),
        *[("local:root", "key.add")] * 3,
        ("service", "routing.begin"),
    ]
    assert told["acts"][0]["detail"]["data"] == {"why": "test"}
    assert told["acts"][0]["created"].endswith("+00:00")
    assert told["next"] is None
    assert "carpal_" not in str(told)


def test_pages_follow_one_another_without_gap_or_overlap(site: tuple[TestClient, dict[str, dict[str, str]]]) -> None:
    client, headers = site
    ids, before = [], ""
    while True:
        page = client.get(f"/v1/audit?limit=4{before}", headers=headers["admin"]).json()
        ids += [one["id"] for one in page["acts"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert ids == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "page_malformed"),
        ("limit=501", "page_malformed"),
        ("limit=1&limit=2", "page_malformed"),
        ("before=-1", "page_malformed"),
        ("before=99999999999999999999", "page_malformed"),
        ("before=\u0663", "page_malformed"),
        ("page=2", "unknown_parameter"),
    ],
)
def test_a_malformed_page_is_refused(site: tuple[TestClient, dict[str, dict[str, str]]], query: str, code: str) -> None:
    client, headers = site
    told = client.get(f"/v1/audit?{query}", headers=headers["admin"])
    assert (told.status_code, told.json()["code"]) == (422, code)


def test_it_opens_to_administrators_alone(site: tuple[TestClient, dict[str, dict[str, str]]]) -> None:
    client, headers = site
    told = {role: client.get("/v1/audit", headers=each).status_code for role, each in headers.items()}
    assert told == {"score": 403, "read": 403, "admin": 200}
    assert client.get("/v1/audit").status_code == 401
