"""Costs and what they allow: counted alike on every machine, measured once an architecture, kept within a budget."""

import numpy as np
import pytest

from ensemble.__main__ import main
from ensemble.candidates import gather
from ensemble.combine import combine
from ensemble.costs import Budget, measured, operations, spent
from ensemble.pareto import drawing, front
from search.limits import Cost
from search.space import TrialConfig
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("costs")
    return make_study(root / "study", make_cohort(root / "cohort"))


@pytest.fixture
def dear_first_trial(monkeypatch):
    """The first architecture that is measured costs 10 ms, a second one 1 ms."""
    times = iter([10.0, 1.0])
    monkeypatch.setattr("ensemble.costs.measure", lambda config, side, device: Cost(1, next(times), 5.0, device))


def test_operations_are_counted_the_same_twice_and_grow_with_the_picture():
    config = TrialConfig(backbone="test_resnet")
    assert operations(config, 64) == operations(config, 64) < operations(config, 128)


def test_an_architecture_is_measured_once(dear_first_trial):
    configs = [TrialConfig(backbone="test_resnet", seed=seed) for seed in range(3)]
    costs = measured([*configs, TrialConfig(backbone="test_resnet", sex="film")], 64, "cpu")
    assert spent(costs, "latency_ms", 2).tolist() == [20, 20, 20, 2]


def test_a_budget_is_kept_and_recorded(study, dear_first_trial):
    combination = combine(study, method="equal", budget=Budget(name="latency_ms", limit=45.0))
    assert len(combination.members) == 2  # two folds of 10 ms each
    assert combination.evidence["budget"] == {"name": "latency_ms", "limit": 45.0, "device": "cpu", "spent": 40.0}
    assert any("40.0 ms a radiograph of --max-latency-ms 45" in line for line in combination.table())


def test_a_budget_that_holds_nobody_is_refused(study, capsys, tmp_path):
    assert main(["build", str(study), str(tmp_path / "registry"), "--max-memory-mb", "0.01"]) == 2
    assert "budget must hold one candidate" in capsys.readouterr().err


def test_two_budgets_are_refused(study, capsys, tmp_path):
    words = ["build", str(study), str(tmp_path / "registry"), "--max-memory-mb", "9", "--max-latency-ms", "9"]
    assert main(words) == 2
    assert "A budget is one of --max-latency-ms and --max-memory-mb" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"name": "euros", "limit": 1.0}, {"name": "latency_ms", "limit": 0.0}])
def test_a_budget_that_bounds_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be (one of|above 0)"):
        Budget(**wrong)


def test_nothing_on_the_front_is_slower_and_worse(study):
    found = front(gather(study), np.array([1.0, 2.0, 4.0]))
    best = found.table[found.table["on_front"]]
    assert best["latency_ms"].is_monotonic_increasing
    assert best["mae_months"].is_monotonic_decreasing
    assert len(found.lines()) == 1 + len(found.table)
    assert drawing(found).axes[0].get_xlabel() == "milliseconds a radiograph"


def test_the_command_writes_the_table_and_the_drawing(study, tmp_path, capsys):
    assert main(["pareto", str(study), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "latency_ms" in (tmp_path / "out" / "pareto.csv").read_text()
    assert "ms a radiograph" in capsys.readouterr().out
