"""The files for Prometheus and Grafana: they name metrics that exist, and promtool, where it is there, accepts them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from serve.books import Books
from serve.database import Database
from serve.metrics import Metrics
from serve.routing import Routing

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
NAME = re.compile(r"\bcarpal_[a-z0-9_]+")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every name that a query may use."""
    folder = tmp_path_factory.mktemp("metrics")
    Routing(Database(f"sqlite:///{folder}/ledger.db")).begin("ens-aaaaaaaaaaaa")
    books = Books(f"sqlite:///{folder}/ledger.db", folder / "spool", is_open=True)
    families = list(Metrics(books).registry.collect())
    books.close()
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + ending for family in families for ending in endings[family.type]} | {"carpal_gateways_silent"}


def test_rules_name_metrics_that_exist(known: set[str]) -> None:
    for name in ("alerts", "drift"):
        groups = yaml.safe_load((PROMETHEUS / f"{name}.yaml").read_text())["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            assert set(NAME.findall(rule["expr"])) <= known, rule
            if "alert" in rule:
                assert rule["labels"]["severity"] in ("page", "ticket")
                assert set(rule["annotations"]) == {"summary", "remedy"}


def test_the_dashboard_names_metrics_that_exist(known: set[str]) -> None:
    board = json.loads((GRAFANA / "carpal.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 15
    for query in queries:
        assert set(NAME.findall(query)) <= known, query
    assert all("datasource" in panel for panel in board["panels"] if panel["type"] != "row")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
@pytest.mark.slow
def test_promtool_accepts_the_files_and_the_alerts_raise_when_they_should() -> None:
    for command in (
        ["check", "rules", *(str(PROMETHEUS / f"{name}.yaml") for name in ("alerts", "drift"))],
        ["check", "config", "--syntax-only", str(PROMETHEUS / "scrape.yaml")],
        ["test", "rules", str(ROOT / "tests" / "prometheus" / "alerts_test.yaml")],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
