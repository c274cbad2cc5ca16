"""The launcher's files are checked with Ray's own code, offline; tests/test_search_cluster_check.py knows the traps."""

import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.label_utils import parse_node_labels_string
from ray.autoscaler._private.util import prepare_config, validate_config

from preprocessing.storage import as_path
from search.cluster.file import option
from serve.admin import spool_folder
from serve.boundary import FOR_PROCESSES
from serve.capacity import Capacity
from tests.conftest import ROOT

LAUNCHED = ["cluster.yaml", "deploy/cluster-gcp.yaml", "deploy/cluster-onprem.yaml"]
"""Files of `ray up`."""


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """The file as it stands."""
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_launchers_own_schema_accepts_it_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("validation asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    validate_config(prepare_config(yaml.safe_load((ROOT / name).read_text())))


def test_the_head_runs_no_trial(written: dict[str, Any]) -> None:
    head = written["available_node_types"][written["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0


def test_the_search_pool_is_spot_and_the_serving_pool_is_not(written: dict[str, Any]) -> None:
    markets = {
        name: kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
        for name, kind in written["available_node_types"].items()
    }
    assert markets == {"head": None, "gpu_spot": "spot", "gpu_on_demand": None}


def test_ray_is_pinned_to_the_version_of_the_lock_file(written: dict[str, Any]) -> None:
    (version,) = re.findall(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    tags = [written["docker"][image].split(":")[1] for image in ("head_image", "worker_image")]
    assert {tag.split("-")[0] for tag in tags} == {version}
    assert "requirements.lock" in " ".join(written["setup_commands"])
    assert "dev0" not in str(written)


def test_a_worker_can_start_no_machine_and_the_head_only_workers() -> None:
    worker, head = (json.loads((ROOT / f"deploy/aws/{who}-policy.json").read_text()) for who in ("worker", "head"))
    actions = {action for statement in worker["Statement"] for action in statement["Action"]}
    assert all(action.startswith("s3:") for action in actions)
    (passed,) = [s["Resource"] for s in head["Statement"] if "iam:PassRole" in s["Action"]]
    assert passed.endswith("role/carpal-worker")


def test_every_install_brings_the_driver_of_the_declared_ledger() -> None:
    for name in ("deploy/serve.yaml", "deploy/kuberay/rayservice.yaml"):
        assert "ledger: &ledger postgresql+psycopg://" in (ROOT / name).read_text()
    for name in (*LAUNCHED, "deploy/Dockerfile"):
        (extras,) = re.findall(r"pip install .*-e \S+\[(\S+)\]' -c", (ROOT / name).read_text())
        assert "postgres" in extras.split(","), name


@pytest.mark.parametrize("name", LAUNCHED)
def test_replicas_find_nodes_with_the_labels_that_the_declared_service_asks_for(name: str) -> None:
    keeper, _ = yaml.safe_load((ROOT / "deploy/serve.yaml").read_text())["applications"]
    capacity = replace(Capacity.of({"CPU": 8, "GPU": 1}), market=keeper["args"]["market"])
    launched = yaml.safe_load((ROOT / name).read_text())
    of_start = parse_node_labels_string(option(" ".join(launched["worker_start_ray_commands"]), "labels") or "")
    pools = [kind.get("labels", {}) for kind in launched.get("available_node_types", {}).values()]
    for tier in (capacity.preprocess_options(), capacity.ensemble_options()):
        wanted = tier["ray_actor_options"]["label_selector"].items()
        assert any(wanted <= labels.items() for labels in (of_start, *pools))


def test_every_ray_start_asks_for_the_token(written: dict[str, Any]) -> None:
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in written[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "/home/ray/.ray/auth_token" in written["file_mounts"]


def test_dashboard_stays_on_loopback_and_stopped_nodes_are_not_kept(written: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in " ".join(written["head_start_ray_commands"])
    assert written["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("name", LAUNCHED)
def test_nodes_start_with_what_every_process_of_a_service_needs(name: str) -> None:
    starts = [line for line in (ROOT / name).read_text().splitlines() if " ray start " in line]
    assert len(starts) == 2
    for line in starts:
        assert line.startswith('  - eval "$(python -m serve.fast_node)"; ')  # else Serve's own proxy answers
        assert dict(re.findall(r"(\w+)=(\S+)", line.partition(" ray start ")[0])).items() >= FOR_PROCESSES.items()


def test_pods_of_the_service_have_what_every_process_of_it_needs() -> None:
    cluster = yaml.safe_load((ROOT / "deploy/kuberay/rayservice.yaml").read_text())["spec"]["rayClusterConfig"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        assert {each["name"]: each["value"] for each in container["env"]}.items() >= FOR_PROCESSES.items()


def test_what_waits_for_the_database_outlives_a_container() -> None:
    cluster = yaml.safe_load((ROOT / "deploy/kuberay/rayservice.yaml").read_text())["spec"]["rayClusterConfig"]
    spool = spool_folder(as_path("memory://bucket/registry")).relative_to(Path.home())
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert (Path("/home/ray") / spool).is_relative_to(mount["mountPath"])
        assert mount["name"] in {volume["name"] for volume in pod["volumes"]}
