"""In which precision a trial computes: measured once, kept with the trial, or fixed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from preprocessing.cohort import Cohort
from preprocessing.storage import canonical_hash, read_json, write_json
from search import precision, train
from search.checkpoint import DEATHS, FoldCheckpoint
from search.memory import TrainingError
from search.numerics import Numerics, available
from search.precision import choose_numerics, trial_numerics
from search.space import TrialConfig
from search.train import steps_of
from search.trial import read_fold, run_trial

TINY = TrialConfig(backbone="test_resnet", sex_features=4, batch_size=8, max_images_seen=80)
LONG = {"num_steps": 1000, "num_folds": 3}


def pretend(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    """Make the clock say what a step takes."""
    monkeypatch.setattr(precision, "available", lambda device: ["fp32", "bf16", "fp16"])
    monkeypatch.setattr(
        precision, "_time_steps", lambda config, numerics, *rest: (1.0, seconds[precision._name(numerics)])
    )


@pytest.mark.parametrize(
    ("bf16", "fp16", "first", "expected"),
    [
        (2.0, 2.0, 2.0, Numerics("fp32")),
        (0.95, 0.95, 0.95, Numerics("fp32")),  # within what other work on the machine changes
        (0.5, 0.48, 0.6, Numerics("bf16")),
        (0.5, 0.3, 0.2, Numerics("fp16", channels_last=False)),
    ],
)
def test_what_is_clearly_faster_is_chosen(
    bf16: float, fp16: float, first: float, expected: Numerics, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"fp32, channels last": 1.0, "bf16, channels last": bf16, "fp16, channels last": fp16}
    pretend(monkeypatch, times | {f"{name}, channels first": first for name in ("fp32", "bf16", "fp16")})
    assert choose_numerics(TINY, 64, "cpu", **LONG)[0] == expected


def test_a_real_measurement_chooses_what_this_machine_has_and_leaves_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    numerics, seconds, failed = choose_numerics(TINY, 64, "cpu", **LONG)
    assert not failed
    assert numerics.precision in available("cpu")
    assert len(seconds) == len(available("cpu")) + 1
    assert torch.equal(before, torch.get_rng_state())


def pretend_steps(monkeypatch: pytest.MonkeyPatch, told: dict[str, float | Exception]) -> None:
    """Make candidates take a time or fail."""

    def time_steps(config: TrialConfig, numerics: Numerics, *rest: object) -> tuple[float, float]:
        said = told.get(precision._name(numerics), 1.0)
        if isinstance(said, Exception):
            raise said
        return 1.0, said

    monkeypatch.setattr(precision, "available", lambda device: ["fp32", "bf16"])
    monkeypatch.setattr(precision, "_time_steps", time_steps)


def test_a_candidate_that_does_not_fit_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_steps(monkeypatch, {"fp32, channels last": TrainingError("no room"), "bf16, channels last": 9.0})
    numerics, seconds, failed = choose_numerics(TINY, 64, "cpu", **LONG)
    assert numerics == Numerics("bf16", channels_last=False)
    assert failed == {"fp32, channels last": "no room"}
    assert "fp32, channels last" not in seconds


def test_a_network_that_fits_in_no_precision_cannot_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["fp32, channels last", "bf16, channels last", "fp32, channels first"]
    pretend_steps(monkeypatch, dict.fromkeys(names, TrainingError("no room")))
    with pytest.raises(TrainingError, match="no room"):
        choose_numerics(TINY, 64, "cpu", **LONG)


def test_where_nothing_compiles_the_network_trains_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = "fp32, channels last, compiled"
    pretend_steps(monkeypatch, {"bf16, channels last": 1.0, compiled: RuntimeError("Failed to find C compiler.")})
    numerics, _, failed = choose_numerics(TINY, 64, "cuda", **LONG)
    assert numerics == Numerics()
    assert "C compiler" in failed[compiled]


def test_numbers_out_of_range_are_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.Learner, "step", lambda *arguments: torch.tensor(torch.inf))
    with pytest.raises(TrainingError, match="The loss is inf in fp32"):
        precision._time_steps(TINY, Numerics(), 64, "cpu")


def test_a_trial_keeps_its_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(
        monkeypatch,
        dict.fromkeys(["bf16, channels first", "fp16, channels last", "fp32, channels last"], 1.0)
        | {"bf16, channels last": 0.5},
    )
    first = trial_numerics(tmp_path, TINY, 64, "cpu", **LONG)
    pretend(monkeypatch, {})  # a second measurement would fail
    assert trial_numerics(tmp_path, TINY, 64, "cpu", **LONG) == first == (Numerics("bf16"), 1)
    assert read_json(tmp_path / "precision.json")["cpu"]["seconds_per_step"]["bf16, channels last"] == 0.5


@pytest.mark.parametrize("fixed", ["fp32", "bf16"])
def test_a_precision_that_is_fixed_is_not_measured(fixed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {})
    assert trial_numerics(tmp_path, replace(TINY, precision=fixed), 64, "cpu", **LONG) == (Numerics(fixed), 1)
    assert not list(tmp_path.iterdir())


def test_a_deterministic_training_is_not_measured_and_allows_no_operation_that_varies(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "LEAST_STEPS", 1)
    monkeypatch.setattr(precision, "_time_steps", lambda *arguments: pytest.fail("was measured"))
    enabled: list[bool] = []

    def noted(*arguments: Any) -> int:
        enabled.append(torch.are_deterministic_algorithms_enabled())
        return steps_of(*arguments)

    monkeypatch.setattr(train, "steps_of", noted)
    run_trial(tmp_path, replace(TINY, deterministic=True), cohort)
    record = read_fold(tmp_path, 0)
    assert record is not None
    assert record["run"]["precision"] == "fp32"
    assert all(enabled[-cohort.num_folds :])
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_short_training_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {})
    assert trial_numerics(tmp_path, TINY, 64, "cpu", num_steps=300, num_folds=3) == (Numerics(), 1)


def test_a_batch_passes_in_parts_where_workers_were_killed_while_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(DEATHS):  # which leave the attempt as they made it
        FoldCheckpoint(tmp_path / "precision_cpu.checkpoint", canonical_hash(TINY.to_dict())).begin(0, 1)
    measured: list[int] = []

    def time_steps(config: TrialConfig, *rest: object) -> tuple[float, float]:
        measured.append(config.accumulate)
        return 1.0, 1.0

    monkeypatch.setattr(precision, "_time_steps", time_steps)
    assert trial_numerics(tmp_path, TINY, 64, "cpu", **LONG)[1] == 2
    assert set(measured) == {2}
    assert trial_numerics(tmp_path, TINY, 64, "cpu", **LONG)[1] == 2  # as it is remembered
    assert [path.name for path in tmp_path.iterdir()] == ["precision.json"]


def test_half_precision_without_a_gpu_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs a CUDA device, got 'cpu'\. Choose"):
        trial_numerics(tmp_path, replace(TINY, precision="fp16"), 64, "cpu", **LONG)


def test_the_fold_s_record_says_how_it_was_computed(cohort: Cohort, tmp_path: Path) -> None:
    numerics = {"precision": "bf16", "channels_last": False, "compiled": False}
    write_json(tmp_path / "precision.json", {"cpu": {"numerics": numerics}})
    run_trial(tmp_path, TINY, cohort)
    record = read_fold(tmp_path, 2)
    assert record is not None
    run = record["run"]
    assert set(run) == {
        "precision",
        "accumulate",
        "device",
        "channels_last",
        "compiled",
        "seconds",
        "images_per_second",
    }
    assert numerics.items() <= run.items()
    assert run["images_per_second"] > 0
