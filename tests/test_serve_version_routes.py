"""Versions over HTTP: they come, answer and go by an administrator's key, and every act is on record."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.database import LedgerDownError
from serve.releases import MAX_LOADED, Releases
from tests.page_fixtures import A, B, Site


class Admin:
    """A closed service, asked with an administrator's key."""

    def __init__(self, site: Site, client: TestClient) -> None:
        self.site, self._client = site, client
        self.key = site.keys.add("boss", ["admin"])
        site.books.refresh()

    def post(self, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        headers = {"authorization": f"Bearer {self.key}"}
        told = self._client.post(f"/v1/versions{path}", json=body, headers=headers)
        return told.status_code, told.json()

    def get(self, path: str) -> dict[str, Any]:
        return dict(self._client.get(path, headers={"authorization": f"Bearer {self.key}"}).json())


@pytest.fixture
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    site = Site(tmp_path_factory.mktemp("site"), is_open=False)
    with TestClient(site.app, raise_server_exceptions=False) as client:
        yield Admin(site, client)
    site.books.close()


def test_a_version_is_loaded_crowned_and_retired_with_the_key_as_actor(admin: Admin) -> None:
    assert admin.post("", {"version": B}) == (202, {**admin.get("/v1/experiments")["routing"], "loaded": [B]})
    assert admin.post(f"/{B}/champion")[1]["code"] == "release_refused"  # it is not ready
    Releases(admin.site.database, "service").tell(B, "ready", {"members": 2})
    assert admin.post(f"/{B}/champion")[1]["champion"] == B
    assert [(row["version"], row["role"]) for row in admin.get("/v1/versions")["versions"]] == [(B, "champion")]
    assert admin.post(f"/{A}/retire")[1]["loaded"] == []
    acts = [(row["actor"], row["act"]) for row in admin.get("/v1/audit")["acts"]][:3]
    key_id = admin.key.split("_")[1]
    assert acts == [(key_id, "release.retire"), (key_id, "release.champion"), (key_id, "release.add")]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("", {"version": "champion"}, 409, "release_refused"),
        ("", {}, 422, "body_malformed"),
        ("", {"version": B, "champion": True}, 422, "body_malformed"),
        (f"/{A}/retire", None, 409, "release_refused"),
        (f"/{B}/retire", None, 409, "release_refused"),
        (f"/{B}/champion", {"now": True}, 422, "body_malformed"),
        (f"/{B}/stop", None, 404, "not_found"),
        ("/champion/retire", None, 404, "version_unknown"),
    ],
)
def test_what_cannot_be_done_is_a_problem(admin: Admin, path: str, body: Any, status: int, code: str) -> None:
    told = admin.post(path, body)
    assert (told[0], told[1]["code"]) == (status, code)


def test_a_change_that_stands_is_answered_so_though_the_ledger_goes_away_after_it(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise LedgerDownError("away")

    with monkeypatch.context() as down:
        down.setattr(admin.site.books, "refresh", away)
        told = admin.post("", {"version": B})
    assert (told[0], told[1]["loaded"]) == (202, [B])


def test_no_more_versions_are_loaded_than_memory_has_room_for(admin: Admin) -> None:
    told = [admin.post("", {"version": f"ens-{number:012x}"})[0] for number in range(MAX_LOADED + 1)]
    assert told == [202] * MAX_LOADED + [409]
