"""Keys: who gets in, who does not, and that no secret is stored."""

import time

import pytest
import sqlalchemy as sa

from serve import tables
from serve.keys import ANYBODY, KeyRefusedError, Keys
from serve.ledger import Ledger
from serve.routing import Routing


def test_a_key_opens_with_its_roles(ledger: Ledger) -> None:
    keys = Keys(ledger.database, "me")
    ris, boss = keys.add("ris", ["score"]), keys.add("boss", ["admin"])
    caller, admin = keys.ring().caller(ris), keys.ring().caller(boss)
    assert caller is not None
    assert caller.may("score")
    assert not caller.may("read")
    assert admin is not None
    assert admin.may("score")
    assert ANYBODY.may("admin")


@pytest.mark.parametrize("change", ["", "carpal", "Bearer x", "x" * 5000, "carpal_00000000_" + "a" * 43, "\x00"])
def test_what_is_no_key_does_not_open(sqlite_ledger: Ledger, change: str) -> None:
    keys = Keys(sqlite_ledger.database, "me")
    keys.add("ris", ["score"])
    assert keys.ring().caller(change) is None


def test_a_key_with_one_wrong_letter_does_not_open(sqlite_ledger: Ledger) -> None:
    keys = Keys(sqlite_ledger.database, "me")
    key = keys.add("ris", ["score"])
    assert keys.ring().caller(key[:-1] + ("A" if key[-1] != "A" else "B")) is None


def test_no_secret_is_stored_and_every_act_is(sqlite_ledger: Ledger) -> None:
    keys = Keys(sqlite_ledger.database, "me")
    first = keys.add("ris", ["score", "read"])
    second = keys.rotate(first.split("_")[1], overlap_s=60)
    keys.end(second.split("_")[1])
    with sqlite_ledger.database.read() as connection:
        everything = str([connection.execute(sa.select(table)).all() for table in (tables.keys, tables.audit)])
    assert first.split("_", 2)[2] not in everything
    assert [row["act"] for row in Routing(sqlite_ledger.database).history()] == ["key.add", "key.rotate", "key.end"]


def test_a_rotated_key_opens_until_its_overlap_ends(sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(sqlite_ledger.database, "me")
    first = keys.add("ris", ["score"])
    second = keys.rotate(first.split("_")[1], overlap_s=1000)
    ring = keys.ring()
    assert ring.caller(first)
    assert ring.caller(second)
    later_s = time.time() + 1001
    monkeypatch.setattr(time, "time", lambda: later_s)
    assert ring.caller(first) is None  # also by a ring that was read before
    keys.end(second.split("_")[1])
    assert keys.ring().caller(second) is None
    keys.end(first.split("_")[1], after_s=1000)
    assert keys.ring().caller(first) is None  # what ended does not begin again


def test_an_ended_key_is_not_rotated_into_one_that_opens(sqlite_ledger: Ledger) -> None:
    keys = Keys(sqlite_ledger.database, "me")
    key_id = keys.add("ris", ["score"]).split("_")[1]
    keys.end(key_id)
    with pytest.raises(KeyRefusedError, match=f"{key_id} has ended"):
        keys.rotate(key_id, overlap_s=60)
    assert len(keys.rows()) == 1


@pytest.mark.parametrize("after_s", [float("nan"), float("inf"), -float("inf"), -1.0, 1e300])
def test_a_time_that_is_none_ends_no_key(sqlite_ledger: Ledger, after_s: float) -> None:
    keys = Keys(sqlite_ledger.database, "me")
    key = keys.add("ris", ["score"])
    for change in (lambda key_id: keys.rotate(key_id, overlap_s=after_s), lambda one: keys.end(one, after_s=after_s)):
        with pytest.raises(KeyRefusedError, match=r"0 to 8,784 hours"):
            change(key.split("_")[1])
    assert [row["ends_s"] for row in keys.rows()] == [None]


def test_a_key_that_cannot_be_is_refused(sqlite_ledger: Ledger) -> None:
    keys = Keys(sqlite_ledger.database, "me")
    for name, roles in (("x", []), ("x", ["god"]), ("", ["score"]), ("a\n", ["score"])):
        with pytest.raises(KeyRefusedError):
            keys.add(name, roles)
    with pytest.raises(KeyRefusedError, match="no key"):
        keys.end("00000000")
