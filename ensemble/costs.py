"""What members cost: counted, the same on every machine, or measured on this one.

Shape letters: T candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from search.limits import NAMES, Cost, measure
from search.model import BoneAgeNet, sex_codes
from search.space import TrialConfig

BUDGETS = {"latency_ms": "--max-latency-ms", "memory_mb": "--max-memory-mb"}
"""What can be bounded, and the option that does it."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An upper bound on what all members cost together for one radiograph."""

    name: str
    """A key of `BUDGETS`."""
    limit: float
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.name not in BUDGETS:
            raise ValueError(f"A budget must be one of {', '.join(BUDGETS)}, got {self.name!r}.")
        if not self.limit > 0:
            raise ValueError(f"{BUDGETS[self.name]} must be above 0, got {self.limit}.")

    def in_words(self, spent: float) -> str:
        """Such as ``31.0 ms a radiograph of --max-latency-ms 40, on cpu``."""
        return f"{NAMES[self.name][0].format(spent)} of {BUDGETS[self.name]} {self.limit:g}, on {self.device}"


def architecture(config: TrialConfig) -> tuple[object, ...]:
    """What decides about the cost of a trial's network: two trials that share it cost the same."""
    return config.backbone, config.image_size, config.head, config.sex, config.sex_features, bool(config.weight_sex)


def measured(configs: Sequence[TrialConfig], side: int, device: str) -> list[Cost]:
    """Measure one model of each configuration on this machine, every architecture once.

    Args:
        configs: Of the trials.
        side: Side of the cohort's pictures, in pixels.
        device: ``cpu`` or a CUDA device.

    Returns:
        One cost a configuration, in order.
    """
    known: dict[tuple[object, ...], Cost] = {}
    for config in configs:
        if architecture(config) not in known:
            known[architecture(config)] = measure(config, side, device)
    return [known[architecture(config)] for config in configs]


def spent(costs: Sequence[Cost], name: str, num_models: int) -> np.ndarray:
    """``(T,)`` what each candidate takes of a budget when it is served as so many models.

    Latencies add up, as on one thread. Memory does too, the peak of a forward pass included: an upper bound.
    """
    return np.array([getattr(cost, name) * num_models for cost in costs])


def operations(config: TrialConfig, side: int) -> int:
    """Floating-point operations of one forward pass of one radiograph, in convolutions and matrix products.

    Counted, not timed: a manifest may hold them, since every machine finds the same.
    """
    model = BoneAgeNet(config, fetch=False).eval()
    picture_BHW = torch.zeros((1, side, side), dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(picture_BHW, torch.from_numpy(sex_codes(np.array([True]))))
    return int(counter.get_total_flops())


def counted(configs: Sequence[TrialConfig], side: int) -> np.ndarray:
    """``(T,)`` float64 operations of one model of each configuration, every architecture counted once; see above."""
    known = {architecture(config): config for config in configs}
    operations_of = {name: operations(config, side) for name, config in known.items()}
    return np.array([operations_of[architecture(config)] for config in configs], float)
