"""In which numbers a network computes while it trains. Predictions are always made in float32."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """Precision and memory layout on one kind of device. Weights, loss and optimiser stay float32 in each of them."""

    precision: str = "fp32"
    """``fp32``, ``bf16`` or ``fp16`` (with scaled gradients), by autocast."""
    channels_last: bool = True
    """Whether the channels of a pixel lie side by side in memory."""
    compiled: bool = False
    """Whether forward pass and loss are compiled (torch.compile)."""

    def autocast(self, device: str) -> torch.autocast:
        """The context of a forward pass."""
        is_mixed = self.precision != "fp32"
        dtype = DTYPES[self.precision] if is_mixed else None
        return torch.autocast(torch.device(device).type, dtype, enabled=is_mixed)


def available(device: str) -> list[str]:
    """Precisions that a device computes in hardware, ``fp32`` first, then by how safe their range is."""
    kind = torch.device(device).type
    if kind == "cuda":
        return ["fp32", "bf16", "fp16"] if torch.cuda.is_bf16_supported(including_emulation=False) else ["fp32", "fp16"]
    if kind == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return ["fp32", "bf16"]
    return ["fp32"]


def fixed(precision: str, device: str) -> Numerics:
    """The numerics of a precision that the configuration names; nothing is measured.

    Raises:
        ValueError: The device has no such precision.
    """
    kind = torch.device(device).type
    if precision == "fp16" and kind != "cuda":
        raise ValueError(f"precision 'fp16' needs a CUDA device, got {kind!r}. Choose 'bf16', 'fp32' or 'auto'.")
    return Numerics(precision)


@contextmanager
def reproducible(is_wanted: bool) -> Iterator[None]:
    """Inside, no operation of torch gives now these bits and now others; not wanted, nothing changes.

    An operation that has no such form raises torch's own RuntimeError, which names it.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if is_wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def device_name(device: str) -> str:
    """What a person calls the device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
