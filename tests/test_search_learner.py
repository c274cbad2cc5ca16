"""One step of learning: schedules, averages, frozen trunks, parts of a batch, memory that runs out."""

import copy
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from preprocessing.augment import Augmentation
from preprocessing.cohort import Cohort
from search.checkpoint import FoldCheckpoint
from search.feed import Feed
from search.learner import Batch, Learner
from search.memory import TrainingError, is_out_of_memory, micro_batch, more_parts
from search.model import BoneAgeNet, sex_codes
from search.months import BIN_MONTHS
from search.numerics import Numerics
from search.optimize import rate_share
from search.predict import guess_male, predict
from search.space import TrialConfig
from search.train import train_fold
from search.trial import read_fold, run_trial

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them

TINY = TrialConfig(backbone="test_resnet", sex_features=4, batch_size=8, max_images_seen=80)
# timm's smallest network with layer normalisation: nothing in it looks across the batch
# which sexes are hidden is drawn anew for each part
TINY_LAYER_NORM = replace(TINY, backbone="test_convnext", sex_dropout=0.0)
SCHEDULES = ["cosine", "halving", "constant"]


def batch(size: int = 8) -> Batch:
    drawn = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (size, 64, 64), dtype=torch.uint8, generator=drawn)
    return Batch(images, torch.arange(size) % 2 * 2.0 - 1, torch.linspace(20, 200, size))


def learner(config: TrialConfig = TINY, frozen_steps: int = 0) -> Learner:
    torch.manual_seed(0)
    return Learner(BoneAgeNet(config), config, Numerics(), "cpu", 10, frozen_steps)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_stays_within_the_peak_and_above_zero(schedule: str) -> None:
    shares = [rate_share(schedule, step / 1000) for step in range(1000)]
    assert all(0 < share <= 1 for share in shares)


def test_halving_halves_after_each_tenth() -> None:
    assert [rate_share("halving", i / 10) for i in range(10)] == [0.5**i for i in range(10)]


def test_the_average_lies_between_the_weights_it_has_seen_and_takes_the_statistics_along() -> None:
    taught = learner(replace(TINY, ema=0.9))
    seen = []
    for step in (1, 2, 3):
        taught.step(batch(), step)
        seen.append(weights(taught.model))
    kept = weights(taught.kept)
    for name in ("head.weight", next(name for name in kept if name.endswith("running_var"))):
        low, high = torch.stack([s[name] for s in seen]).aminmax(dim=0)
        assert ((kept[name] >= low - 1e-6) & (kept[name] <= high + 1e-6)).all()
        assert not torch.equal(kept[name], seen[-1][name])


def test_the_averaged_weights_are_the_ones_kept(cohort: Cohort) -> None:
    config = replace(TINY, ema=0.99)
    averaged, last = train_fold(config, cohort, 0), train_fold(TINY, cohort, 0)
    assert changed(weights(averaged.model), weights(last.model))
    assert averaged.history[-1].mae_months != last.history[-1].mae_months


def test_a_frozen_trunk_keeps_weights_and_statistics_until_it_is_freed() -> None:
    taught = learner(frozen_steps=2)
    before = weights(taught.model.trunk)
    head = weights(taught.model.head)
    for step in (1, 2):
        taught.step(batch(), step)
    assert not changed(before, weights(taught.model.trunk))
    assert changed(head, weights(taught.model.head))
    taught.step(batch(), 3)
    assert changed(before, weights(taught.model.trunk))


def test_a_trunk_frozen_for_more_epochs_than_there_are_never_learns(cohort: Cohort) -> None:
    config = replace(TINY, frozen_epochs=1e9)
    torch.manual_seed(0)
    assert not changed(weights(BoneAgeNet(config).trunk), weights(train_fold(config, cohort, 0).model.trunk))


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_gradients_of_the_parts_add_up_to_those_of_the_batch(parts: int) -> None:
    whole, split = learner(TINY_LAYER_NORM), learner(replace(TINY_LAYER_NORM, accumulate=parts))
    assert float(whole.step(batch(), 1)) == pytest.approx(float(split.step(batch(), 1)), rel=1e-4)
    for a, b in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-4)


@given(size=st.integers(2, 300), parts=st.integers(1, 300))
def test_more_parts_at_least_halve_the_micro_batch(size: int, parts: int) -> None:
    parts = min(size, parts)
    before = micro_batch(size, parts)
    if before > 1:
        assert 1 <= micro_batch(size, more_parts(size, parts)) <= before // 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError("Unable to allocate 7 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_every_way_of_running_out_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_what_the_allocator_of_this_release_says_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))
    assert not is_out_of_memory(TrainingError("Memory must hold the network: out of memory"))


