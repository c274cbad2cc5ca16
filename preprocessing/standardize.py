"""From grey levels to model input: the one code path that training, batch scoring and the server share."""

import cv2
import numpy as np

from preprocessing.radiograph import RadiographError, decode
from preprocessing.recipe import Recipe

_MAX_SAMPLES = 1 << 18
"""Percentiles are taken on at most this many evenly spaced pixels: the same to a grey level, and ten times faster."""


def read(data: bytes, recipe: Recipe) -> np.ndarray:
    """Decode and standardise one file.

    Args:
        data: The whole file, in any format that `decode` reads.
        recipe: The settings.

    Returns:
        ``(recipe.size, recipe.size)`` uint8.

    Raises:
        RadiographError: The bytes hold no usable picture.
    """
    return standardize(decode(data), recipe)


def standardize(image_HW: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Saturate, rescale to 0..255 and fit the radiograph into a black square.

    The arithmetic runs in float32, so that a 16-bit file loses nothing before the last rounding.

    Args:
        image_HW: ``(H, W)`` grey levels, uint8 or uint16, bone brighter than background.
        recipe: Output size and percentiles.

    Returns:
        ``(recipe.size, recipe.size)`` uint8; aspect ratio kept, padding is 0.

    Raises:
        RadiographError: Code ``blank``: the picture is constant, so it holds no radiograph.
    """
    step = int(np.ceil(np.sqrt(image_HW.size / _MAX_SAMPLES)))
    low, high = np.percentile(image_HW[::step, ::step], recipe.clip_percentiles)
    if high <= low:  # a mostly black or mostly white picture may still hold a small hand
        low, high = float(image_HW.min()), float(image_HW.max())
    if high <= low:
        raise RadiographError("blank", f"All pixels have the grey level {int(low)}: there is nothing to read.")
    height, width = image_HW.shape
    scale = recipe.size / max(height, width)
    new_height, new_width = (max(1, round(side * scale)) for side in (height, width))
    stretched = (np.clip(image_HW.astype(np.float32), low, high) - np.float32(low)) * np.float32(255 / (high - low))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(stretched, (new_width, new_height), interpolation=interpolation)
    square = np.zeros((recipe.size, recipe.size), np.uint8)
    top, left = (recipe.size - new_height) // 2, (recipe.size - new_width) // 2
    square[top : top + new_height, left : left + new_width] = np.rint(np.clip(resized, 0, 255))
    return square
