"""The named spaces that Optuna draws configurations from.

A space is an Optuna define-by-run function: it takes an `optuna.Trial` and returns settings of a `TrialConfig`; the
cohort's view is drawn for it unless it names one. Name a function of your own with ``--space module:function``.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

from search.named import imported
from search.space import HEAD_TERMS, TERMS

Space = Callable[[optuna.Trial], dict[str, Any]]


def quick(trial: optuna.Trial) -> dict[str, Any]:
    """Narrow residual networks, to see the whole product work.

    Run: ``python -m search run COHORT STUDY --space quick --trials 8``

    Cost: half a minute a fold on one core at 96 pixels. Reached: 12.3 months (10.4 to 14.5) on 105 locked radiographs
    of 1,055, in 11 minutes on two cores, by ``make demo DATA=FOLDER`` of the release before.
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


def cpu(trial: optuna.Trial) -> dict[str, Any]:
    """Small networks from random weights, every head and way to join the sex: what two to sixteen cores can search.

    A fold of ``slim_resnet10`` at 96 pixels with 60,000 image passes takes three minutes on one core, of
    ``slim_resnet18`` four, of the residual VGG ten. Nothing here buys more than passes: trained on 6,660 radiographs
    three times as many took ``slim_resnet18`` from 11.2 to 9.7 months. On 1,000 cases the 50 epochs are over sooner.

    Run: ``python -m search run COHORT STUDY --space cpu --trials 40 --hours 1``

    Cost: two to six minutes a fold on one core at 96 to 128 pixels. Reached: 8.8 months (7.5 to 10.0) on 106 locked
    radiographs of 1,062, in 53 minutes on two cores, by ``python -m benchmarks.accuracy --data FOLDER --minutes 60
    --size 128``.
    """
    head = trial.suggest_categorical("head", list(HEAD_TERMS))
    return {
        "backbone": trial.suggest_categorical("backbone", ["slim_resnet10", "slim_resnet18", "slim_residual_vgg16"]),
        "head": head,
        **_loss_weights(trial, head),
        **_conditioning(trial),
        "learning_rate": trial.suggest_float("learning_rate", 5e-4, 8e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.2, log=True),
        "augmentation": trial.suggest_float("augmentation", 0.2, 0.8),
        "ema": trial.suggest_categorical("ema", [0.0, 0.99, 0.998]),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32]),
        "epochs": 50,
        "max_images_seen": trial.suggest_categorical("max_images_seen", [60_000, 180_000]),
    }


def gpu(trial: optuna.Trial) -> dict[str, Any]:
    """Networks that published systems use, at the cohort's full size, on a GPU each; weights from timm's hub or random.

    Prepare the cohort with ``--size 384 --views full,crop --folds 5``. Where there is no network,
    ``--weights FOLDER`` stands in for the hub.

    Run: ``python -m search run COHORT STUDY --space gpu --trials 60 --address auto``

    Cost: hours on GPUs. Reached: not run yet, so nobody knows.
    """
    head = trial.suggest_categorical("head", list(HEAD_TERMS))
    pretrained = trial.suggest_categorical("pretrained", ["hub", ""])
    return {
        "backbone": trial.suggest_categorical("backbone", _GPU_BACKBONES),
        "pretrained": pretrained,
        "head": head,
        **_any_loss(trial, head),
        **_conditioning(trial),
        # at the cpu space's sizes no network tells the sex well enough to doubt a stated one
        "weight_sex": trial.suggest_categorical("weight_sex", [0.0, 0.3]),
        "learning_rate": trial.suggest_float("learning_rate", 3e-5, 2e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 5e-2, log=True),
        "schedule": trial.suggest_categorical("schedule", ["cosine", "halving"]),
        "augmentation": trial.suggest_float("augmentation", 0.2, 1.0),
        "ema": trial.suggest_categorical("ema", [0.0, 0.998, 0.9995]),
        "frozen_epochs": trial.suggest_categorical("frozen_epochs", [0.0, 1.0]) if pretrained else 0.0,
        "image_size": trial.suggest_categorical("image_size", [0, 256]),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
        "epochs": trial.suggest_categorical("epochs", [15, 30]),
        "max_images_seen": 400_000,
    }


def seeds(trial: optuna.Trial) -> dict[str, Any]:
    """The systems that Carpal grew from, as far as they are described: their networks and losses under our protocol.

    The starting points are the systems themselves (``SEEDS``); whatever is drawn after them varies learning rate,
    augmentation and sex around them. Weights are random here, since theirs were ImageNet's: ``seeds_pretrained`` takes
    those from timm's hub. The frozen VGG makes sense there alone. In a cohort of several views all begin with the crop,
    and Memon and Cuomo's with the hand cut out, if it is there.

    Run: ``python -m search run COHORT STUDY --space seeds --trials 8 --pool 8``

    Cost: a quarter of an hour a fold and core for the full VGGs at 96 pixels. Reached: 11.3 months (9.8 to 13.0) on 106
    locked radiographs of 1,062, in 103 minutes of two cores, by all eight systems together and ``python -m
    benchmarks.accuracy --data FOLDER --space seeds --size 64 --trials 8 --pool 8 --minutes 150``.
    """
    return _seeds(trial, "")


