"""The named spaces: whatever they draw can be trained, and their starting points are points of them."""

import re

import optuna
import pytest

from search.model import BoneAgeNet
from search.space import TrialConfig, unused
from search.spaces import SEEDS, SPACES, STARTING_POINTS

optuna.logging.set_verbosity(optuna.logging.WARNING)


def drawn(space: str, count: int) -> list[TrialConfig]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [TrialConfig(**SPACES[space](study.ask())) for _ in range(count)]


@pytest.mark.parametrize("space", SPACES)
def test_every_draw_is_a_valid_configuration(space: str) -> None:
    assert len(drawn(space, 1000)) == 1000


def test_the_page_names_no_setting_that_a_configuration_makes_no_use_of() -> None:
    plain = TrialConfig(backbone="resnet18", head="ordinal").to_dict()
    assert unused(plain) == {"parts", "weight_parts", "weight_pinball"}
    assert unused({**plain, "backbone": "prs_r:resnet18"}) == {"weight_pinball"}


@pytest.mark.parametrize("space", SPACES)
def test_starting_points_are_drawn_as_they_stand(space: str) -> None:
    study = optuna.create_study()
    for point in STARTING_POINTS[space]:
        study.enqueue_trial(point)
        trial = study.ask()
        SPACES[space](trial)
        assert trial.params == {name: value for name, value in point.items() if name != "view"}  # not the space's


def test_the_seeds_are_all_tried_first() -> None:
    assert [point["system"] for point in STARTING_POINTS["seeds_pretrained"]] == list(SEEDS)


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_system_can_be_built(name: str) -> None:
    model = BoneAgeNet(TrialConfig(**SEEDS[name]))
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000


@pytest.mark.parametrize("name", SPACES)
def test_every_space_says_the_command_that_runs_it_its_cost_and_what_it_reached(name: str) -> None:
    words = SPACES[name].__doc__ or ""
    assert f"--space {name} " in words
    assert "Cost: " in words
    assert re.search(r"Reached: ([\d.]+ months \([\d.]+ to [\d.]+\)|not run yet)", words)
