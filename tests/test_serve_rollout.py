"""A declared version becomes champion, whoever dies on the way and whatever stands in it."""

from typing import Any

import pytest

from serve import releases
from serve.database import Database, LedgerDownError
from serve.ledger import Ledger
from serve.lifecycle import Lifecycle
from serve.releases import Releases
from serve.rollout import Rollout
from serve.routing import Routing

A, B, C = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb", "ens-cccccccccccc"


class Names:
    """A registry in which a word means a version."""

    def __init__(self) -> None:
        self.champion, self.moves = A, [moved(A, "2001-01-01T00:00:00+00:00")]

    def version_of(self, name: str) -> str:
        return self.champion if name == "champion" else name

    def history(self) -> list[dict[str, Any]]:
        return self.moves

    def move(self, version: str, when: str) -> None:
        self.champion = version
        self.moves.append(moved(version, when))


class Site:
    """A ledger on which keepers come and go."""

    def __init__(self, database: Database) -> None:
        self.database, self.names, self.said = database, Names(), list[str]()
        self.releases = Releases(database, "me")

    def begin(self, name: str) -> Rollout | None:
        """A new keeper reads the file."""
        return Rollout.begin(self.database, self.names, name, self.said.append)  # type: ignore[arg-type]

    def roll(self, name: str) -> Rollout:
        rollout = self.begin(name)
        assert rollout is not None
        return rollout

    def finish(self, name: str) -> None:
        """A whole rollout."""
        rollout = self.roll(name)
        rollout.advance()
        self.releases.tell(rollout.version, "ready", {})
        assert rollout.advance()

    def champion(self) -> str:
        state = Routing(self.database).current()
        assert state is not None
        return state.champion


@pytest.fixture
def site(sqlite_ledger: Ledger) -> Site:
    site = Site(sqlite_ledger.database)
    site.finish(A)
    return site


def moved(version: str, when: str) -> dict[str, Any]:
    return {"event": "alias", "alias": "champion", "version": version, "time": when}


def test_only_a_change_of_what_is_declared_counts(site: Site) -> None:
    assert site.begin(A) is None
    site.finish(B)
    assert (site.champion(), site.begin(B)) == (B, None)
    site.releases.crown(A)
    assert (site.begin(B), site.champion()) == (None, A)  # a promotion since then survives a restart
    site.finish(A)  # which is champion, and declared again
    site.finish(B)
    assert site.champion() == B


def test_a_keeper_that_dies_while_the_version_loads_leaves_it_to_the_next(site: Site) -> None:
    assert not site.roll(B).advance()
    assert (site.champion(), site.said) == (A, [])
    site.finish(B)
    assert site.champion() == B


def test_a_rollout_waits_for_a_place_and_says_so_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "MAX_LOADED", 1)
    site.releases.add(C)
    rollout = site.roll(B)
    for _ in range(3):
        assert not rollout.advance()
    (line,) = site.said
    assert line.startswith(f"the declared version {B} is not champion yet: 1 versions are kept ready")
    site.releases.retire(C)
    rollout.advance()
    site.releases.tell(B, "ready", {})
    assert rollout.advance()


def test_a_rollout_waits_for_the_end_of_an_experiment_and_says_so_once(site: Site) -> None:
    Lifecycle(site.database, "me").start("e", C)
    rollout = site.roll(B)
    rollout.advance()
    site.releases.tell(B, "ready", {})
    for _ in range(3):
        assert not rollout.advance()
    assert [line.count("Experiment e runs") for line in site.said] == [1]
    assert site.begin(B) is not None  # a keeper that starts now waits too
    Lifecycle(site.database, "me").stop("e", {})
    assert rollout.advance()
    assert site.champion() == B


def test_a_version_that_fails_is_not_loaded_again_and_again(site: Site) -> None:
    rollout = site.roll(B)
    rollout.advance()
    site.releases.tell(B, "failed", {}, "A byte has changed.")
    site.releases.retire(B)
    for _ in range(2):
        assert not rollout.advance()
    assert site.said == [
        f"the declared version {B} is not champion yet: {B} is failed, so it cannot answer. Add it first."
    ]
    site.releases.add(B)
    site.releases.tell(B, "ready", {})
    assert rollout.advance()


def test_an_outage_between_two_rounds_loses_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise LedgerDownError("away")

    rollout = site.roll(B)
    with monkeypatch.context() as outage:
        outage.setattr(Database, "write", away)
        with pytest.raises(LedgerDownError):
            rollout.advance()
    rollout.advance()
    site.releases.tell(B, "ready", {})
    assert rollout.advance()


def test_who_declares_the_registrys_champion_gets_it_where_it_was_moved_after_the_ledgers(site: Site) -> None:
    site.names.move(B, "2001-01-02T00:00:00+00:00")
    assert site.begin("champion") is None
    assert site.said[0].startswith(f"{A} answers: ")
    assert Routing(site.database).history()[-1]["act"] == "routing.stay"
    site.names.move(B, "2999-01-01T00:00:00+00:00")
    site.finish("champion")
    assert site.champion() == B
    assert site.begin(B) is not None  # the file names a version again: that is a change