def seeds_pretrained(trial: optuna.Trial) -> dict[str, Any]:
    """As ``seeds``, with ImageNet's weights from timm's hub where the system had them.

    Run: ``python -m search run COHORT STUDY --space seeds_pretrained --trials 9 --pool 9``

    Cost: as ``seeds``. Reached: not run yet: it needs timm's hub, or ``--weights FOLDER`` in its place.
    """
    return _seeds(trial, "hub")


_GPU_BACKBONES = [
    "convnext_tiny",
    "convnextv2_tiny",
    "tf_efficientnetv2_s",
    "efficientnet_b0",
    "densenet121",
    "inception_v3",
    "resnet50d",
    "residual_vgg16",
    "attention_vgg16",
    "prs_r:resnet50d",
]
_L2CE = {"head": "bins", "weight_l1": 0.0, "weight_ldl": 0.0, "weight_ce": 1.0, "weight_spread": 1.0}
"""Chen: cross entropy and the expected squared distance, in years here."""
_L1 = {"head": "laplace", "weight_l1": 0.0, "weight_ldl": 0.0, "weight_z": 1.0}
SEEDS: dict[str, dict[str, Any]] = {
    "Chen, GoogLeNet": {"backbone": "chen_googlenet", **_L2CE, "schedule": "halving", "augmentation": 0.7},
    "Chen, VGG-16": {"backbone": "chen_vgg16", **_L2CE, "schedule": "halving", "augmentation": 0.7},
    "Chen, VGG-16 frozen": {"backbone": "chen_vgg16", **_L2CE, "schedule": "halving", "frozen_epochs": 30.0},
    "TechLabs, VGG-16": {"backbone": "chen_vgg16", **_L1},
    "Memon and Cuomo, four convolutions": {"backbone": "memon_cuomo", **_L1, "learning_rate": 1e-3},
    "Nguyen and Kim, residual VGG": {"backbone": "residual_vgg16", **_L1},
    "Jetley, attention": {"backbone": "attention_vgg16", **_L1},
    "after PRSNet": {"backbone": "prs_r:resnet18", **_L1},
    "after PRSNet, random parts": {"backbone": "prs_r:resnet18", **_L1, "parts": "random"},
}
"""Settings of each system that differ from this space's own; the last is the control that must be worse."""
_WITHOUT_HUB = ("memon_cuomo",)


def _seeds(trial: optuna.Trial, pretrained: str) -> dict[str, Any]:
    names = [name for name in SEEDS if pretrained or "frozen" not in name]
    system = SEEDS[trial.suggest_categorical("system", names)]
    return {
        "epochs": 30,
        "max_images_seen": 20_000,
        "batch_size": 16,
        "pretrained": "" if system["backbone"] in _WITHOUT_HUB else pretrained,
        **system,
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 3e-3, log=True),
        "augmentation": trial.suggest_float("augmentation", 0.0, 1.0),
        "sex": trial.suggest_categorical("sex", ["concat", "embedding", "film", "gated"]),
    }


def _conditioning(trial: optuna.Trial) -> dict[str, Any]:
    return {"sex": trial.suggest_categorical("sex", ["concat", "embedding", "film", "gated"])}


def _loss_weights(trial: optuna.Trial, head: str) -> dict[str, Any]:
    """A weight for each term that the head can use: one that every head learns by, and the head's own."""
    weights = dict.fromkeys(TERMS, 0.0) | {"weight_l1": 1.0}
    if head in ("bins", "normal", "ordinal"):
        weights["weight_ldl"] = trial.suggest_float("weight_ldl", 0.03, 1.0, log=True)
        weights["weight_spread"] = trial.suggest_float("weight_spread", 0.0, 0.2)
    if head == "ordinal":
        weights["weight_ordinal"] = trial.suggest_float("weight_ordinal", 0.1, 3.0, log=True)
    if head == "quantiles":
        weights["weight_pinball"] = trial.suggest_float("weight_pinball", 0.1, 3.0, log=True)
    return weights