def test_what_torch_makes_of_half_a_file_is_a_lack_of_memory() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise MemoryError

    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.save({"weight": torch.zeros(10)}, Full())
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("times", [1, 2])
def test_memory_that_runs_out_outside_of_a_step_makes_the_parts_smaller_too(
    times: int, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, save = [MemoryError()] * times, FoldCheckpoint.save

    def cramped(self: FoldCheckpoint, *arguments: Any) -> None:
        if failures:
            raise failures.pop()
        save(self, *arguments)

    monkeypatch.setattr(FoldCheckpoint, "save", cramped)
    monkeypatch.setattr(FoldCheckpoint, "is_wanted", lambda self, *, is_measured: is_measured)
    trained = train_fold(TINY, cohort, 0, checkpoint=tmp_path / "fold_0.checkpoint")
    assert trained.run is not None
    assert trained.run.accumulate == 2**times
    assert "Memory ran out (MemoryError); it goes on with" in trained.history[0].note
    assert trained.history[-1].final


class Cramped(BoneAgeNet):
    """A network that trains on at most so many images at a time, and then asks for more memory than there is."""

    most = 3

    def training_loss(self, image_BHW: torch.Tensor, *arguments: Any) -> torch.Tensor:
        if len(image_BHW) > self.most:
            torch.empty(10**15)
        return super().training_loss(image_BHW, *arguments)


def test_out_of_memory_halves_the_micro_batch_and_training_goes_on(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.train.BoneAgeNet", Cramped)
    notes: list[str] = []
    run_trial(tmp_path, TINY, cohort, report=lambda item: notes.append(item.measurement.note))
    runs = [fold["run"] for i in range(3) if (fold := read_fold(tmp_path, i))]
    assert [run["accumulate"] for run in runs] == [4, 4, 4]
    assert "step 1 with 8 images at a time; it goes on with 4" in notes[0]
    assert "goes on with 2, the batch in 4 parts" in notes[0]
    assert not any(notes[1:])  # later folds begin with what the first came to need


def test_predictions_are_made_in_smaller_batches_where_memory_is_short(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sex = BoneAgeNet(TINY).eval(), sex_codes(cohort.cases["is_male"])
    rows = cohort.fold_rows(0)
    whole = predict(model, cohort.view("full"), sex, rows, "cpu")
    forward = BoneAgeNet.forward

    def cramped(self: BoneAgeNet, image_BHW: torch.Tensor, *arguments: Any) -> torch.Tensor:
        if len(image_BHW) > 3:
            torch.empty(10**15)
        return forward(self, image_BHW, *arguments)

    monkeypatch.setattr(BoneAgeNet, "forward", cramped)
    assert np.allclose(predict(model, cohort.view("full"), sex, rows, "cpu"), whole, atol=1e-6)


def test_the_sex_is_guessed_in_smaller_batches_where_memory_is_short(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BoneAgeNet(replace(TINY, weight_sex=0.1)).eval()
    rows = cohort.fold_rows(0)
    whole = guess_male(model, cohort.view("full"), rows, "cpu")
    assert whole is not None
    maps = BoneAgeNet.maps

    def cramped(self: BoneAgeNet, image_BHW: torch.Tensor) -> torch.Tensor:
        if len(image_BHW) > 3:
            torch.empty(10**15)
        return maps(self, image_BHW)

    monkeypatch.setattr(BoneAgeNet, "maps", cramped)
    assert np.allclose(guess_male(model, cohort.view("full"), rows, "cpu"), whole, atol=1e-6)


@pytest.mark.parametrize("before", [True, False])
def test_moments_of_another_layout_are_laid_out_as_the_weights_are(before: bool) -> None:
    torch.manual_seed(0)
    first, second = (
        Learner(BoneAgeNet(TINY), TINY, Numerics(channels_last=layout), "cpu", 10, 0) for layout in (before, not before)
    )
    first.step(batch(), 1)
    second.restore(copy.deepcopy(first.state()))
    for one in (first, second):
        torch.manual_seed(1)  # which sexes are hidden
        one.step(batch(), 2)
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)  # a fiftieth of a step
    strides = [(p.stride(), m["exp_avg"].stride()) for p, m in second._optimizer.state.items()]
    assert all(weight == moment for weight, moment in strides)


def test_a_loaded_file_changes_the_grid_of_no_other_network() -> None:
    model, before = BoneAgeNet(TINY), BIN_MONTHS.copy()
    model.load_state_dict({**model.state_dict(), "months_M": torch.zeros(len(before))})
    assert np.array_equal(before, BIN_MONTHS)


def test_memory_too_small_for_one_image_is_a_sentence(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cramped, "most", 0)
    monkeypatch.setattr("search.train.BoneAgeNet", Cramped)
    with pytest.raises(TrainingError, match="one training image at least"):
        train_fold(TINY, cohort, 0)


def test_the_loss_that_is_not_finite_is_named_with_its_step(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Learner.step

    def poisoned(self: Learner, part: Batch, number: int) -> torch.Tensor:
        return step(self, part, number) * (float("nan") if number == 13 else 1.0)

    monkeypatch.setattr(Learner, "step", poisoned)
    with pytest.raises(TrainingError, match="became nan at step 13 of 30"):
        train_fold(replace(TINY, max_images_seen=240), cohort, 0)


@pytest.mark.parametrize("warp_on", ["host", "device"])
def test_batches_made_ahead_are_those_made_when_asked_for(cohort: Cohort, warp_on: str) -> None:
    rows = cohort.train_rows(0)
    months = cohort.cases["bone_age_months"].to_numpy(np.float32)
    sex = sex_codes(cohort.cases["is_male"])
    augment = Augmentation(0.8, 3, "cpu", warp_on)
    feed = Feed(cohort.view("full"), sex, months, rows, 8, 3, augment, "cpu")
    ahead, asked = feed.batches(2, 2), feed.batches(0, 0)
    next(asked), next(asked)  # left out by the other
    for _ in range(6):
        a, b = next(ahead), next(asked)
        assert torch.equal(a.images_BHW, b.images_BHW)
        assert torch.equal(a.months_B, b.months_B)
    ahead.close()
