"""How the weights move: optimiser, schedule of the learning rate, moving average."""

import math

import torch
from timm.utils import ModelEmaV3
from torch import nn

from search.space import TrialConfig

WARM_UP = 0.1
"""Share of the training over which the cosine schedule rises."""


def make_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.Optimizer:
    """AdamW whose weight decay spares biases and normalisation."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def rate_share(schedule: str, progress: float) -> float:
    """Share of the peak learning rate at a point of the training.

    Args:
        schedule: ``cosine`` rises linearly over the first tenth and then falls to zero as half a cosine; ``halving``
            halves after each tenth, down to 1/512, as Chen did; ``constant`` stays.
        progress: Share of the training that is done, within 0..1.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "halving":
        return 0.5 ** min(9, math.floor(10 * progress + 1e-9))  # 0.3 * 10 is a little less than 3
    if progress < WARM_UP:
        return (progress + 1e-3) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def make_average(model: nn.Module, decay: float) -> ModelEmaV3 | None:
    """Exponential moving average of weights and batch-norm statistics alike, or None for decay 0.

    The statistics are averaged with the weights that they belong to: those of the last weights do not fit the average.
    The decay starts at 0 and rises as 1 - t^(-2/3) to the one asked for, or the random first weights would stay in the
    average of a short training (timm's `ModelEmaV3`).
    """
    return ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None
