"""Versions that are loaded, crowned and retired: what may be done when, and what every gateway lists."""

import time
from pathlib import Path

import pytest

from serve.arms import LOOK_S
from serve.books import FOLLOW_S, Books
from serve.database import Database
from serve.keys import Keys
from serve.ledger import Ledger
from serve.lifecycle import Lifecycle
from serve.releases import ReleaseError, Releases
from serve.routing import Routing, RoutingState

A, B, C = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb", "ens-cccccccccccc"


def test_a_version_is_loaded_answers_and_leaves(ledger: Ledger) -> None:
    Routing(ledger.database).begin(A)
    releases = Releases(ledger.database, "me")
    assert releases.add(B).bundles() == (A, B)
    with pytest.raises(ReleaseError, match="not loaded, so it cannot answer"):
        releases.crown(B)
    releases.tell(B, "loading", {"members": 2})
    with pytest.raises(ReleaseError, match="loading, so it cannot answer"):
        releases.crown(B)
    releases.tell(B, "ready", None)
    state = releases.crown(B)
    assert (state.champion, state.previous, state.bundles()) == (B, A, (B, A))
    with pytest.raises(ReleaseError, match="is the champion"):
        releases.retire(B)
    assert releases.retire(A).bundles() == (B,)
    with pytest.raises(ReleaseError, match="is not loaded"):
        releases.retire(A)
    acts = [row["act"] for row in Routing(ledger.database).history()]
    assert acts == ["routing.begin", "release.add", "release.champion", "release.retire"]
    row = releases.row(B)
    assert row is not None
    assert row["description"] == {"members": 2}


def test_a_champion_under_test_stays(sqlite_ledger: Ledger) -> None:
    Routing(sqlite_ledger.database).begin(A)
    releases = Releases(sqlite_ledger.database, "me")
    releases.add(C)
    releases.tell(C, "ready", {})
    Lifecycle(sqlite_ledger.database, "me").start("e", B)
    with pytest.raises(ReleaseError, match="Experiment e runs"):
        releases.crown(C)
    with pytest.raises(ReleaseError, match="is under test in e"):
        releases.retire(B)
    assert releases.retire(C).bundles() == (A, B)


def test_a_version_that_failed_is_tried_again_when_asked(sqlite_ledger: Ledger) -> None:
    Routing(sqlite_ledger.database).begin(A)
    releases = Releases(sqlite_ledger.database, "me")
    releases.tell(B, "failed", {}, "x" * 10_000)
    releases.add(B)
    assert releases.row(B) is None


def test_a_state_of_an_older_release_has_nothing_loaded() -> None:
    older = RoutingState(version=3, champion=A).to_dict()
    del older["loaded"]
    assert RoutingState.from_dict(older).bundles() == (A,)


def test_a_gateway_lists_each_version_with_its_role(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    database = Database(url)
    Routing(database).begin(A)
    releases = Releases(database, "service")
    releases.tell(A, "ready", {"version": A, "aliases": ["champion", "x"], "members": 3})
    releases.add(B)
    releases.tell(B, "loading", {"version": B, "aliases": []})
    releases.tell(C, "failed", {}, "A byte has changed.")
    books = Books(url, tmp_path / "spool", is_open=True)
    listed = books.versions()
    books.close()
    assert [(row["version"], row["role"], row["status"]) for row in listed] == [
        (A, "champion", "ready"),
        (B, "loaded", "loading"),
        (C, None, "failed"),
    ]
    assert (listed[0]["aliases"], listed[0]["members"], listed[2]["reason"]) == (
        ["champion", "x"],
        3,
        "A byte has changed.",
    )


def test_a_gateway_follows_what_was_changed_through_another(ledger_url: str, tmp_path: Path) -> None:
    assert FOLLOW_S + LOOK_S < 2  # what is promised; benchmarks.serve_follow has the time
    database = Database(ledger_url)
    Routing(database).begin(A)
    one, other = (Books(ledger_url, tmp_path / name, is_open=False) for name in ("one", "other"))
    Releases(one.ledger.database, "me").add(B)
    key = Keys(one.ledger.database, "me").add("ris", ["score"])
    end = time.monotonic() + 30
    while B not in other.state.bundles() or other._snapshot.keys.caller(key) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    for books in (one, other):
        books.close()
    database.close()
