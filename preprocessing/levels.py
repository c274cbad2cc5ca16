"""Percentiles of grey levels, by the radix sort that NumPy has for 8 and 16 bit.

Shape letters: H height, W width; h, w of the sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_MAX_SAMPLES = 1 << 16
"""A quarter of it would move the percentiles of small pictures by tens of grey levels."""


@dataclass(frozen=True)
class Sample:
    """Evenly spaced pixels of a picture, sorted once for all who ask."""

    step: int
    """Between them, in pixels."""
    levels_hw: np.ndarray
    """As they lie, of the picture's type."""
    ordered: np.ndarray
    """``(h * w,)``, ascending."""

    def percentiles(self, shares: Sequence[float]) -> tuple[float, ...]:
        """As the function of that name."""
        return _between(self.ordered, shares)


def sample(image_HW: np.ndarray, *, quantum: int = 1) -> Sample:
    """Take at most 65,536 pixels of a picture: their percentiles are its own to a grey level.

    Args:
        image_HW: uint8 or uint16.
        quantum: Of which every level is a multiple: 257 where a picture of 8 bits was spread over 16. Such levels are
            counted, which is three times faster than sorting them.
    """
    step = int(np.ceil(np.sqrt(image_HW.size / _MAX_SAMPLES)))
    levels = np.ascontiguousarray(image_HW[::step, ::step])
    if quantum == 1:
        return Sample(step, levels, _ordered(levels))
    counts = cv2.calcHist([(levels >> 8).astype(np.uint8)], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return Sample(step, levels, np.repeat(np.arange(256, dtype=np.uint16) * np.uint16(quantum), counts))


def percentiles(levels: np.ndarray, shares: Sequence[float]) -> tuple[float, ...]:
    """The same numbers as `numpy.percentile`, interpolated between neighbours, five to ten times faster.

    Args:
        levels: uint8 or uint16 of any shape, one or more.
        shares: Within 0..100.

    Raises:
        ValueError: Another type, or none.
    """
    if levels.dtype not in (np.uint8, np.uint16) or not levels.size:
        raise ValueError(f"One level of 8 or 16 bit or more is needed, got {levels.size} of {levels.dtype}.")
    return _between(_ordered(levels), shares)


def _ordered(levels: np.ndarray) -> np.ndarray:
    return np.sort(levels, axis=None, kind="stable")  # only the stable kind sorts by radix


def _between(ordered: np.ndarray, shares: Sequence[float]) -> tuple[float, ...]:
    found = []
    for share in shares:
        place = share / 100 * (ordered.size - 1)
        low, high = (float(ordered[i]) for i in (int(place), min(int(place) + 1, ordered.size - 1)))
        found.append(low + (high - low) * (place - int(place)))
    return tuple(found)
