"""The commands of the ledger, as a person types them."""

import contextlib
import json
import sys
from pathlib import Path

import pytest

from ensemble.registry import Registry
from serve.__main__ import _say, main
from serve.admin import COMMANDS
from serve.database import Database
from serve.releases import Releases
from serve.routing import Routing


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry with two empty bundles, and a ledger that a service has begun."""
    monkeypatch.delenv("CARPAL_LEDGER", raising=False)
    for version in ("ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb"):
        (tmp_path / "bundles" / version).mkdir(parents=True)
        (tmp_path / "bundles" / version / "manifest.json").write_text("{}")
    for alias, version in (("champion", "ens-aaaaaaaaaaaa"), ("next", "ens-bbbbbbbbbbbb")):
        Registry(tmp_path).set_alias(alias, version)
    Routing(Database(f"sqlite:///{tmp_path}/ledger/ledger.db")).begin("ens-aaaaaaaaaaaa")
    return str(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_key_is_shown_once(registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = said(capsys, "keys", "add", registry, "ris", "--role", "score", "--role", "read").strip()
    listed = said(capsys, "keys", "list", registry)
    key_id = key.split("_")[1]
    assert (key_id in listed, key in listed, "read,score" in listed) == (True, False, True)
    assert said(capsys, "keys", "rotate", registry, key_id).startswith("carpal_")
    said(capsys, "keys", "end", registry, key_id)
    assert said(capsys, "keys", "list", registry).count("ends 20") == 1


def test_an_experiment_from_its_start_to_its_rollback(registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No experiment runs" in said(capsys, "experiment", "status", registry)
    started = said(capsys, "experiment", "start", registry, "one", "next", "--policy", "promote=auto", "alpha=0.01")
    assert started == "one: shadow of ens-bbbbbbbbbbbb against ens-aaaaaaaaaaaa, share 100%\n"
    assert "0 of 50 subjects have a reading" in said(capsys, "experiment", "status", registry)
    found = json.loads(said(capsys, "experiment", "status", registry, "--json"))
    assert found["experiment"]["policy"]["alpha"] == 0.01
    assert said(capsys, "experiment", "promote", registry, "one") == "The champion is ens-bbbbbbbbbbbb.\n"
    assert "promoted" in said(capsys, "experiment", "status", registry, "one")
    assert said(capsys, "experiment", "rollback", registry, "one") == "The champion is ens-aaaaaaaaaaaa.\n"
    said(capsys, "experiment", "start", registry, "two", "ens-bbbbbbbbbbbb", "--mode", "split")
    said(capsys, "experiment", "share", registry, "two", "0.2")
    assert "split, share 20%" in said(capsys, "experiment", "status", registry)
    said(capsys, "experiment", "stop", registry, "two")
    assert Registry(registry).version_of("champion") == "ens-aaaaaaaaaaaa"
    acts = [line.split()[3] for line in said(capsys, "experiment", "history", registry).splitlines()]
    assert acts == [
        "routing.begin",
        *(f"experiment.{act}" for act in ["start", "promote", "rollback", "start", "share", "stop"]),
    ]


def test_a_version_is_added_crowned_and_retired(registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    database = Database(f"sqlite:///{registry}/ledger/ledger.db")
    assert main(["add", registry, "next", "--wait", "0"]) == 2  # no service runs that could load it
    assert "was not ready after 0 s" in capsys.readouterr().err
    Releases(database, "service").tell("ens-bbbbbbbbbbbb", "ready", {})
    assert said(capsys, "add", registry, "next") == "ens-bbbbbbbbbbbb is ready\n"
    assert "The champion is ens-bbbbbbbbbbbb; ens-aaaaaaaaaaaa" in said(capsys, "add", registry, "next", "--champion")
    assert main(["retire", registry, "ens-bbbbbbbbbbbb"]) == 2
    assert "is the champion" in capsys.readouterr().err
    said(capsys, "retire", registry, "ens-aaaaaaaaaaaa")
    state = Routing(database).current()
    assert state is not None
    assert state.bundles() == ("ens-bbbbbbbbbbbb",)


def test_the_help_of_the_service_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    described = capsys.readouterr().out.partition("positional arguments")[0]
    assert [name for name in COMMANDS if f"{name} …" not in described] == []


def test_a_line_that_cannot_be_written_ends_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:  # as a log on a full disk
        monkeypatch.setattr(sys, "stdout", full)
        _say(0.0, "ready")
        with contextlib.suppress(OSError):  # what is left of the line
            full.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("experiment", "start", "R", "one", "ens-c"), "has no bundle 'ens-c'"),
        (("experiment", "start", "R", "one", "ens-aaaaaaaaaaaa"), "two versions"),
        (("experiment", "start", "R", "one", "ens-bbbbbbbbbbbb", "--policy", "alfa=1"), "no 'alfa'"),
        (("experiment", "start", "R", "one", "ens-bbbbbbbbbbbb", "--share", "7"), "share"),
        (("experiment", "status", "R", "none"), "no experiment 'none'"),
        (("keys", "end", "R", "x"), "no key"),
        (("keys", "list", "R/nothing"), "does not exist"),
        (("keys", "list", "R", "--ledger", "mysql://x/y"), "SQLite or PostgreSQL"),
        (("keys", "list", "memory://bucket/registry"), "no place for a ledger"),
    ],
)
def test_a_wrong_call_is_a_sentence(
    registry: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert main([registry + word[1:] if word[:1] == "R" else word for word in words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
