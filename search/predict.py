"""Predictions of a network, as the server makes them.

Shape letters: N cases, S side, M monthly bins.
"""

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
    model.eval()
    parts: list[np.ndarray] = []
    start, size = 0, BATCH
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.compiler.set_stance("force_eager"):
        while start < len(rows):
            batch = rows[start : start + size]
            try:
                images = torch.from_numpy(np.ascontiguousarray(pixels_NSS[batch])).to(device)
                logits = model(images, torch.from_numpy(sex_N[batch]).to(device))
                parts.append(logits.softmax(dim=1).cpu().numpy())
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                size //= 2
                continue
            start += size
    return np.concatenate(parts)


@torch.inference_mode()
def guess_male(model: BoneAgeNet, pixels_NSS: np.ndarray, rows: np.ndarray, device: str) -> np.ndarray | None:
    """Probability of male that some pictures show, ``(len(rows),)`` float32; None of a network that does not guess it.

    Arguments as in `predict`, whose batches fit into memory: this is done after it.
    """
    if model.sex_guess is None:
        return None
    model.eval()
    guesses = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.compiler.set_stance("force_eager"):
        for start in range(0, len(rows), BATCH):
            images = torch.from_numpy(np.ascontiguousarray(pixels_NSS[rows[start : start + BATCH]])).to(device)
            guess = model.male_probability(model.maps(images))
            assert guess is not None
            guesses.append(guess.float().cpu().numpy())
    return np.concatenate(guesses)
