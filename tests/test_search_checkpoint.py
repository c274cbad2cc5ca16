"""Folds that are interrupted: they go on, they end the same, and what cannot be used is left aside."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from preprocessing.cohort import Cohort
from preprocessing.storage import as_path, read_json
from search.checkpoint import FoldCheckpoint
from search.space import TrialConfig
from search.train import Measurement, TrainedFold, train_fold
from search.trial import FoldReport, read_fold, run_trial
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them

TINY = TrialConfig(backbone="test_resnet", sex_features=4, batch_size=8, max_images_seen=80)
CONFIGS = {
    "plain": {},
    "averaged, in parts": {"ema": 0.9, "accumulate": 2},
    "half frozen": {"frozen_epochs": 1.0, "schedule": "halving"},
    "bf16": {"precision": "bf16"},
}


class Stopped(Exception):
    """Raised by the test in place of a stop."""


def interrupted(config: TrialConfig, cohort: Cohort, path: Path, at: int) -> list[Measurement]:
    """Train until so many measurements were reported."""
    seen: list[Measurement] = []

    def report(measurement: Measurement) -> None:
        seen.append(measurement)
        if len(seen) == at:
            raise Stopped

    with contextlib.suppress(Stopped):
        train_fold(config, cohort, 0, report=report, checkpoint=path)
    return seen


def assert_same(a: TrainedFold, b: TrainedFold) -> None:
    """Weights, statistics and predictions agree to the bit, and so does what was measured."""
    assert all(
        torch.equal(x, y) for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    )
    assert (a.probabilities_NM == b.probabilities_NM).all()
    assert [(m.epoch, m.train_loss, m.mae_months) for m in a.history] == [
        (m.epoch, m.train_loss, m.mae_months) for m in b.history
    ]


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
def test_an_interrupted_fold_ends_with_the_same_weights(
    changes: dict[str, object], cohort: Cohort, tmp_path: Path
) -> None:
    config = TrialConfig(**TINY.to_dict() | changes)
    interrupted(config, cohort, tmp_path / "fold_0.checkpoint", at=2)
    interrupted(config, cohort, tmp_path / "fold_0.checkpoint", at=1)
    assert_same(train_fold(config, cohort, 0, checkpoint=tmp_path / "fold_0.checkpoint"), train_fold(config, cohort, 0))


def test_a_fold_cut_between_measurements_ends_with_the_same_weights(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FoldCheckpoint, "is_wanted", lambda self, is_measured: True)  # a checkpoint each step
    path = tmp_path / "fold_0.checkpoint"
    save, calls = FoldCheckpoint.save, iter(range(100))

    def save_and_die(self: FoldCheckpoint, *arguments: object) -> None:
        save(self, *arguments)  # type: ignore[arg-type]
        if next(calls) == 4:
            raise Stopped

    with monkeypatch.context() as patch, contextlib.suppress(Stopped):
        patch.setattr(FoldCheckpoint, "save", save_and_die)
        train_fold(TINY, cohort, 0, checkpoint=path)
    resumed = train_fold(TINY, cohort, 0, checkpoint=path)
    assert "from step 5" in " ".join(m.note for m in resumed.history)
    assert_same(resumed, train_fold(TINY, cohort, 0))


def test_a_resumed_fold_replays_what_it_had_measured(cohort: Cohort, tmp_path: Path) -> None:
    before = interrupted(TINY, cohort, tmp_path / "fold_0.checkpoint", at=2)
    replayed: list[Measurement] = []
    train_fold(TINY, cohort, 0, checkpoint=tmp_path / "fold_0.checkpoint", replay=replayed.append)
    assert replayed == before


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, None], ids=["emptied", "overwritten", "cut"])
def test_a_damaged_checkpoint_is_left_aside_and_said(damage: bytes | None, cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "fold_0.checkpoint"
    interrupted(TINY, cohort, path, at=2)
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    trained = train_fold(TINY, cohort, 0, checkpoint=path)
    assert "fold_0.checkpoint is damaged" in trained.history[0].note
    assert_same(trained, train_fold(TINY, cohort, 0))


def test_a_checkpoint_of_another_configuration_is_left_aside_and_said(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "fold_0.checkpoint"
    interrupted(TINY, cohort, path, at=2)
    other = TrialConfig(**TINY.to_dict() | {"learning_rate": 2e-3})
    assert "another configuration" in train_fold(other, cohort, 0, checkpoint=path).history[0].note


def test_checkpoints_that_take_long_to_write_are_written_less_often(tmp_path: Path) -> None:
    checkpoint = FoldCheckpoint(tmp_path / "fold_0.checkpoint", "key")
    assert checkpoint.is_wanted(is_measured=True)
    assert not checkpoint.is_wanted(is_measured=False)
    checkpoint._cost = 10.0
    checkpoint._written -= 100.0
    assert not checkpoint.is_wanted(is_measured=True)
    checkpoint._written -= 101.0
    assert checkpoint.is_wanted(is_measured=False)


def test_a_finished_fold_leaves_no_checkpoint(cohort: Cohort, tmp_path: Path) -> None:
    run_trial(tmp_path, TINY, cohort)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"fold_{i}.{kind}" for i in range(3) for kind in ("json", "parquet", "safetensors")} | {
        "oof.parquet"
    }


def test_an_interrupted_trial_reports_its_measurements_again_as_replayed(cohort: Cohort, tmp_path: Path) -> None:
    reports: list[FoldReport] = []

    def report(item: FoldReport) -> None:
        reports.append(item)
        if len(reports) == 2:
            raise Stopped

    with contextlib.suppress(Stopped):
        run_trial(tmp_path, TINY, cohort, report=report)
    first, again = list(reports), []
    run_trial(tmp_path, TINY, cohort, report=again.append)
    assert [item.measurement for item in again[:2]] == [item.measurement for item in first]
    assert [item.replayed for item in again[:3]] == [True, True, False]


def test_a_study_on_an_object_store_keeps_checkpoints_there(cohort: Cohort) -> None:
    path = as_path("memory://trials/checkpoints/fold_0.checkpoint")
    interrupted(TINY, cohort, path, at=2)
    assert path.exists()
    resumed = train_fold(TINY, cohort, 0, checkpoint=path)
    assert "from step 4" in resumed.history[2].note
    FoldCheckpoint(path).remove()
    assert not path.exists()


def test_workers_killed_twice_at_one_checkpoint_make_the_micro_batch_half_as_large(
    cohort: Cohort, tmp_path: Path
) -> None:
    path = tmp_path / "fold_0.checkpoint"
    interrupted(TINY, cohort, path, at=1)
    for _ in range(2):  # begun at step 2 and never ended
        FoldCheckpoint(path, key_of(path)).begin(2, 1)
    trained = train_fold(TINY, cohort, 0, checkpoint=path)
    assert trained.run is not None
    assert trained.run.accumulate == 2
    assert "Workers were killed after step 2" in trained.history[1].note


def test_a_worker_killed_once_goes_on_as_before(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "fold_0.checkpoint"
    interrupted(TINY, cohort, path, at=1)
    FoldCheckpoint(path, key_of(path)).begin(2, 1)
    assert_same(train_fold(TINY, cohort, 0, checkpoint=path), train_fold(TINY, cohort, 0))


def test_a_stopped_worker_does_not_count_as_killed(cohort: Cohort, tmp_path: Path) -> None:
    interrupted(TINY, cohort, tmp_path / "fold_0.checkpoint", at=1)
    assert not (tmp_path / "fold_0.attempt.json").exists()


def key_of(path: Path) -> str:
    """What the checkpoint belongs to."""
    return path.read_bytes().split(b"\n")[0].split(b" ")[1].decode()


@pytest.mark.slow
def test_a_worker_killed_for_real_goes_on_and_ends_the_same(
    cohort: Cohort, cohort_folder: Path, tmp_path: Path
) -> None:
    script = f"""
