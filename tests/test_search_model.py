"""Network, losses and the training of one fold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from preprocessing.cohort import Cohort
from search.feed import batch_rows
from search.losses import loss
from search.model import BIN_MONTHS, BoneAgeNet, expected_months, load_model
from search.space import TrialConfig
from search.train import MEASURE_AT, Measurement, TrainingError, train_fold

TINY = TrialConfig(backbone="test_resnet", sex_features=4, batch_size=8, max_images_seen=80)
HEADS = ["bins", "normal"]


@pytest.mark.parametrize("backbone", ["slim_resnet10", "slim_resnet18", "resnet10t", "regnetx_002"])
@pytest.mark.parametrize("head", HEADS)
def test_backbones_and_heads_give_a_distribution_over_months(backbone: str, head: str) -> None:
    model = BoneAgeNet(TrialConfig(backbone=backbone, head=head)).eval()
    logits = model(torch.zeros(2, 64, 64, dtype=torch.uint8), torch.tensor([1.0, -1.0]))
    assert logits.shape == (2, 240)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("head", HEADS)
def test_an_untrained_network_starts_at_the_training_mean(head: str) -> None:
    model = BoneAgeNet(TrialConfig(backbone="test_resnet", head=head), label_mean=100.0, label_sd=30.0).eval()
    months = expected_months(model(torch.zeros(1, 64, 64, dtype=torch.uint8), torch.ones(1)))
    assert months.item() == pytest.approx(100, abs=8)


def test_unknown_backbone_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="timm model, got 'no_such_net'"):
        BoneAgeNet(TrialConfig(backbone="no_such_net"))


def test_loading_other_weights_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "fold_0.safetensors")
    with pytest.raises(ValueError, match=r"/fold_0\.safetensors does not hold the weights of a test_resnet") as caught:
        load_model(tmp_path / "fold_0.safetensors", TINY)
    assert "1 of the file are unknown" in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = BoneAgeNet(TINY).state_dict()
    next(value for value in state.values() if value.ndim == 4)[0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "fold_0.safetensors")
    with pytest.raises(ValueError, match=r"/fold_0\.safetensors must hold finite numbers, and 1 of \d+ weights do not"):
        load_model(tmp_path / "fold_0.safetensors", TINY)


@settings(max_examples=50, deadline=None)
@given(months=st.floats(10, 220), off=st.floats(12, 60), weights=st.tuples(*[st.sampled_from([0.0, 0.5])] * 3))
def test_every_loss_prefers_the_reference_to_a_distribution_further_off(
    months: float, off: float, weights: tuple[float, ...]
) -> None:
    if not sum(weights):
        return
    config = TrialConfig(backbone="x", weight_l1=weights[0], weight_ldl=weights[1], weight_spread=weights[2])
    grid, reference = torch.from_numpy(BIN_MONTHS), torch.tensor([months])
    wrong = months + off if months < 115 else months - off
    near, far = (-0.5 * ((grid - mean) / 9.0) ** 2 for mean in (months, wrong))
    assert loss(near[None], reference, config) < loss(far[None], reference, config)


@pytest.mark.slow
def test_training_beats_the_mean_on_an_easy_cohort(cohort: Cohort) -> None:
    config = TrialConfig(backbone="test_resnet", batch_size=8, epochs=40, max_images_seen=1200, augmentation=0.0)
    trained = train_fold(config, cohort, 0)
    months = cohort.cases["bone_age_months"].to_numpy()
    rows = cohort.fold_rows(0)
    trivial = np.abs(months[rows] - np.median(months[cohort.train_rows(0)])).mean()
    assert trained.mae_months < 0.7 * trivial


def test_the_fold_s_own_labels_do_not_change_its_model(cohort: Cohort) -> None:
    cases = cohort.cases.copy()
    cases.loc[cohort.fold_rows(0), "bone_age_months"] = 5.0
    cases.loc[cohort.test_rows(), "bone_age_months"] = 5.0
    poisoned = Cohort(cases, cohort.pixels, cohort.recipe, cohort.hash, cohort.num_folds, cohort.source, cohort.quality)
    a, b = train_fold(TINY, cohort, 0), train_fold(TINY, poisoned, 0)
    assert np.array_equal(a.probabilities_NM, b.probabilities_NM)


def test_reports_come_as_often_as_promised_and_only_the_last_is_final(cohort: Cohort) -> None:
    seen: list[Measurement] = []
    train_fold(TINY, cohort, 1, report=seen.append)
    assert [item.final for item in seen] == [False] * (len(MEASURE_AT) - 1) + [True]


def test_a_loss_that_is_not_finite_ends_the_fold(cohort: Cohort) -> None:
    with pytest.raises(TrainingError, match="loss of fold 0"):
        train_fold(TrialConfig(**TINY.to_dict() | {"learning_rate": 1e30}), cohort, 0)


@pytest.mark.parametrize("warp_on", ["host", "device"])
def test_training_with_augmentation_gives_the_same_weights_twice(cohort: Cohort, warp_on: str) -> None:
    config = TrialConfig(**TINY.to_dict() | {"augmentation": 1.0, "warp_on": warp_on})
    a, b = train_fold(config, cohort, 0), train_fold(config, cohort, 0)
    assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))


def test_each_epoch_changes_each_case_anew() -> None:
    batches = batch_rows(np.arange(10), 4, np.random.default_rng(0))
    drawn = [next(batches) for _ in range(6)]
    assert [epoch for epoch, _ in drawn] == [0, 0, 1, 1, 2, 2]
    assert all(len(set(drawn[i][1]) | set(drawn[i + 1][1])) == 8 for i in (0, 2, 4))
