"""What a model may cost where it will serve: parameters, latency and memory of one radiograph."""

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from search.model import BoneAgeNet, probed
from search.space import TrialConfig

NAMES = {
    "parameters": ("{:,.0f} parameters", "--max-parameters"),
    "latency_ms": ("{:.1f} ms a radiograph", "--max-latency-ms"),
    "memory_mb": ("{:.1f} MB", "--max-memory-mb"),
}
"""How a cost is worded, and the option that limits it."""
WARM_UP, REPEATS = 3, 11


@dataclass(frozen=True)
class Cost:
    """What one radiograph costs, measured before the trial is trained."""

    parameters: int
    latency_ms: float
    """Median of a forward pass of one radiograph in float32, in milliseconds, on `device`."""
    memory_mb: float
    """Weights and the peak of one forward pass, in 2^20 bytes: measured on a GPU; on a CPU, where nothing tells it,
    the weights and the largest layer's input and output."""
    device: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper bounds; None is no bound."""

    parameters: float | None = None
    latency_ms: float | None = None
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if limit is not None and not limit > 0:
                raise ValueError(f"{NAMES[name][1]} must be above 0, got {limit}.")

    @property
    def any(self) -> bool:
        """Whether anything is bounded."""
        return any(limit is not None for limit in asdict(self).values())

    @property
    def any_of_machine(self) -> bool:
        """Whether anything is bounded that another machine may measure otherwise: latency or memory."""
        return self.latency_ms is not None or self.memory_mb is not None

    def excess(self, cost: dict[str, Any]) -> dict[str, float]:
        """By how much each bound is passed, as a share of it: 0 or below is within. Optuna's constraints."""
        return {name: cost[name] / limit - 1 for name, limit in asdict(self).items() if limit is not None}

    def verdict(self, cost: dict[str, Any]) -> str | None:
        """Say why a configuration is not trained, or None."""
        words = []
        for name, excess in self.excess(cost).items():
            if excess > 0:
                wording, option = NAMES[name]
                words.append(f"{wording.format(cost[name])} on {cost['device']}, {option} {getattr(self, name):g}")
        return f"infeasible, not trained: {'; '.join(words)}" if words else None


@torch.inference_mode()
def measure(config: TrialConfig, side: int, device: str) -> Cost:
    """Make the trial's network and run single radiographs through it.

    Args:
        config: The trial.
        side: Side of the cohort's pictures, in pixels.
        device: Where it will be trained; ``cpu`` or a CUDA device.

    Raises:
        ValueError: The configuration names no model.
    """
    model = probed(BoneAgeNet(config, fetch=False), side).to(device).to(memory_format=torch.channels_last).eval()
    image_BHW = torch.zeros((1, side, side), dtype=torch.uint8, device=device)
    sex_B = torch.ones(1, device=device)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    largest = 0

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        tensors = [item for item in (*inputs, output) if isinstance(item, torch.Tensor)]
        largest = max(largest, sum(tensor.nbytes for tensor in tensors))

    hooks = [module.register_forward_hook(note) for module in model.modules() if not list(module.children())]
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    model(image_BHW, sex_B)
    if is_cuda:
        largest = torch.cuda.max_memory_allocated(device) - before
    for hook in hooks:
        hook.remove()
    times = []
    for _ in range(WARM_UP + REPEATS):
        begin = time.perf_counter()
        model(image_BHW, sex_B).cpu()  # the copy waits for the device
        times.append(1000 * (time.perf_counter() - begin))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, statistics.median(times[WARM_UP:]), (weights + largest) / 2**20, device)
