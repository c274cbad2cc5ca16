"""The service as a configuration file declares it: built here, deployed in tests/test_cluster.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ray.serve.schema import ServeDeploySchema

from ensemble.combine import combine
from ensemble.registry import Registry
from preprocessing.storage import sha256_file
from serve import declared as declared_module
from serve.declared import GatewaySettings, KeeperSettings, gateway, keeper
from serve.protocol import describe
from tests.conftest import ROOT
from tests.ensemble_fixtures import make_cohort, make_study

SETTINGS = {"serve.declared:keeper": KeeperSettings, "serve.declared:gateway": GatewaySettings}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a champion."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("declared")
    combination = combine(make_study(root / "study", make_cohort(root / "cohort")))
    published = Registry(root / "registry")
    published.set_alias("champion", published.publish(combination.write).version)
    return root / "registry"


def declared(name: str) -> dict[str, Any]:
    """What a shipped file declares to Serve."""
    written = yaml.safe_load((ROOT / name).read_text())
    return yaml.safe_load(written["spec"]["serveConfigV2"]) if "spec" in written else written


@pytest.mark.parametrize("name", ["deploy/serve.yaml", "deploy/kuberay/rayservice.yaml"])
def test_serves_own_schema_and_our_builders_take_what_the_file_declares(name: str) -> None:
    schema = ServeDeploySchema.model_validate(declared(name))
    assert [application.name for application in schema.applications] == ["keeper", "gateway"]
    for application in schema.applications:
        SETTINGS[application.import_path](**application.args)


def test_the_keeper_divides_what_the_file_gives(registry: Path) -> None:
    arguments = {"registry": str(registry), "cpus": 8, "gpus": 2, "replicas": 3, "market": "on-demand"}
    bound = keeper(arguments)._bound_deployment
    capacity = bound.init_args[-1]
    for options in (capacity.preprocess_options(), capacity.ensemble_options()):
        assert options["ray_actor_options"]["label_selector"] == {"market": "on-demand"}
        assert options["autoscaling_config"]["min_replicas"] == 3
    assert capacity.ensemble_replicas == 2


def test_keeper_and_gateway_share_a_ledger(registry: Path) -> None:
    kept = keeper({"registry": str(registry), "cpus": 2})._bound_deployment.init_args
    _, ledger, *_ = gateway({"registry": str(registry)})._bound_deployment.init_args
    assert kept[2] == ledger == f"sqlite:///{registry}/ledger/ledger.db"


@pytest.mark.parametrize(
    ("host", "more", "is_local"),
    [("127.0.0.1", {}, True), ("::1", {}, True), ("0.0.0.0", {"open_to_others": True}, False)],
)
def test_an_open_service_answers_to_this_machine_unless_the_file_says_otherwise(
    registry: Path, monkeypatch: pytest.MonkeyPatch, host: str, more: dict[str, bool], is_local: bool
) -> None:
    monkeypatch.setattr(declared_module, "serve_host", lambda: host)
    bound = gateway({"registry": str(registry), "open": True, **more})._bound_deployment
    assert (bound.init_args[3], bound.init_args[-1]) == (True, is_local)


def test_a_service_that_would_be_open_to_the_network_is_refused(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared_module, "serve_host", lambda: "0.0.0.0")
    with pytest.raises(ValueError, match=r"listens at 0\.0\.0\.0, open to others.*open_to_others: true"):
        gateway({"registry": str(registry), "open": True})
    assert not gateway({"registry": str(registry)})._bound_deployment.init_args[3]  # which asks for a key
    with pytest.raises(ValueError, match="open: true"):
        gateway({"registry": str(registry), "open_to_others": True})


def test_an_unknown_version_or_argument_is_refused(registry: Path) -> None:
    with pytest.raises(ValueError, match="has no bundle"):
        keeper({"registry": str(registry), "cpus": 8, "version": "ens-000000000000"})
    with pytest.raises(TypeError, match="gpu"):
        keeper({"registry": str(registry), "cpus": 8, "gpu": 2})


def test_a_version_is_listed_with_the_hashes_of_what_it_was_trained_by(registry: Path) -> None:
    bundle = Registry(registry).resolve("champion")
    listed = describe(bundle, {})
    assert (listed["bundle"], listed["cohort"]) == (bundle.digest, bundle.cohort)
    weights = {sha256_file(file) for member in bundle.members for file in member.files}
    assert weights == {sha256 for trial in listed["trials"] for sha256 in trial["folds"]}