import os, signal, torch
from pathlib import Path
from preprocessing.cohort import Cohort
from search.trial import run_trial
from tests.test_search_checkpoint import TINY
torch.set_num_threads(1)
def report(item):
    if item.measurement.images_seen >= 48 and not item.replayed:
        os.kill(os.getpid(), signal.SIGKILL)
run_trial(Path({str(tmp_path / "killed")!r}), TINY, Cohort.load({str(cohort_folder)!r}), report=report)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_json(tmp_path / "killed" / "fold_0.attempt.json")["step"] in (2, 4, 6)
    run_trial(tmp_path / "killed", TINY, cohort)
    run_trial(tmp_path / "whole", TINY, cohort)
    for fold in range(3):
        killed, whole = read_fold(tmp_path / "killed", fold), read_fold(tmp_path / "whole", fold)
        assert killed is not None
        assert whole is not None
        assert killed["weights_sha256"] == whole["weights_sha256"]


def test_once_in_smaller_parts_each_further_death_makes_them_smaller(tmp_path: Path) -> None:
    path = as_path(tmp_path / "fold_0.checkpoint")
    parts, halved = 1, []
    for _ in range(5):
        worker = FoldCheckpoint(path)  # the one before was killed
        parts, is_enough = worker.begin(0, parts)
        if is_enough:
            worker.narrow(parts := 2 * parts)
        halved.append(is_enough)
    assert halved == [False, False, True, True, True]
    assert parts == 8
