"""From colour to grey: a radiograph stored in colour is grey, a photograph is refused."""

import numpy as np

from preprocessing.limits import RadiographError

COLOUR_TOLERANCE = 0.1
"""A pixel counts as coloured when its channels differ by more than this share of full scale. JPEG's own colour
error on a grey picture stays below 0.02, and faintly toned film below 0.1."""
MAX_COLOURED_SHARE = 0.05
"""A picture with more coloured pixels than this is a photograph; a marker, ruler or outline in colour has fewer."""

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_MAX_SAMPLES = 1 << 18


def to_grey(image: np.ndarray) -> np.ndarray:
    """Grey levels of a picture in grey or colour, transparency laid over black.

    Args:
        image: ``(H, W)`` any integers, or ``(H, W, 3)`` or ``(H, W, 4)`` uint8 or uint16, red first, alpha last.

    Returns:
        ``(H, W)`` uint8 or uint16, contiguous.

    Raises:
        RadiographError: ``colour_photograph``, or ``unsupported_format`` where 16 bits do not hold the grey levels.
    """
    if image.ndim == 3:
        check_colour(image)
        grey = image[..., :3].astype(np.float32) @ _LUMINANCE
        if image.shape[2] == 4:
            grey *= image[..., 3].astype(np.float32) / np.iinfo(image.dtype).max
        image = np.rint(grey).astype(image.dtype)
    if image.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(image)
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    low, high = int(image.min()), int(image.max())
    offset = min(low, 0)
    if image.dtype.kind not in "iu" or high - offset > 65535:
        raise RadiographError(
            "unsupported_format",
            "Grey levels must be integers of at most 16 bits; this file stores more. Export it with 16 bits.",
        )
    return np.ascontiguousarray(image - offset, dtype=np.uint16)


def check_colour(image: np.ndarray) -> None:
    """Refuse a photograph: ``(H, W, 3)`` or ``(H, W, 4)`` uint8 or uint16."""
    step = int(np.ceil(np.sqrt(image.shape[0] * image.shape[1] / _MAX_SAMPLES)))
    sample = image[::step, ::step].astype(np.float32)
    full = np.iinfo(image.dtype).max
    spread = np.ptp(sample[..., :3], axis=2)
    if image.shape[2] == 4:
        spread *= sample[..., 3] / full
    share = float((spread > COLOUR_TOLERANCE * full).mean())
    if share > MAX_COLOURED_SHARE:
        raise RadiographError(
            "colour_photograph",
            f"A radiograph is grey: at most {MAX_COLOURED_SHARE:.0%} of its pixels may be coloured, in this picture "
            f"{share:.0%} are. Send the radiograph itself, not a photograph.",
        )
