"""The radiograph as a page shows it: the file's own geometry, brightened as far as its levels allow."""

from dataclasses import dataclass

import cv2
import numpy as np

from preprocessing.radiograph import decode

LONG_SIDE = 1200
"""Pixels; more than a page shows at once, so that it can be looked at closely."""
SHARES = (0.5, 99.8)
"""Percentiles that become black and white: a marker or a plate's edge does not darken the hand."""


@dataclass(frozen=True)
class Picture:
    """A picture for the eye alone; no model sees it."""

    png: bytes
    width: int
    height: int
    full_width: int
    """Of the file."""
    full_height: int


def picture(data: bytes) -> Picture:
    """Make one.

    Args:
        data: A file in any format that `preprocessing.radiograph.decode` reads.

    Raises:
        RadiographError: The bytes hold no picture.
    """
    image_HW = decode(data)
    full_height, full_width = image_HW.shape
    scale = min(1.0, LONG_SIDE / max(full_height, full_width))
    width, height = max(1, round(full_width * scale)), max(1, round(full_height * scale))
    small = cv2.resize(image_HW, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = np.percentile(small, SHARES)
    shown = np.clip((small - low) * (255 / max(float(high - low), 1e-6)), 0, 255)
    png = cv2.imencode(".png", np.rint(shown).astype(np.uint8))[1].tobytes()
    return Picture(png, width, height, full_width, full_height)
