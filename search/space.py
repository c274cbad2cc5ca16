"""One point of the search space, and the named spaces that Optuna draws points from.

A space is an Optuna define-by-run function: it takes an `optuna.Trial` and returns the settings of a `TrialConfig`.
Name a function of your own with ``--space module:function``.
"""

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import optuna


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Every setting of one trial; what a fold learns depends on nothing else but the cohort."""

    backbone: str
    """Name of a timm model; it is made with one input channel and without its classifier."""
    view: str = "full"
    """Which of the cohort's pictures of a radiograph it sees."""
    head: str = "bins"
    """``bins``: a free distribution over monthly bins; ``normal``: a mean and a width, discretised to the same bins."""
    sex_features: int = 32
    """Width of the layer that reads the sex before it joins the image features."""
    learning_rate: float = 1e-3
    """Of AdamW, at the schedule's peak."""
    weight_decay: float = 0.02
    """Of AdamW; weights only, neither biases nor normalisation."""
    batch_size: int = 32
    epochs: int = 30
    """Passes over the training folds."""
    max_images_seen: int = 12_000
    """Upper bound on training images shown per fold, repeats counted: it keeps large cohorts affordable."""
    augmentation: float = 0.5
    """Strength in 0..1 of the random changes to training images; 0 leaves them alone; see preprocessing.strength."""
    schedule: str = "cosine"
    """``cosine``: rises over the first tenth, then falls to zero; ``halving``: halves after each tenth (Chen);
    ``constant``."""
    ema: float = 0.0
    """Decay a step of the moving average of the weights, which is measured and kept in their place; 0: no average."""
    frozen_epochs: float = 0.0
    """First passes in which the trunk learns nothing; as many as `epochs` or more: it never does."""
    accumulate: int = 1
    """Parts in which a batch passes through the network, where memory is short; their gradients are added up."""
    precision: str = "auto"
    """``fp32``, ``bf16`` or ``fp16`` while it trains; ``auto``: the fastest in a short measurement (precision.py)."""
    warp_on: str = "auto"
    """Where they are turned, shifted and zoomed: ``host`` (one by one, OpenCV), ``device`` (a batch at once, torch), or
    ``auto``: the device unless it is the CPU."""
    weight_l1: float = 1.0
    """Weight of the smooth L1 distance between expected and reference bone age, in years."""
    weight_ldl: float = 0.3
    """Weight of the cross entropy to a normal label distribution around the reference (label distribution learning)."""
    weight_spread: float = 0.0
    """Weight of Chen's expected squared distance, sum of p_j (j - y)^2, in years squared."""
    label_sigma_months: float = 9.0
    """Standard deviation of the label distribution."""
    seed: int = 0
    """Of weights, order of images and augmentation."""

    def __post_init__(self) -> None:
        if self.head not in ("bins", "normal"):
            raise ValueError(f"head must be 'bins' or 'normal', got {self.head!r}.")
        if self.warp_on not in ("host", "device", "auto"):
            raise ValueError(f"warp_on must be 'host', 'device' or 'auto', got {self.warp_on!r}.")
        if self.schedule not in ("cosine", "halving", "constant"):
            raise ValueError(f"schedule must be 'cosine', 'halving' or 'constant', got {self.schedule!r}.")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise ValueError(f"precision must be 'auto', 'fp32', 'bf16' or 'fp16', got {self.precision!r}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie within 0..1, below 1, got {self.ema}. 0 turns it off.")
        if not self.frozen_epochs >= 0:
            raise ValueError(f"frozen_epochs must be 0 or more, got {self.frozen_epochs}.")
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(
                f"accumulate must lie within 1..batch_size ({self.batch_size}), got {self.accumulate}: "
                "a part holds one image at least."
            )
        for name in (
            "sex_features",
            "batch_size",
            "epochs",
            "max_images_seen",
            "learning_rate",
            "label_sigma_months",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("weight_decay", "weight_l1", "weight_ldl", "weight_spread"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if self.weight_l1 + self.weight_ldl + self.weight_spread == 0:
            raise ValueError("At least one of weight_l1, weight_ldl, weight_spread must be above 0: no loss is left.")
        if not 0 <= self.augmentation <= 1:
            raise ValueError(f"augmentation must lie within 0..1, got {self.augmentation}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Rebuild a configuration, refusing keys this release does not know.

        Raises:
            ValueError: An unknown key, or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(value) - known:
            raise ValueError(f"A trial has the settings {sorted(known)}; unknown: {sorted(unknown)}.")
        return cls(**value)


Space = Callable[[optuna.Trial], dict[str, Any]]


def quick(trial: optuna.Trial) -> dict[str, Any]:
    """Narrow residual networks, trained for about half a minute a fold on one core: to see the whole product work.

    Run: ``python -m search run COHORT STUDY --space quick --trials 8``
    """
    return {
        "backbone": trial.suggest_categorical("backbone", ["slim_resnet10", "slim_resnet18"]),
        "head": trial.suggest_categorical("head", ["bins", "normal"]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 6e-3, log=True),
        "weight_ldl": trial.suggest_float("weight_ldl", 0.05, 1.0, log=True),
        "weight_spread": trial.suggest_float("weight_spread", 0.0, 0.2),
        "augmentation": trial.suggest_float("augmentation", 0.0, 0.8),
        "batch_size": 16,
        "epochs": 25,
        "max_images_seen": 20_000,
    }


SPACES: dict[str, Space] = {"quick": quick}
STARTING_POINTS: dict[str, list[dict[str, Any]]] = {
    "quick": [
        {
            "backbone": "slim_resnet10",
            "head": head,
            "learning_rate": 3e-3,
            "weight_ldl": 0.3,
            "weight_spread": 0.0,
            "augmentation": 0.5,
        }
        for head in ("bins", "normal")
    ]
}
"""Known-good points of a space, tried first."""


def starting_points(name: str) -> list[dict[str, Any]]:
    """Points of a space that are tried first: ours, or those that a user's module lists in a `STARTING_POINTS` too."""
    if name in SPACES:
        return STARTING_POINTS.get(name, [])
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), "STARTING_POINTS", {}).get(function, [])


def load_space(name: str) -> Space:
    """Return a named space, or a user's own ``module:function``.

    The module may register models of its own with timm: it is imported wherever a trial runs.

    Raises:
        ValueError: No such space.
    """
    if name in SPACES:
        return SPACES[name]
    module, _, function = name.partition(":")
    if not function:
        raise ValueError(f"--space must be one of {sorted(SPACES)} or module:function, got {name!r}.")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--space {name!r} cannot be imported: {error}. Run from the folder that holds it.") from None
