"""MLflow gets one run a trial, and a restart writes nothing twice; against a store in a folder, without a network."""

from pathlib import Path
from typing import Any

import pytest

from preprocessing.storage import write_json
from search.board import Event
from search.mlflow_log import ADDRESS, mlflow_log
from search.trial import read_study, trial_folder
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    cohort = make_cohort(tmp_path / "cohort")
    return make_study(tmp_path / "study", cohort, states=("complete", "stopped", "failed", "running"))


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv(ADDRESS, (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient((tmp_path / "mlruns").as_uri())


def runs(client: Any, study: Path) -> dict[int, Any]:
    experiment = client.get_experiment_by_name(read_study(study)["name"])
    found = client.search_runs([experiment.experiment_id])
    assert len({run.data.tags["carpal.trial"] for run in found}) == len(found)
    return {int(run.data.tags["carpal.trial"]): run for run in found}


def test_without_an_address_nothing_happens(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    mlflow_log(study)(Event("failed", 99, (), "no such trial"))


def test_every_trial_has_a_run_that_says_how_it_ended(study: Path, client: Any) -> None:
    mlflow_log(study)
    found = runs(client, study)
    assert [found[number].info.status for number in range(4)] == ["FINISHED", "KILLED", "FAILED", "RUNNING"]
    assert found[2].data.tags["carpal.reason"] == "the test says so"
    assert found[0].data.params["backbone"] == "test_resnet"
    assert {"mae_months", "fold_1/mae_months", "fold_2/mae_months", "fold_1/train_loss"} <= set(found[0].data.metrics)


def test_a_trial_that_ends_is_closed(study: Path, client: Any) -> None:
    listener = mlflow_log(study)
    outcome = {"state": "stopped", "mae_months": 30.0, "fold_mae_months": [30.0], "reason": "raced out"}
    write_json(trial_folder(study, 3) / "outcome.json", outcome)
    listener(Event("stopped", 3, (30.0,), "stopped"))
    run = runs(client, study)[3]
    assert (run.info.status, run.data.metrics["mae_months"]) == ("KILLED", 30.0)


def test_a_restart_writes_nothing_twice(study: Path, client: Any) -> None:
    mlflow_log(study)
    listener = mlflow_log(study)
    listener(Event("complete", 0, (1.0, 1.0), "complete"))
    run = runs(client, study)[0]
    for name in run.data.metrics:
        assert len(client.get_metric_history(run.info.run_id, name)) == 1


def test_an_address_without_the_package_is_a_sentence(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:9")
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(ValueError, match="pip install"):
        mlflow_log(study)
