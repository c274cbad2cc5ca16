"""The sex: its codes, the four ways it joins the image, and hiding it."""

import numpy as np
import pandas as pd
import pytest
import torch

from search.conditioning import CONDITIONINGS, Gated
from search.model import BoneAgeNet, expected_months, sex_codes
from search.space import TrialConfig

IMAGES = torch.randint(0, 256, (4, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "values",
    [
        [True, False, None],
        np.array([1.0, 0.0, np.nan]),
        pd.array([True, False, pd.NA], dtype="boolean"),
        pd.Series([True, False, None]),
    ],
)
def test_male_female_and_missing_have_codes(values: object) -> None:
    codes = sex_codes(values)
    assert codes.dtype == np.float32
    assert codes.tolist() == [1.0, -1.0, 0.0]


def test_plain_booleans_have_codes_and_none_at_all_too() -> None:
    assert sex_codes(np.array([False, True])).tolist() == [-1.0, 1.0]
    assert sex_codes(np.empty(0, bool)).tolist() == []


def test_another_value_is_no_sex() -> None:
    with pytest.raises(ValueError, match="missing, got 'M'"):
        sex_codes(["M"])


def test_booleans_in_place_of_codes_are_refused() -> None:
    model = BoneAgeNet(TrialConfig(backbone="test_resnet"))
    with pytest.raises(ValueError, match=r"float codes.*Use sex_codes"):
        model(IMAGES, torch.ones(4, dtype=torch.bool))


@pytest.mark.parametrize("sex", CONDITIONINGS)
def test_the_sex_moves_the_answer_and_an_unknown_one_has_its_own(sex: str) -> None:
    torch.manual_seed(0)
    model = BoneAgeNet(TrialConfig(backbone="test_resnet", sex=sex, sex_features=4)).eval()
    with torch.no_grad():
        for parameter in model.sex.parameters():
            parameter.normal_()
        model.head.weight.normal_(std=0.1)
        answers = [expected_months(model(IMAGES[:1], torch.tensor([code]))).item() for code in (-1.0, 0.0, 1.0)]
    assert len({round(answer, 3) for answer in answers}) == 3


def test_an_unknown_sex_gets_the_mean_of_both_gated_heads() -> None:
    gate, head = Gated(3, 4), torch.nn.Linear(8, 2)
    features = torch.randn(5, 3)
    female, unknown, male = (head(gate(features, torch.full((5,), code))) for code in (-1.0, 0.0, 1.0))
    assert torch.allclose(unknown, (female + male) / 2, atol=1e-6)


def test_modulation_starts_as_no_change() -> None:
    features = torch.randn(5, 3)
    assert torch.equal(CONDITIONINGS["film"](3, 4)(features, torch.ones(5)), features)


def test_training_hides_some_sexes_and_measuring_none() -> None:
    torch.manual_seed(0)
    config = TrialConfig(backbone="test_resnet", sex_dropout=0.5)
    model = BoneAgeNet(config)
    seen: list[torch.Tensor] = []
    model.sex.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    sex, months = torch.ones(4), torch.full((4,), 90.0)
    for mode in (True, False):
        model.train(mode)
        for _ in range(20):
            model.training_loss(IMAGES, sex, months, config)
    hidden = [int((codes == 0).sum()) for codes in seen]
    assert 20 < sum(hidden[:20]) < 60
    assert sum(hidden[20:]) == 0


def test_a_case_of_unknown_sex_teaches_nothing_about_guessing_it() -> None:
    config = TrialConfig(backbone="test_resnet", weight_sex=1.0)
    model = BoneAgeNet(config)
    model.training_loss(IMAGES, torch.zeros(4), torch.full((4,), 90.0), config).backward()
    assert model.sex_guess is not None
    assert not model.sex_guess.weight.grad.any()


def test_configurations_of_before_hid_no_sex() -> None:
    stored = TrialConfig(backbone="x").to_dict()
    assert TrialConfig.from_dict(stored).sex_dropout == 0.05
    del stored["sex_dropout"]
    assert TrialConfig.from_dict(stored).sex_dropout == 0.0
