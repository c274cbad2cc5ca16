"""The grid of months that every network's answer lies on. Shape letters: B batch, M monthly bins."""

import numpy as np
import torch
from torch import Tensor

NUM_BINS = 240
"""Bins of one month: 0 up to 239 months."""
BIN_MONTHS = np.arange(NUM_BINS, dtype=np.float32)
"""``(M,)`` bone age that each bin stands for, in months."""


def grid(like: Tensor) -> Tensor:
    """`BIN_MONTHS` as a tensor of the type and on the device of another."""
    return torch.arange(NUM_BINS, dtype=like.dtype, device=like.device)


def expected_months(logits_BM: Tensor) -> Tensor:
    """Mean of the predicted distribution, ``(B,)``, in months."""
    return logits_BM.softmax(dim=1) @ grid(logits_BM)
