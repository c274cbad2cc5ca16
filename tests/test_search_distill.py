"""A network taught by distributions beside its labels, with the search's own trainer."""

import numpy as np
import pytest
import torch

from preprocessing.cohort import Cohort
from search.distill import distill
from search.losses import cross_entropy
from search.space import TrialConfig
from tests.ensemble_fixtures import make_cohort


def test_the_loss_of_a_teacher_is_zero_where_both_say_the_same():
    logits = torch.randn(3, 240)
    teacher = logits.softmax(dim=1)
    assert cross_entropy(logits, teacher).item() == pytest.approx(0, abs=1e-5)
    assert cross_entropy(logits.flip(1), teacher).item() > 0.1


def test_a_student_is_moved_by_its_teacher_and_never_by_what_it_says_of_the_locked_test(tmp_path):
    torch.set_num_threads(1)
    cohort = Cohort.load(make_cohort(tmp_path / "cohort"))
    config = TrialConfig(backbone="test_resnet", epochs=1, precision="fp32")
    low, high = (np.tile(np.eye(240, dtype=np.float32)[month], (30, 1)) for month in (20, 200))
    of_locked = np.where(cohort.cases["is_test"].to_numpy()[:, None], np.nan, low).astype(np.float32)
    first, other, same = (
        distill(tmp_path / name, config, cohort, teacher, number=0)
        for name, teacher in (("low", low), ("high", high), ("locked", of_locked))
    )
    assert first.oof["predicted_months"].mean() < other.oof["predicted_months"].mean()
    assert first.fold_hashes == same.fold_hashes
    assert len(first.oof) == 24


def test_a_teacher_that_leaves_a_case_out_is_refused(tmp_path):
    cohort = Cohort.load(make_cohort(tmp_path / "cohort"))
    config = TrialConfig(backbone="test_resnet", epochs=1)
    for teacher in (np.zeros((30, 240), np.float32), np.full((29, 240), 1 / 240)):
        with pytest.raises(ValueError, match="distribution over 240 months of every case"):
            distill(tmp_path / "study", config, cohort, teacher, number=0)