def _any_loss(trial: optuna.Trial, head: str) -> dict[str, Any]:
    """As `_loss_weights`, and drawn too: the distance's unit, and Chen's L2CE in place of the label distribution.

    For searches long enough to learn it; in ``cpu`` each further parameter would take trials from the others.
    """
    weights = _loss_weights(trial, head)
    if trial.suggest_categorical("distance", ["years", "deviations"]) == "deviations":
        weights |= {"weight_l1": 0.0, "weight_z": 1.0}
    is_shaped = "weight_ce" in HEAD_TERMS[head]
    if is_shaped and trial.suggest_categorical("shape", ["label_distribution", "l2ce"]) == "l2ce":
        weights |= {"weight_ldl": 0.0, "weight_ce": weights["weight_ldl"]}
    return weights


SPACES: dict[str, Space] = {
    "quick": quick,
    "cpu": cpu,
    "gpu": gpu,
    "seeds": seeds,
    "seeds_pretrained": seeds_pretrained,
}
_CPU_POINT = {
    "sex": "concat",
    "learning_rate": 3e-3,
    "weight_decay": 0.012,
    "augmentation": 0.45,
    "ema": 0.99,
    "batch_size": 32,
}
_LONG_RESNET = {**_CPU_POINT, "backbone": "slim_resnet18", "max_images_seen": 180_000}
_VGG = {**_CPU_POINT, "backbone": "slim_residual_vgg16", "max_images_seen": 60_000}
_ORDINAL = {"head": "ordinal", "weight_ldl": 0.07, "weight_spread": 0.05, "weight_ordinal": 0.4}
_SHAPE = {"weight_ldl": 0.3, "weight_spread": 0.0}
_GPU_POINT = {
    "pretrained": "hub",
    "head": "bins",
    **_SHAPE,
    "distance": "years",
    "shape": "label_distribution",
    "batch_size": 32,
    "epochs": 30,
    "sex": "concat",
    "learning_rate": 3e-4,
    "weight_decay": 1e-3,
    "schedule": "cosine",
    "augmentation": 0.5,
    "ema": 0.998,
    "frozen_epochs": 0.0,
    "image_size": 0,
    "weight_sex": 0.3,
}
_SEED_POINT = {"learning_rate": 3e-4, "augmentation": 0.5, "sex": "concat"}
_SEED_VIEWS = {"Memon and Cuomo, four convolutions": {"view": "masked"}}
"""What a system looked at, taken where the cohort has it: theirs saw the hand that a U-Net had cut out."""
STARTING_POINTS: dict[str, list[dict[str, Any]]] = {
    "quick": [
        {
            "backbone": "slim_resnet10",
            "head": head,
            "learning_rate": 3e-3,
            **_SHAPE,
            "augmentation": 0.5,
        }
        for head in ("bins", "normal")
    ],
    "cpu": [
        {**_LONG_RESNET, **_ORDINAL},
        {**_VGG, **_ORDINAL, "sex": "gated"},
        {**_LONG_RESNET, "backbone": "slim_resnet10", "head": "quantiles", "weight_pinball": 1.0},
        {**_VGG, "head": "bins", **_SHAPE},
        {**_LONG_RESNET, "head": "normal", **_SHAPE},
        {**_VGG, "head": "laplace"},
    ],
    "gpu": [{**_GPU_POINT, "backbone": name} for name in ("convnext_tiny", "tf_efficientnetv2_s", "densenet121")],
    **{
        space: [
            {
                "system": name,
                **_SEED_POINT,
                **{key: value for key, value in system.items() if key in _SEED_POINT},
                **_SEED_VIEWS.get(name, {}),
            }
            for name, system in SEEDS.items()
            if space == "seeds_pretrained" or "frozen" not in name
        ]
        for space in ("seeds", "seeds_pretrained")
    },
}
"""Known-good points of a space, tried first."""


USUAL_VIEW = "crop"
"""Of points that are tried first, where the cohort has it: on real radiographs the same training was off by 18.7 months
on it and by 24.9 on whole pictures (`benchmarks.preprocessing_ablation`)."""


def usual_view(views: Sequence[str]) -> str:
    """The view of a cohort that a point takes which names none that is there."""
    return USUAL_VIEW if USUAL_VIEW in views else views[0]


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
    if not name.partition(":")[2]:
        raise ValueError(f"--space must be one of {sorted(SPACES)} or module:function, got {name!r}.")
    space: Space = imported("--space", name)
    return space


def own_modules(name: str) -> list[str]:
    """Path of what has to be brought along to where ``module:function`` is imported: the module, or its package.

    None for a named space, nor for what is installed: that belongs into the image of every machine.
    """
    if name in SPACES:
        return []
    load_space(name)
    top = sys.modules[name.partition(":")[0].partition(".")[0]]
    place = str(next(iter(top.__path__))) if hasattr(top, "__path__") else str(top.__file__)
    return [] if "site-packages" in Path(place).parts else [place]
