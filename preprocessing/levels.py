"""Percentiles of grey levels by counting them, which is five to thirty times faster than sorting them."""

from collections.abc import Sequence

import cv2
import numpy as np

_EXACT = 1 << 24
"""OpenCV counts in float32, which holds whole numbers up to here."""


def percentiles(levels: np.ndarray, shares: Sequence[float]) -> tuple[float, ...]:
    """The same numbers as `numpy.percentile`, interpolated between neighbours.

    Args:
        levels: uint8 or uint16 of any shape, 1 to 16,777,216 of them.
        shares: Within 0..100.

    Raises:
        ValueError: Another type, or another number of levels.
    """
    if levels.dtype not in (np.uint8, np.uint16) or not 0 < levels.size <= _EXACT:
        raise ValueError(f"1 to {_EXACT:,} levels of 8 or 16 bit are needed, got {levels.size:,} of {levels.dtype}.")
    places = np.asarray(shares, np.float64) / 100 * (levels.size - 1)
    ranks = np.floor(places).astype(np.int64)
    ranks = np.stack([ranks, np.minimum(ranks + 1, levels.size - 1)])
    low, high = (_ranked8 if levels.dtype == np.uint8 else _ranked16)(levels.ravel(), ranks)
    return tuple((low + (high - low) * (places - ranks[0])).tolist())


def _ranked8(levels: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Levels at places of the sorted order."""
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256])
    return np.searchsorted(counts.ravel().cumsum(), ranks, side="right").astype(np.float64)


def _ranked16(levels: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The same in two steps of 8 bits: counting 65,536 levels costs more than counting 256 several times."""
    coarse = (levels >> 8).astype(np.uint8)
    reached = cv2.calcHist([coarse], [0], None, [256], [0, 256]).ravel().cumsum()
    bins = np.searchsorted(reached, ranks, side="right")
    found = np.empty(ranks.shape)
    for number in np.unique(bins):
        there = bins == number
        fine = (levels[coarse == number] & 255).astype(np.uint8)
        before = reached[number - 1] if number else 0
        found[there] = 256 * number + _ranked8(fine, ranks[there] - before)
    return found
