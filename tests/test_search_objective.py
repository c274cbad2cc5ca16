"""What Optuna is told: of costs, of what a trial adds to others, and of what earlier studies found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from preprocessing.storage import read_json, write_json
from search.diversity import value_of
from search.greedy import greedy
from search.importance import importances
from search.journal import open_storage
from search.limits import Limits, measure
from search.sampler import Outcome, Sampler, settings_of
from search.space import TrialConfig
from search.spaces import load_space
from search.trial import trial_folder
from search.warm_start import FILE, WarmStart, WarmStartError, gather
from tests.test_search_control import begin, control, play

SPACE = "tests.spaces_of_tests:tiny"
ACTUAL = np.linspace(20.0, 200.0, 40)


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="study", storage=open_storage(folder)).trials


def test_greedy_picks_two_that_err_in_opposite_directions() -> None:
    predicted = np.stack([ACTUAL + 5.0, ACTUAL - 5.0, ACTUAL + 6.0])
    assert greedy(predicted.T, ACTUAL) == pytest.approx([0.5, 0.5, 0.0])


def test_a_trial_is_worth_its_error_less_what_it_adds() -> None:
    others = {0: ACTUAL + 10.0}
    assert value_of(ACTUAL + 10.0, {}, ACTUAL) == (pytest.approx(10.0), {})
    assert value_of(ACTUAL + 10.0, others, ACTUAL)[0] == pytest.approx(10.0)  # a copy adds nothing
    assert value_of(ACTUAL - 10.0, others, ACTUAL)[0] == pytest.approx(0.0)  # it cancels the other's error
    assert value_of(ACTUAL + 4.0, others, ACTUAL)[0] == pytest.approx(4.0)  # better alone: nothing on top


def finish_with_table(referee: Any, folder: Path, predicted: np.ndarray) -> int:
    number = begin(referee)
    table = pd.DataFrame({"bone_age_months": ACTUAL, "predicted_months": predicted})
    table.to_parquet(trial_folder(folder, number) / "oof.parquet")
    error = float(np.abs(predicted - ACTUAL).mean())
    play(referee, number, [error] * 3)
    return number


def test_the_value_told_under_diversity_can_be_computed_again_from_disk(tmp_path: Path) -> None:
    referee = control(tmp_path, objective="diversity", pool_size=6)
    first = finish_with_table(referee, tmp_path, ACTUAL + 10.0)
    referee = control(tmp_path, objective="diversity", pool_size=6)  # the tables are read again
    begin(referee)
    second = finish_with_table(referee, tmp_path, ACTUAL - 10.0)
    outcome = read_json(trial_folder(tmp_path, second) / "outcome.json")
    assert outcome["mae_months"] == pytest.approx(10.0)
    assert outcome["ensemble"] == {str(first): 1.0}
    assert outcome["value"] == pytest.approx(0.0)
    assert [trial.value for trial in trials_of(tmp_path)] == [pytest.approx(10.0), pytest.approx(0.0)]


def test_costs_are_measured_on_the_network_that_would_serve() -> None:
    cost = measure(TrialConfig(backbone="test_resnet", sex_features=4), 64, "cpu")
    assert 100_000 < cost.parameters < 1_000_000
    assert cost.memory_mb > 4 * cost.parameters / 2**20
    assert cost.latency_ms > 0


def test_what_costs_too_much_is_pruned_with_its_reason_and_optuna_knows_by_how_much(tmp_path: Path) -> None:
    referee = control(tmp_path, limits=Limits(latency_ms=10.0))
    cost = {"parameters": 5, "latency_ms": 15.0, "memory_mb": 1.0, "device": "cpu"}
    write_json(trial_folder(tmp_path, number := begin(referee)) / "cost.json", cost)
    assert referee.on_result(number, {"cost_measured": True})
    referee.on_end(number, crashed=False)
    outcome = read_json(trial_folder(tmp_path, number) / "outcome.json")
    assert (outcome["state"], outcome["stopped_at"]) == ("stopped", "limits")
    assert "15.0 ms a radiograph on cpu, --max-latency-ms 10" in outcome["reason"]
    assert trials_of(tmp_path)[0].constraints == {"latency_ms": pytest.approx(0.5)}
    assert trials_of(tmp_path)[0].state.name == "PRUNED"


def test_a_kill_before_optuna_heard_of_the_cost_is_mended_on_restart(tmp_path: Path) -> None:
    number = begin(control(tmp_path, limits=Limits(parameters=10)))
    folder = trial_folder(tmp_path, number)
    write_json(folder / "cost.json", {"parameters": 20, "latency_ms": 1.0, "memory_mb": 1.0, "device": "cpu"})
    write_json(folder / "outcome.json", Outcome("stopped", (), "infeasible", 0, "limits").to_dict())
    control(tmp_path, limits=Limits(parameters=10))
    assert trials_of(tmp_path)[0].constraints == {"parameters": pytest.approx(1.0)}


@pytest.mark.parametrize("limits", [Limits(parameters=1), None])
def test_the_sampler_learns_from_infeasible_trials_where_the_limit_lies(tmp_path: Path, limits: Limits | None) -> None:
    sampler = Sampler(tmp_path, name="study", space=SPACE, seed=0, num_trials=24, limits=limits)
    rates = []
    for _ in range(24):
        rates.append(sampler.config(number := sampler.ask()).learning_rate)
        cost = {"parameters": 2 + 1000 * rates[-1], "latency_ms": 1.0, "memory_mb": 1.0, "device": "cpu"}
        write_json(trial_folder(tmp_path, number) / "cost.json", cost)
        sampler.finish(number, Outcome("stopped", (), "infeasible", 0, "limits"))
    drawn_low = np.log10(rates[6:]).mean() < -3.3  # the first six are drawn evenly, from -4 to -2
    assert drawn_low == bool(limits)


def earlier_study(folder: Path, cohort_hash: str) -> list[dict[str, Any]]:
    """Three complete trials and a failed one; returns the parameters of the complete ones, best first."""
    write_json(folder / "study.json", {"format": "carpal-study-1", "cohort_hash": cohort_hash, "num_folds": 3})
    referee = control(folder)
    for mae in (12.0, 10.0, 11.0):
        play(referee, begin(referee), [mae] * 3)
    referee.on_end(begin(referee), crashed=True)
    params = [read_json(trial_folder(folder, number) / "config.json")["params"] for number in range(3)]
    return [params[1], params[2], params[0]]


def gathered(
    source: Path,
    cohort_hash: str = "same",
    views: Sequence[str] = ("full",),
    best: int = 2,
    *,
    limits: Limits | None = None,
) -> WarmStart:
    def settings(trial: Any) -> dict[str, Any]:
        return settings_of(load_space(SPACE), views, trial)

    return gather([str(source)], settings, views, cohort_hash, best, limits=limits)


def warm(folder: Path, source: Path, cohort_hash: str, best: int = 2) -> None:
    write_json(folder / FILE, gathered(source, cohort_hash, best=best).to_dict())


def test_trials_of_the_same_cohort_are_known_and_not_counted(tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", "same")
    warm(tmp_path / "new", tmp_path / "old", "same")
    for _ in range(2):  # opening it again adds nothing
        referee = control(tmp_path / "new", num_trials=2)
    assert [trial.value for trial in trials_of(tmp_path / "new")] == [10.0, 11.0, 12.0]
    play(referee, begin(referee), [9.0, 9.0, 9.0])
    assert (tmp_path / "new" / "trials" / "0000" / "outcome.json").exists()
    assert begin(referee) == 1
    assert referee.next() is None


def test_trials_of_earlier_studies_are_told_apart_in_the_count_of_complete_ones(tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", "same")
    warm(tmp_path / "new", tmp_path / "old", "same")
    referee = control(tmp_path / "new", num_trials=2)
    play(referee, begin(referee), [9.0, 9.0, 9.0])
    told = importances(tmp_path / "new", "study")
    assert (told.num_complete, told.num_earlier) == (4, 3)


def test_the_best_of_another_cohort_are_tried_first(tmp_path: Path) -> None:
    params = earlier_study(tmp_path / "old", "other")
    warm(tmp_path / "new", tmp_path / "old", "this")
    sampler = Sampler(tmp_path / "new", name="study", space=SPACE, seed=9, num_trials=4)
    drawn = [read_json(trial_folder(tmp_path / "new", sampler.ask()) / "config.json")["params"] for _ in range(3)]
    assert drawn[:2] == params[:2]
    assert drawn[2] != params[2]


def test_how_exactly_a_study_was_repeatable_changes_nothing_of_what_it_found(tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", "same")
    for number, value in ((0, None), (1, True)):
        path = trial_folder(tmp_path / "old", number) / "config.json"
        record = read_json(path)
        record["config"].pop("deterministic")  # as a release of before wrote it
        record["config"] |= {"deterministic": value} if value else {}
        write_json(path, record)
    found = gathered(tmp_path / "old")
    assert len(found.evaluated) == 3


def test_a_point_that_the_space_cannot_draw_is_refused_with_its_reason(tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", "same")
    path = tmp_path / "old" / "trials" / "0001" / "config.json"
    record = read_json(path)
    record["params"]["augmentation"] = 3.0
    write_json(path, record)
    found = gathered(tmp_path / "old")
    assert [point["mae_months"] for point in found.evaluated] == [11.0, 12.0]
    assert "augmentation" in found.refused[0]


def test_points_of_a_cohort_of_one_view_take_a_view_that_the_new_cohort_has(tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", "other")  # all on whole pictures
    assert [point["view"] for point in gathered(tmp_path / "old", "this", ["full", "crop"]).enqueued] == [
        "full",
        "full",
    ]
    assert [point["view"] for point in gathered(tmp_path / "old", "this", ["masked", "crop"]).enqueued] == [
        "crop",
        "crop",
    ]


def test_earlier_studies_that_nothing_can_be_taken_of_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "old" / "study.json", {"format": "carpal-study-1", "cohort_hash": "same", "num_folds": 3})
    with pytest.raises(WarmStartError, match="none of their trials is complete"):
        gathered(tmp_path / "old")


def test_a_trial_of_another_space_is_refused_by_the_parameter_that_it_lacks(tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", "same")
    path = tmp_path / "old" / "trials" / "0001" / "config.json"
    record = read_json(path)
    del record["params"]["augmentation"]
    write_json(path, record)
    (refused,) = gathered(tmp_path / "old").refused
    assert refused.endswith("trial 1: The value of the parameter 'augmentation' is not found.")


def test_where_costs_are_limited_earlier_trials_are_known_with_theirs_or_tried_again(tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", "same")
    cost = {"parameters": 20, "latency_ms": 1.0, "memory_mb": 1.0, "device": "cpu"}
    write_json(trial_folder(tmp_path / "old", 1) / "cost.json", cost)
    found = gathered(tmp_path / "old", limits=Limits(parameters=10))
    assert (len(found.evaluated), len(found.enqueued)) == (1, 2)
    write_json(tmp_path / "new" / FILE, found.to_dict())
    control(tmp_path / "new", limits=Limits(parameters=10))
    assert trials_of(tmp_path / "new")[0].constraints == {"parameters": pytest.approx(1.0)}


@pytest.mark.parametrize("limits", [Limits(latency_ms=10.0), Limits(parameters=10, memory_mb=10.0)])
def test_where_latency_or_memory_are_limited_earlier_trials_are_tried_again(tmp_path: Path, limits: Limits) -> None:
    earlier_study(tmp_path / "old", "same")  # on a GPU, and where the new one will run nobody knows yet
    cost = {"parameters": 5, "latency_ms": 3.0, "memory_mb": 9.0, "device": "cuda:0"}
    write_json(trial_folder(tmp_path / "old", 1) / "cost.json", cost)
    found = gathered(tmp_path / "old", limits=limits)
    assert (len(found.evaluated), len(found.enqueued)) == (0, 2)
