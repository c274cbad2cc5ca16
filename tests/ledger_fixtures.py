"""Ledgers and entries that the tests of the service's ledger share."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.database import Database
from serve.entries import Answered
from serve.ledger import Ledger
from tests.postgres_server import PostgresServer

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database(f"ledger_{next(_NUMBERS)}")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    database = Database(ledger_url)
    yield Ledger(database)
    database.close()


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Ledger]:
    database = Database(f"sqlite:///{tmp_path}/ledger.db")
    yield Ledger(database)
    database.close()


def answered(**changes: Any) -> Answered:
    """A prediction of 100 months by ens-a, changed as told."""
    fields: dict[str, Any] = {
        "request_id": "r",
        "key_id": "",
        "fingerprint": "f",
        "subject": None,
        "sex": "male",
        "version": "ens-a",
        "bone_age_months": 100.0,
        "answer": {"bone_age_months": 100.0},
        "latency_ms": 5.0,
        "routing_version": 1,
    }
    return Answered(**{**fields, **changes})
