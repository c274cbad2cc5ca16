"""A contact sheet of the augmentation: one case a row, one strength a column, under each what was done to it."""

import cv2
import numpy as np

from preprocessing.augment import Change, draw_change
from preprocessing.strength import limits
from preprocessing.warp import warp_on_host

STRENGTHS = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
_LABEL_PX = 16
"""Height of a line of text."""
_GAP_PX = 4


def contact_sheet(images_NHW: np.ndarray, labels: list[str], seed: int = 0) -> np.ndarray:
    """Draw the sheet.

    A row shows one drawn change growing with the strength, since stronger is the same change, further.

    Args:
        images_NHW: ``(N, S, S)`` uint8.
        labels: What each case is called.
        seed: Of the changes; row i shows case i in epoch 0.

    Returns:
        Grey levels, uint8.
    """
    side = images_NHW.shape[1]
    rows = [_line([f"strength {strength:g}" for strength in STRENGTHS], side)]
    for case, (image_HW, label) in enumerate(zip(images_NHW, labels, strict=True)):
        pictures, captions = [], []
        for strength in STRENGTHS:
            change = draw_change(limits(strength), seed, case, 0)
            changed_HW = warp_on_host(change.paint(image_HW), change.pose) if strength else image_HW
            pictures.append(np.pad(changed_HW, ((0, 0), (0, _GAP_PX)), constant_values=255))
            captions.append(describe(change) if strength else label)
        rows += [np.hstack(pictures), _line(captions, side)]
    return np.vstack(rows)


def describe(change: Change) -> str:
    """Say in a few words what a change does."""
    pose = change.pose
    words = [f"{pose.rotation_deg:+.0f} deg x{pose.zoom:.2f}", "mirrored" * pose.is_mirrored]
    words += ["clahe" * change.has_clahe, "sharp" * (change.is_sharpened and not change.blur_side)]
    words += ["blur" * bool(change.blur_side), "noise" * bool(change.noise_sd)]
    if change.marker:
        words.append("plate" if change.marker.is_plate else "marker")
    if change.border:
        words.append("border")
    words.append("INVERTED" * change.is_inverted)
    return " ".join(filter(None, words))


def _line(texts: list[str], side: int) -> np.ndarray:
    """A line of captions, each cut to its column."""
    cells = []
    for text in texts:
        cell = np.full((_LABEL_PX, side), 255, np.uint8)
        cv2.putText(cell, text, (2, _LABEL_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.32, 0, 1, cv2.LINE_AA)
        cells.append(np.pad(cell, ((0, 0), (0, _GAP_PX)), constant_values=255))
    return np.hstack(cells)
