"""A ledger that an older release has filled: all of it is there after the upgrade, and the service goes on with it."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from serve import tables
from serve.database import Database
from serve.entries import Explained
from serve.experiment import Experiment
from serve.experiment_report import report
from serve.keys import Keys, read_keys
from serve.ledger import Ledger
from serve.lifecycle import Lifecycle, experiments
from serve.releases import read_releases
from serve.routing import Routing
from tests.ledger_fixtures import answered

A, B = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb"
OLD = answered(id="old", created_s=1.0, version=A, subject="s", idempotency_key="k", experiment="e", arm="champion")
DEFINITION = {"name": "e", "mode": "shadow", "champion": A, "challenger": B, "shares": [1.0], "salt": "0", "policy": {}}
ANSWER = {"version": B, "bone_age_months": 90.0, "answer": {"bone_age_months": 90.0}, "latency_ms": 5.0}
ROWS: dict[str, dict[str, Any]] = {
    "settings": {"name": "declared", "value": A},
    "predictions": vars(OLD),
    "shadows": {"prediction_id": "old", "created_s": 2.0, **ANSWER},
    "failures": {"id": "f", "created_s": 2.0, "request_id": "r", "version": B, "code": "timeout", "experiment": "e"},
    "heatmaps": {"prediction_id": "old", "created_s": 2.0, "png": b"\x89PNG\0\xff"},
    "reference_readings": {"prediction_id": "old", "created_s": 3.0, "key_id": "", "reader": "", "bone_age_months": 95},
    "experiments": {"name": "e", "started_s": 0.0, "ended_s": 4.0, "outcome": "stopped", "definition": DEFINITION},
    # without what is loaded beside: the first release did not know it
    "routing": {
        "version": 1,
        "created_s": 0.0,
        "state": {"version": 1, "champion": A, "previous": None, "experiment": None},
    },
    "keys": {"id": "0badc0de", "name": "ris", "roles": "score", "digest": "0" * 64, "created_s": 0.0, "ends_s": None},
    "releases": {"version": A, "status": "ready", "changed_s": 0.0, "reason": "", "description": {"members": 3}},
    "audit": {"created_s": 0.0, "actor": "service", "act": "routing.begin", "detail": {"to": 1}},
}
"""A row of each table, as far as the release has that."""


def script() -> Config:
    config = Config()
    config.set_main_option("script_location", "serve:migrations")
    return config


def older_revisions() -> list[str]:
    directory = ScriptDirectory.from_config(script())
    return [step.revision for step in directory.walk_revisions() if step.revision != directory.get_current_head()]


def fill(url: str, revision: str) -> dict[str, dict[str, Any]]:
    """Bring an empty database to an older revision and put a row into each of its tables; the rows, by table."""
    config, engine = script(), sa.create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        inspector, filled = sa.inspect(connection), {}
        for table in tables.metadata.sorted_tables:
            if inspector.has_table(table.name):
                there = {column["name"] for column in inspector.get_columns(table.name)}
                filled[table.name] = {name: value for name, value in ROWS[table.name].items() if name in there}
                connection.execute(sa.insert(table).values(filled[table.name]))
    engine.dispose()
    return filled


@pytest.mark.parametrize("revision", older_revisions())
def test_every_row_of_an_older_release_is_there_after_the_upgrade(ledger_url: str, revision: str) -> None:
    filled = fill(ledger_url, revision)
    assert set(filled) >= {"predictions", "keys", "routing", "audit"}
    database = Database(ledger_url)
    with database.read() as connection:
        for table in tables.metadata.sorted_tables:
            found = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            kept = [row for row in found if row.get("name") != "pepper"]
            told = [{name: row[name] for name in filled[table.name]} for row in kept] if table.name in filled else kept
            assert told == ([filled[table.name]] if table.name in filled else [])
    database.close()


def test_the_service_goes_on_with_the_ledger_of_the_first_release(ledger_url: str) -> None:
    fill(ledger_url, "0001")
    database = Database(ledger_url)
    ledger, routing = Ledger(database), Routing(database)
    repeated = ledger.repeated("", "k")
    assert repeated is not None
    assert repeated["id"] == OLD.id
    assert ledger.add_reference(OLD.id, 97.0)
    new = answered()
    ledger.write([new, Explained(prediction_id=new.id, png=b"\x89PNG")])
    assert ledger.heatmap(new.id) == b"\x89PNG"
    (ended,) = experiments(database)
    assert report(database, Experiment.from_dict(ended["definition"]))["difference"]["n"] == 1
    state = routing.current()
    assert state is not None
    assert (state.champion, state.loaded) == (A, ())
    assert Lifecycle(database, "me").start("next", B).version == 2
    Keys(database, "me").add("new", ["read"])
    with database.read() as connection:
        assert {row["name"] for row in read_keys(connection)} == {"ris", "new"}
        assert read_releases(connection) == []
    assert [row["act"] for row in routing.history()] == ["routing.begin", "experiment.start", "key.add"]
    database.close()


def test_pseudonyms_of_an_older_release_stay(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    fill(url, "0001")
    with sa.create_engine(url).connect() as connection:
        pepper = connection.execute(sa.text("SELECT value FROM settings WHERE name = 'pepper'")).scalar_one()
    database = Database(url)
    assert Ledger(database).pepper == pepper  # a child who comes again stays the same subject
    database.close()
