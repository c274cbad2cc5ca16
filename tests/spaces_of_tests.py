"""Search spaces of the tests, named as a user names a space of their own: ``tests.spaces_of_tests:tiny``."""

import os
from typing import Any

import optuna
import timm.models


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


@timm.models.register_model
def net_of_tests_that_breaks(pretrained: bool = False, **options: Any) -> None:
    """A network with a mistake in it."""
    raise KeyError("stem")


def with_a_mistake(trial: optuna.Trial) -> dict[str, Any]:
    """As `tiny`, with a network that nobody can make."""
    return tiny(trial) | {"backbone": "net_of_tests_that_breaks"}


def of_crops(trial: optuna.Trial) -> dict[str, Any]:
    """As `tiny`, on one view."""
    return tiny(trial) | {"view": "crop"}
