"""A few numbers that tell how prepared pictures look: where they move, a scanner, an export or a crop has changed."""

import cv2
import numpy as np

NAMES = ("brightness", "contrast", "sharpness", "blackness")


def appearance(pixels_VHW: np.ndarray) -> dict[str, float]:
    """Measure the first view.

    Args:
        pixels_VHW: ``(V, H, W)`` uint8, as a `Reader` makes them.

    Returns:
        ``brightness``: mean grey level, 0 to 255; ``contrast``: standard deviation, in grey levels; ``sharpness``: mean
        absolute Laplacian, in grey levels; ``blackness``: share of pixels that are wholly black, 0 to 1.
    """
    view_HW = pixels_VHW[0]
    mean, deviation = cv2.meanStdDev(view_HW)
    edges_HW = cv2.Laplacian(view_HW, cv2.CV_16S)
    return {
        "brightness": float(mean[0, 0]),
        "contrast": float(deviation[0, 0]),
        "sharpness": float(cv2.norm(edges_HW, cv2.NORM_L1)) / edges_HW.size,
        "blackness": 1.0 - cv2.countNonZero(view_HW) / view_HW.size,
    }
