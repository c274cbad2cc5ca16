"""The service as a configuration file declares it: built here, deployed in tests/test_cluster.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ray.serve.schema import ServeDeploySchema

from ensemble.combine import combine
from ensemble.registry import Registry
from serve.database import Database
from serve.declared import GatewaySettings, ScorerSettings, gateway, scorer
from serve.routing import Routing
from tests.conftest import ROOT
from tests.ensemble_fixtures import make_cohort, make_study

SETTINGS = {"serve.declared:scorer": ScorerSettings, "serve.declared:gateway": GatewaySettings}


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
    assert [application.name for application in schema.applications] == ["scorer", "gateway"]
    for application in schema.applications:
        SETTINGS[application.import_path](**application.args)


def test_replicas_are_kept_to_the_machines_that_the_file_names(registry: Path) -> None:
    arguments = {"registry": str(registry), "cpus": 8, "gpus": 2}
    for market, wanted in (("", None), ("on-demand", {"market": "on-demand"})):
        bound = scorer(arguments | {"market": market})._bound_deployment
        assert bound.ray_actor_options.get("label_selector") == wanted
        assert bound.name == "Preprocess"


def test_as_many_replicas_as_the_file_asks_for_are_always_there(registry: Path) -> None:
    bound = scorer({"registry": str(registry), "cpus": 2, "replicas": 3})._bound_deployment
    scaling = bound._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (3, 3)


def test_the_gateway_is_built_for_the_version_that_the_alias_means(registry: Path) -> None:
    bound = gateway({"registry": str(registry)})._bound_deployment
    names, versions, ledger, *_ = bound.init_args
    version = Registry(registry).version_of("champion")
    assert names == {version: "scorer"}
    assert versions[0]["version"] == version
    state = Routing(Database(ledger)).current()
    assert state is not None
    assert state.champion == version


def test_an_unknown_argument_is_refused(registry: Path) -> None:
    with pytest.raises(TypeError, match="gpu"):
        scorer({"registry": str(registry), "cpus": 8, "gpu": 2})
