"""Contrast-limited adaptive histogram equalisation that is continuous in its input.

OpenCV's works on whole levels: at 8 bits two copies of one radiograph that differ by a rounding end up several levels
apart, and at 16 bits a small tile has fewer pixels than levels, so that the clip limit no longer limits anything. Here
levels are fractions, counts are smooth, and the map is linear within a bin.

Source: Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994.
"""

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
    side = levels_SS.shape[0]
    size = -(-side // tiles)
    padded = np.pad(levels_SS.astype(np.float64), (0, size * tiles - side), mode="reflect")
    maps_TTK = _maps(padded, size, tiles, clip)
    # Which two tiles each row (and column) lies between, and how far it is from the first.
    place = np.clip((np.arange(side) + 0.5) / size - 0.5, 0, tiles - 1)
    before = np.minimum(place.astype(int), max(tiles - 2, 0))
    after, share = np.minimum(before + 1, tiles - 1), place - before
    levels = np.clip(levels_SS.astype(np.float64), 0, BINS - 1)
    low = np.minimum(levels.astype(int), BINS - 2)
    within = levels - low
    result = np.zeros(levels_SS.shape)
    for rows, row_share in ((before, 1 - share), (after, share)):
        for columns, column_share in ((before, 1 - share), (after, share)):
            r, c = rows[:, None], columns[None, :]
            mapped = maps_TTK[r, c, low] * (1 - within) + maps_TTK[r, c, low + 1] * within
            result += row_share[:, None] * column_share[None, :] * mapped
    return result.astype(np.float32)


def _maps(padded: np.ndarray, size: int, tiles: int, clip: float) -> np.ndarray:
    """``(tiles, tiles, BINS)`` output level at each whole input level."""
    tile = (np.arange(tiles * size) // size)[:, None] * tiles + (np.arange(tiles * size) // size)[None, :]
    levels = np.clip(padded, 0, BINS - 1)
    low = np.minimum(levels.astype(int), BINS - 2)
    share = (levels - low).ravel()
    key = (tile * BINS + low).ravel()
    counts = np.bincount(key, 1 - share, tiles * tiles * BINS) + np.bincount(key + 1, share, tiles * tiles * BINS)
    counts = counts.reshape(tiles * tiles, BINS)
    counts = cv2.GaussianBlur(counts, (0, 0), sigmaX=BLUR, sigmaY=1e-6, borderType=cv2.BORDER_REFLECT)
    limit = clip * size * size / BINS
    excess = np.maximum(counts - limit, 0).sum(axis=1, keepdims=True)
    counts = np.minimum(counts, limit) + excess / BINS
    below = np.cumsum(counts, axis=1) - counts / 2  # half of a bin's own: the map is symmetric in dark and bright
    return (below * ((BINS - 1) / (size * size))).reshape(tiles, tiles, BINS)
