"""Contrast-limited adaptive histogram equalisation that is continuous in its input.

OpenCV's works on whole levels: at 8 bits two copies of one radiograph that differ by a rounding end up several levels
apart, and at 16 bits a small tile has fewer pixels than levels, so that the clip limit no longer limits anything. Here
levels are fractions, counts are smooth, and the map is linear within a bin.

Source: Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

BINS = 256
BLUR = 3.0
"""Standard deviation, in bins, by which counts are smoothed: where a background of one level is clipped must not depend
on whether noise or a deeper file spreads it over a few."""


def equalise(levels_SS: np.ndarray, clip: float, tiles: int) -> np.ndarray:
    """Equalise each neighbourhood, its contrast raised by about `clip` at most.

    Args:
        levels_SS: ``(S, S)`` floating point within 0..255.
        clip: Limit of a bin's count, in counts of a flat histogram.
        tiles: Along each side; their maps are mixed bilinearly between the tiles' middles.

    Returns:
        ``(S, S)`` float32 within 0..255.
    """
    grid = _grid(levels_SS.shape[0], tiles)
    levels = np.clip(levels_SS, 0, BINS - 1).astype(np.float32)
    low_SS = np.minimum(levels.astype(np.intp), BINS - 2)
    within_SS = levels - low_SS.astype(np.float32)
    maps = _maps(low_SS, within_SS, grid, clip).ravel()
    rise = np.diff(maps, append=maps[-1:])
    at = grid.maps_4SS + low_SS
    return ((maps.take(at) + rise.take(at) * within_SS) * grid.shares_4SS).sum(axis=0)


@dataclass(frozen=True)
class _Grid:
    """Where the tiles lie; the same for all pictures of one size."""

    size: int
    """Side of a tile, in pixels."""
    tiles: int
    bins_PP: np.ndarray
    """First bin of the tile of each pixel; P is the side padded to whole tiles."""
    maps_4SS: np.ndarray
    """First bin of the four tiles that each pixel lies between."""
    shares_4SS: np.ndarray
    """How much each of them counts."""


@lru_cache(maxsize=16)
def _grid(side: int, tiles: int) -> _Grid:
    size = -(-side // tiles)
    of = np.arange(tiles * size) // size
    place = np.clip((np.arange(side) + 0.5) / size - 0.5, 0, tiles - 1)
    before = np.minimum(place.astype(int), max(tiles - 2, 0))
    after, share = np.minimum(before + 1, tiles - 1), place - before
    ends = ((before, 1 - share), (after, share))
    maps = [(rows[:, None] * tiles + columns[None, :]) * BINS for rows, _ in ends for columns, _ in ends]
    shares = [rows[:, None] * columns[None, :] for _, rows in ends for _, columns in ends]
    return _Grid(
        size, tiles, (of[:, None] * tiles + of[None, :]) * BINS, np.stack(maps), np.stack(shares).astype(np.float32)
    )


def _maps(low_SS: np.ndarray, within_SS: np.ndarray, grid: _Grid, clip: float) -> np.ndarray:
    """``(tiles * tiles, BINS)`` float32 output level at each whole input level."""
    padding = (0, len(grid.bins_PP) - len(low_SS))
    key = (grid.bins_PP + np.pad(low_SS, padding, mode="reflect")).ravel()
    upper = np.bincount(key, np.pad(within_SS, padding, mode="reflect").ravel(), grid.tiles**2 * BINS)
    counts = np.bincount(key, minlength=grid.tiles**2 * BINS) - upper
    counts[1:] += upper[:-1]  # a level between two whole ones counts for both; the last bin never has an upper share
    counts = counts.reshape(-1, BINS).astype(np.float32)
    counts = cv2.GaussianBlur(counts, (0, 0), sigmaX=BLUR, sigmaY=1e-6, borderType=cv2.BORDER_REFLECT)
    clipped = np.minimum(counts, np.float32(clip * grid.size**2 / BINS))
    counts = clipped + (counts - clipped).sum(axis=1, keepdims=True) / BINS
    below = np.cumsum(counts, axis=1) - counts / 2  # half of a bin's own: the map is symmetric in dark and bright
    return below * np.float32((BINS - 1) / grid.size**2)
