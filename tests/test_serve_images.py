"""Kept radiographs: none by default; encrypted, bound to their prediction, gone when their time is over."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.__main__ import main
from serve.books import Books
from serve.database import Database
from serve.entries import new_id
from serve.gateway import Gateway
from serve.images import ImageError, KeptImages, new_key
from serve.problems import Problem
from serve.routing import Routing
from tests.hostile_uploads import PNG, SCORE
from tests.ledger_fixtures import answered
from tests.test_serve_gateway_ledger import A, Version

DAY_S = 86400.0


def test_an_image_opens_under_its_own_key_and_id_alone(tmp_path: Path) -> None:
    key, one, other = new_key(), new_id(), new_id()
    images = KeptImages(tmp_path, 30, key)
    images.keep(one, PNG)
    (path,) = tmp_path.glob("*/*.aes")
    assert PNG[:16] not in path.read_bytes()
    assert images.read(one) == PNG
    path.rename(path.with_name(f"{other}.aes"))
    with pytest.raises(ImageError, match="does not open"):
        images.read(other)
    path.with_name(f"{other}.aes").rename(path)
    with pytest.raises(ImageError, match="does not open"):
        KeptImages(tmp_path, 30, new_key()).read(one)
    with pytest.raises(ImageError, match="No image"):
        images.read(other)
    with pytest.raises(ImageError, match="32 hex digits"):
        images.read("../../etc/passwd")


def test_an_image_goes_when_its_time_is_over(tmp_path: Path) -> None:
    images, one = KeptImages(tmp_path, 30, new_key()), new_id()
    images.keep(one, PNG)
    assert images.expire(time.time() + 29 * DAY_S) == 0
    assert images.expire(time.time() + 32 * DAY_S) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0.5, 1.0, 1.5])
def test_an_image_made_at_the_end_of_a_day_is_kept_for_as_long_as_told(tmp_path: Path, days: float) -> None:
    images, made_s = KeptImages(tmp_path, days, new_key()), 20_000 * DAY_S - 60  # a minute before midnight, UTC
    images.keep(f"{int(made_s * 1e6):014x}" + "0" * 18, PNG)
    assert images.expire(made_s + days * DAY_S) == 0
    assert images.expire(made_s + days * DAY_S + 60) == 1


@pytest.mark.parametrize("key", ["", "short", "ü", "=" * 44])
def test_without_a_key_nothing_is_kept(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CARPAL_IMAGE_KEY", raising=False)
    with pytest.raises(ImageError, match="python -m serve images key"):
        KeptImages(tmp_path, 30, key)
    with pytest.raises(ImageError, match="more than 0"):
        KeptImages(tmp_path, 0, new_key())


@pytest.mark.parametrize("is_told", [True, False])
def test_a_gateway_keeps_images_only_when_told(
    tmp_path: Path, is_told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CARPAL_IMAGE_KEY", new_key())
    monkeypatch.delenv("CARPAL_LEDGER", raising=False)
    url, folder = f"sqlite:///{tmp_path}/ledger/ledger.db", tmp_path / "ledger" / "images"
    Routing(Database(url)).begin(A)
    images = KeptImages(folder, 30) if is_told else None
    books = Books(url, tmp_path / "spool", is_open=True, images=images)
    with TestClient(Gateway({A: Version(A, 100.0)}.__getitem__, [], books).app()) as client:
        prediction_id = client.post(SCORE, content=PNG).json()["prediction_id"]
        page = " ".join(client.get("/").text.split())
    books.close()
    assert folder.exists() == is_told
    assert f"and {'kept, encrypted, for 30 days' if is_told else 'not kept'}.</p>" in page
    status = main(["images", "export", str(tmp_path), prediction_id, str(tmp_path / "out.png")])
    assert status == (0 if is_told else 2)
    if is_told:
        assert (tmp_path / "out.png").read_bytes() == PNG
        assert "image.export" in [row["act"] for row in Routing(Database(url)).history()]


async def _keep(books: Books) -> None:
    await books.keep_image(new_id(), PNG)


def test_what_cannot_be_kept_as_told_is_not_answered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    Routing(Database(url)).begin(A)
    (tmp_path / "images").write_text("a file where a folder should be")
    books = Books(url, tmp_path / "spool", is_open=True, images=KeptImages(tmp_path / "images", 30, new_key()))
    with pytest.raises(Problem, match="cannot be kept"):
        asyncio.run(_keep(books))
    books.close()


def test_a_store_that_hangs_keeps_nobody_waiting_and_no_image_of_what_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.books.STORE_TIMEOUT_S", 0.1)
    goes_on, is_removed = threading.Event(), threading.Event()
    url, images = f"sqlite:///{tmp_path}/ledger.db", KeptImages(tmp_path / "images", 30, new_key())
    keep, remove, kept = images.keep, images.remove, []

    def keep_late(*arguments: Any) -> None:
        goes_on.wait(60)
        keep(*arguments)
        kept.extend((tmp_path / "images").rglob("*.aes"))

    def remove_and_tell(prediction_id: str) -> None:
        remove(prediction_id)
        is_removed.set()

    monkeypatch.setattr(images, "keep", keep_late)
    monkeypatch.setattr(images, "remove", remove_and_tell)
    Routing(Database(url)).begin(A)
    books = Books(url, tmp_path / "spool", is_open=True, images=images)
    with pytest.raises(Problem, match="cannot be kept"):
        asyncio.run(_keep(books))
    books.close()
    goes_on.set()
    assert is_removed.wait(20)
    assert len(kept) == 1
    assert not kept[0].exists()


def test_an_answer_that_finds_no_room_leaves_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, images = f"sqlite:///{tmp_path}/ledger.db", KeptImages(tmp_path / "images", 30, new_key())
    is_removed, remove = threading.Event(), images.remove
    monkeypatch.setattr(images, "remove", lambda name: (remove(name), is_removed.set()))
    Routing(Database(url)).begin(A)
    books = Books(url, tmp_path / "spool", is_open=True, images=images)
    books.close()  # a recorder that is closed refuses as a full spool does
    entry = answered()
    images.keep(entry.id, PNG)
    with pytest.raises(Problem, match="cannot be recorded"):
        asyncio.run(books.store(entry))
    assert is_removed.wait(20)
    assert not list((tmp_path / "images").rglob("*.aes"))


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/experiments/e", "/v1/audit", "POST /v1/versions"])
def test_a_database_that_hangs_holds_up_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    for name, seconds in {"books.HANG_S": 0.1, "recorder.HANG_S": 0.1, "books.PATIENCE_S": 0.0}.items():
        monkeypatch.setattr(f"serve.{name}", seconds)
    url, images = f"sqlite:///{tmp_path}/ledger.db", KeptImages(tmp_path / "images", 30, new_key())
    Routing(Database(url)).begin(A)
    books = Books(url, tmp_path / "spool", is_open=True, images=images)
    goes_on = threading.Event()
    goes_on.set()
    transaction = books.ledger.database._transaction

    def hanging(begin: str) -> Any:
        goes_on.wait(30)
        return transaction(begin)

    monkeypatch.setattr(books.ledger.database, "_transaction", hanging)
    with TestClient(Gateway({A: Version(A, 100.0)}.__getitem__, [], books).app()) as client:
        assert client.post(SCORE, content=PNG).status_code == 200
        goes_on.clear()
        begin = time.monotonic()
        if path.startswith("POST "):
            refused = client.post(path.removeprefix("POST "), json={"version": A})
        else:
            refused = client.get(path)
        assert refused.json()["code"] == "unavailable"
        assert ("the change may yet be made" in refused.json()["detail"]) == path.startswith("POST ")
        assert client.post(SCORE, content=PNG).status_code == 200
        assert time.monotonic() - begin < 10
        goes_on.set()
    books.close()
    assert len(list((tmp_path / "images").glob("*/*.aes"))) == 2
