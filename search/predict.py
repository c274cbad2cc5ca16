"""Predictions of a network, as the server makes them.

Shape letters: N cases, S side, M monthly bins.
"""

from collections.abc import Callable

import numpy as np
import torch

from search.memory import is_out_of_memory
from search.model import BoneAgeNet

BATCH = 64


@torch.inference_mode()
def predict(model: BoneAgeNet, pixels_NSS: np.ndarray, sex_N: np.ndarray, rows: np.ndarray, device: str) -> np.ndarray:
    """Predict some cases in full precision: float32, without a GPU's shortened products, uncompiled.

    Args:
        model: Trained on the view that `pixels_NSS` shows.
        pixels_NSS: ``(N, S, S)`` uint8, the view's pictures of all cases.
        sex_N: ``(N,)`` float32, `sex_codes`.
        rows: Which cases.
        device: Where.

    Returns:
        ``(len(rows), 240)`` float32 probabilities over months.

    Raises:
        RuntimeError: Not even one picture fits into memory.
    """

    def probabilities(batch: np.ndarray, images: torch.Tensor) -> torch.Tensor:
        return model(images, torch.from_numpy(sex_N[batch]).to(device)).softmax(dim=1)

    return _in_batches(model, probabilities, pixels_NSS, rows, device)


@torch.inference_mode()
def guess_male(model: BoneAgeNet, pixels_NSS: np.ndarray, rows: np.ndarray, device: str) -> np.ndarray | None:
    """Probability of male that some pictures show, ``(len(rows),)`` float32; None of a network that does not guess it.

    Arguments and errors as in `predict`.
    """
    if model.sex_guess is None:
        return None

    def guesses(batch: np.ndarray, images: torch.Tensor) -> torch.Tensor:
        guess = model.male_probability(model.maps(images))
        assert guess is not None
        return guess.float()

    return _in_batches(model, guesses, pixels_NSS, rows, device)


def _in_batches(
    model: BoneAgeNet,
    compute: Callable[[np.ndarray, torch.Tensor], torch.Tensor],
    pixels_NSS: np.ndarray,
    rows: np.ndarray,
    device: str,
) -> np.ndarray:
    """What is computed of rows and their pictures, in smaller batches where memory runs out."""
    model.eval()
    parts: list[np.ndarray] = []
    start, size = 0, BATCH
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.compiler.set_stance("force_eager"):
        while start < len(rows):
            batch = rows[start : start + size]
            try:
                images = torch.from_numpy(np.ascontiguousarray(pixels_NSS[batch])).to(device)
                parts.append(compute(batch, images).cpu().numpy())
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                size //= 2
                continue
            start += size
    return np.concatenate(parts)
