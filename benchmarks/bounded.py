"""A named space under a bound of its own on a fold's image passes: ``--space benchmarks.bounded:space``.

The environment says which space and how many passes, so that `python -m search run` searches it like any user's space.
"""

import os
from typing import Any

import optuna

from search.spaces import load_space, starting_points

SPACE = "CARPAL_BENCHMARK_SPACE"
IMAGES = "CARPAL_BENCHMARK_IMAGES"
NAME = f"{__name__}:space"


def space(trial: optuna.Trial) -> dict[str, Any]:
    """What the space draws, with the bound."""
    return load_space(os.environ[SPACE])(trial) | {"max_images_seen": int(os.environ[IMAGES])}


def __getattr__(name: str) -> Any:
    """The space's own starting points, as `search.spaces.starting_points` looks for them."""
    if name == "STARTING_POINTS":
        return {"space": starting_points(os.environ[SPACE])}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
