"""Search spaces of the tests, named as a user names a space of their own: ``tests.spaces_of_tests:tiny``."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import optuna
import timm.models
import torch


def tiny(trial: optuna.Trial) -> dict[str, Any]:
    """Seconds a trial: timm's smallest residual network over a few dozen pictures."""
    return {
        "backbone": "test_resnet",
        "sex_features": 4,
        "batch_size": 8,
        "max_images_seen": int(os.environ.get("TINY_IMAGES", "80")),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "augmentation": trial.suggest_float("augmentation", 0.0, 1.0),
    }


def with_nan(trial: optuna.Trial) -> dict[str, Any]:
    """As `tiny`, but the second trial's learning rate makes its loss overflow."""
    settings = tiny(trial)
    return settings | ({"learning_rate": 1e30} if trial.number == 1 else {})


def at_no_stage(pool_size: int) -> SimpleNamespace:
    """A rule of one's own that takes a moment for a stage."""
    return SimpleNamespace(stage="fold", needs_cases=False, verdict=lambda trial, others: None)


@timm.models.register_model
def net_of_tests_that_breaks(pretrained: bool = False, **options: Any) -> None:
    """A network with a mistake in it."""
    raise KeyError("stem")


@timm.models.register_model
def net_of_tests_that_takes_memory(pretrained: bool = False, **options: Any) -> torch.nn.Module:
    """A network that learns from two images at a time; the system kills who gives it more, as for want of memory."""
    network: torch.nn.Module = timm.create_model("test_resnet", **options)

    def kill(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if module.training and len(given[0]) > 2:
            os.kill(os.getpid(), signal.SIGKILL)

    network.get_submodule("conv1").register_forward_pre_hook(kill)
    return network


def short_of_memory(trial: optuna.Trial) -> dict[str, Any]:
    """As `tiny`, with that network."""
    return tiny(trial) | {"backbone": "net_of_tests_that_takes_memory", "epochs": 1000}


def with_a_mistake(trial: optuna.Trial) -> dict[str, Any]:
    """As `tiny`, with a network that nobody can make."""
    return tiny(trial) | {"backbone": "net_of_tests_that_breaks"}


def of_crops(trial: optuna.Trial) -> dict[str, Any]:
    """As `tiny`, on one view."""
    return tiny(trial) | {"view": "crop"}


def from_the_hub(trial: optuna.Trial) -> dict[str, Any]:
    """As `tiny`, from weights that timm's hub has."""
    return tiny(trial) | {"pretrained": "hub"}
