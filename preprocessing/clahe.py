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

BINS = 128
BLUR = 3.0
"""Standard deviation, in grey levels, by which counts are smoothed: where a background of one level is clipped must not
depend on whether noise or a deeper file spreads it over a few. Bins may be coarser than levels because of it."""
_LEVELS = 255 / (BINS - 1)
"""Width of a bin, in grey levels."""


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
    place = np.clip(levels_SS, 0, 255).astype(np.float32, copy=False) * np.float32(1 / _LEVELS)
    maps = _maps(place, grid, clip)
    above, below = (
        cv2.remap(maps, tile_SS, place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for tile_SS in grid.tile_2SS
    )
    return above + (below - above) * grid.share_S1


@dataclass(frozen=True)
class _Grid:
    """Where the tiles lie; the same for all pictures of one size."""

    size: int
    """Side of a tile, in pixels."""
    tiles: int
    tile_PP: np.ndarray
    """Tile of each pixel; P is the side padded to whole tiles."""
    tile_2SS: np.ndarray
    """Place of each pixel between the two nearest tiles of the row above it, and of the row below, float32."""
    share_S1: np.ndarray
    """How much the row below counts."""


@lru_cache(maxsize=16)
def _grid(side: int, tiles: int) -> _Grid:
    size = -(-side // tiles)
    of = np.arange(tiles * size) // size
    place = np.clip((np.arange(side) + 0.5) / size - 0.5, 0, tiles - 1)
    above = np.minimum(place.astype(int), max(tiles - 2, 0))
    rows = np.stack([above, np.minimum(above + 1, tiles - 1)])
    tile_2SS = rows[:, :, None] * tiles + place[None, None, :]
    share_S1 = (place - above)[:, None]
    return _Grid(
        size, tiles, of[:, None] * tiles + of[None, :], tile_2SS.astype(np.float32), share_S1.astype(np.float32)
    )


def _maps(place_SS: np.ndarray, grid: _Grid, clip: float) -> np.ndarray:
    """``(BINS, tiles * tiles)`` float32 output level at each bin's middle, from each pixel's place among the bins."""
    num_tiles = grid.tiles**2
    padding = (0, len(grid.tile_PP) - len(place_SS))
    place_PP = np.pad(place_SS, padding, mode="reflect") if padding[1] else place_SS
    low_PP = np.minimum(place_PP.astype(np.int64), BINS - 2)
    key = (low_PP * num_tiles + grid.tile_PP).ravel()
    upper = np.bincount(key, (place_PP - low_PP).ravel(), num_tiles * BINS)
    counts = np.bincount(key, minlength=num_tiles * BINS) - upper
    counts[num_tiles:] += upper[:-num_tiles]  # a level between two middles counts for both, the last bin for none
    counts = counts.reshape(BINS, num_tiles).astype(np.float32)
    counts = cv2.GaussianBlur(counts, (0, 0), sigmaX=1e-6, sigmaY=BLUR / _LEVELS, borderType=cv2.BORDER_REFLECT)
    clipped = np.minimum(counts, np.float32(clip * grid.size**2 / BINS))
    counts = clipped + (counts - clipped).sum(axis=0) / np.float32(BINS)
    sums = cv2.integral(counts)  # five times faster than numpy.cumsum; along both sides, hence the difference
    up_to = (sums[1:, 1:] - sums[1:, :-1]).astype(np.float32)
    below = up_to - counts / 2  # half of a bin's own: the map is symmetric in dark and bright
    return below * np.float32(255 / grid.size**2)
