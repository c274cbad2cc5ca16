"""Marks drawn over a radiograph: the outline of a mask, the axes of a hand.

Shape letters: H height, W width.
"""

import cv2
import numpy as np

from preprocessing.hand import compose
from preprocessing.pose import Pose

OUTLINE, AXIS = (45, 212, 191), (251, 146, 60)
"""Red, green, blue."""
_FINE = 4
"""A mask is outlined on a grid finer by this factor, so that a small one does not look like stairs."""
_SHIFT = 4
"""Bits after the point in the coordinates that OpenCV draws at."""


def canvas(image_HW: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey picture as one to draw on.

    Args:
        image_HW: ``(H, W)`` uint8.
        side: Its longer side becomes so many pixels.

    Returns:
        ``(H', W', 3)`` uint8, red first; ``(2, 3)`` affine matrix from pixels of the one to pixels of the other.
    """
    height, width = image_HW.shape
    scale = side / max(height, width)
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image_HW, (columns, rows), interpolation=smooth)
    x, y = columns / width, rows / height  # pixel centres lie at whole numbers
    return cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB), np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5]])


def draw_outline(picture_HW3: np.ndarray, mask_HW: np.ndarray, affine: np.ndarray) -> None:
    """Draw where a mask of probabilities passes one half.

    Args:
        picture_HW3: Drawn on in place.
        mask_HW: float32, of any size.
        affine: ``(2, 3)``, from its pixels to those of the picture.
    """
    fine = cv2.resize(mask_HW, None, fx=_FINE, fy=_FINE, interpolation=cv2.INTER_LINEAR)
    traced, _ = cv2.findContours((fine > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for contour in traced:
        points_N2 = (contour[:, 0] + 0.5) / _FINE - 0.5
        _polyline(picture_HW3, points_N2 @ affine[:, :2].T + affine[:, 2], OUTLINE, is_closed=True)


def draw_axes(picture_HW3: np.ndarray, pose: Pose, affine: np.ndarray) -> None:
    """Draw a hand's frame: wrist to tip of the middle finger, and a short arm towards the thumb.

    Args:
        picture_HW3: Drawn on in place.
        pose: Of the hand.
        affine: ``(2, 3)``, from its pixels to those of the picture.
    """
    frame = compose(affine, pose.matrix())
    wrist, tip, thumb = (frame[:, :2] @ point + frame[:, 2] for point in ((0.0, 0.0), (0.0, 1.0), (0.25, 0.0)))
    _polyline(picture_HW3, np.array([thumb, wrist, tip]), AXIS, is_closed=False)
    for point, radius in ((wrist, 6), (tip, 4)):
        if np.abs(point).max() < 1e4:
            cv2.circle(picture_HW3, [round(float(x)) for x in point], radius, AXIS, -1, cv2.LINE_AA)


def _polyline(picture_HW3: np.ndarray, points_N2: np.ndarray, colour: tuple[int, int, int], *, is_closed: bool) -> None:
    """Draw at a fraction of a pixel."""
    fixed = np.rint(np.clip(points_N2, -1e4, 1e4) * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(picture_HW3, [fixed], is_closed, colour, 2, cv2.LINE_AA, _SHIFT)
