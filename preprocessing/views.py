"""The pictures that are made of one radiograph: whole, cut to the hand, or with nothing but the hand.

Shape letters: H height, W width, S side of the model input.
"""

import cv2
import numpy as np

from preprocessing.clahe import equalise
from preprocessing.hand import Hand, hand_levels, warp, window_matrix
from preprocessing.levels import Sample, percentiles
from preprocessing.recipe import Recipe
from preprocessing.segmenter import SIDE

CROP_LENGTHS = 1.3
"""Side of the crop, in lengths from wrist to middle fingertip. On real radiographs the hand above the wrist reaches
from -0.47 to 0.60 across and to 1.07 upwards (n = 132); the ends of radius and ulna lie within 0.15 below the wrist."""
CROP_MIDDLE = (0.06, 0.45)
"""Hand coordinates of its middle: the thumb reaches further than the little finger."""
_MARGIN = 0.03
"""Lengths of the hand by which the mask is widened before anything outside it is dropped: skin stays."""


def make_view(image_HW: np.ndarray, name: str, recipe: Recipe, hand: Hand | None, sample: Sample) -> np.ndarray:
    """Make one picture.

    The arithmetic runs in float32, so that a 16-bit file loses nothing before the last rounding.

    Args:
        image_HW: ``(H, W)`` grey levels, uint8 or uint16, bone brighter than background.
        name: ``full``, ``crop`` or ``masked``.
        recipe: The steps.
        hand: Where the hand lies; ``full`` does without.
        sample: Of the picture.

    Returns:
        ``(S, S)`` uint8; aspect ratio kept.
    """
    side = recipe.size
    low, high = contrast_limits(sample, recipe, None if name == "full" else hand)
    pad = low if recipe.pad == "black" else high
    keep_SS = None
    if name == "full" and not (recipe.align and hand):
        window_SS, keep_SS = _fitted(image_HW, side, pad)
    else:
        affine = view_matrix(image_HW.shape, name, recipe, hand)
        window_SS = warp(image_HW, affine, side, border=pad)
        if name == "masked":
            assert hand is not None, "view_matrix asks for it"
            keep_SS = _mask(hand, affine, side)
    levels_SS = (np.clip(window_SS, low, high) - np.float32(low)) * np.float32(255 / (high - low))
    if recipe.clahe_clip > 0:
        levels_SS = equalise(levels_SS, recipe.clahe_clip, recipe.clahe_tiles)
    if recipe.subtract_mean:  # 128 stands for the mean, since pixels are stored without a sign
        inside = levels_SS if keep_SS is None else levels_SS[keep_SS]
        levels_SS = levels_SS - inside.mean() + 128 if inside.size else levels_SS
    if keep_SS is not None:
        levels_SS = np.where(keep_SS, levels_SS, np.float32(0 if recipe.pad == "black" else 255))
    return np.rint(np.clip(levels_SS, 0, 255)).astype(np.uint8)


def view_matrix(shape_HW: tuple[int, ...], name: str, recipe: Recipe, hand: Hand | None) -> np.ndarray:
    """Where a view lies: ``(2, 3)`` affine matrix from pixels of the picture to those of the view, centres at integers.

    Args:
        shape_HW: Height and width of the picture.
        name: As in `make_view`.
        recipe: As there.
        hand: As there.
    """
    if name == "full" and not (recipe.align and hand):
        rows, columns, top, left = _fit(shape_HW, recipe.size)
        x, y = columns / shape_HW[1], rows / shape_HW[0]
        return np.array([[x, 0.0, (x - 1) / 2 + left], [0.0, y, (y - 1) / 2 + top]])
    if hand is None:
        raise ValueError(f"The view {name} needs a hand; name a segmenter in the recipe.")
    return _whole(shape_HW, hand, recipe.size) if name == "full" else _crop(hand, recipe.size, recipe)


def lay_over(to_view: np.ndarray) -> list[float]:
    """The matrix with which a page lays a view over the picture, as CSS and SVG write it: ``matrix(a, b, c, d, e, f)``.

    Args:
        to_view: ``(2, 3)`` affine from the picture's pixels to the view's, whose integers are pixels' centres. CSS and
            SVG count from pixels' edges.

    Returns:
        a to f: the view's (x, y) lies at (a x + c y + e, b x + d y + f) of the picture.
    """
    back = cv2.invertAffineTransform(np.asarray(to_view, np.float64))
    offset = back[:, 2] + 0.5 - back[:, :2] @ (0.5, 0.5)
    return [round(float(value), 6) for value in (*back[:, 0], *back[:, 1], *offset)]


def hand_in_view(image_HW: np.ndarray, name: str, recipe: Recipe, hand: Hand) -> np.ndarray:
    """Pixels of a view that show the hand, skin and forearm included, ``(S, S)`` bool; arguments as in `make_view`."""
    side = recipe.size
    if name == "full" and not recipe.align:
        mask, _ = _fitted(hand.mask(image_HW.shape).astype(np.float32), side, 0.0)
        return mask > 0.5
    return _mask(hand, view_matrix(image_HW.shape, name, recipe, hand), side)


def contrast_limits(sample: Sample, recipe: Recipe, hand: Hand | None) -> tuple[float, float]:
    """Grey levels between which the picture is shown: percentiles of the hand where one is known, else of all of it.

    They are read from the file's own levels at full depth. Frames, markers and burnt-in text beside the hand do not
    touch them.

    Args:
        sample: Of the picture at full depth.
        recipe: Its `clip_percentiles`.
        hand: Whose pixels count; None for all pixels.

    Returns:
        Two different levels, low before high.
    """
    shares = recipe.clip_percentiles
    low, high = sample.percentiles(shares) if hand is None else percentiles(hand_levels(sample, hand), shares)
    if high <= low:  # a mostly black or mostly white picture may still hold a small hand
        low, high = float(sample.ordered[0]), float(sample.ordered[-1])
    return low, max(high, low + 1)


def _crop(hand: Hand, side: int, recipe: Recipe) -> np.ndarray:
    return window_matrix(hand.pose, side, align=recipe.align, lengths=CROP_LENGTHS, middle=CROP_MIDDLE)


def _fitted(image_HW: np.ndarray, side: int, pad: float) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture in the middle of a square, and where it lies there."""
    rows, columns, top, left = _fit(image_HW.shape, side)
    interpolation = cv2.INTER_AREA if side < max(image_HW.shape) else cv2.INTER_LINEAR
    square, inside = np.full((side, side), pad, np.float32), np.zeros((side, side), bool)
    place = slice(top, top + rows), slice(left, left + columns)
    square[place] = cv2.resize(image_HW, (columns, rows), interpolation=interpolation)
    inside[place] = True
    return square, inside


def _fit(shape_HW: tuple[int, ...], side: int) -> tuple[int, int, int, int]:
    """Rows and columns that a picture takes in the square, and where they begin."""
    scale = side / max(shape_HW)
    rows, columns = (max(1, round(length * scale)) for length in shape_HW)
    return rows, columns, (side - rows) // 2, (side - columns) // 2


def _whole(shape_HW: tuple[int, ...], hand: Hand, side: int) -> np.ndarray:
    """The affine matrix that turns the whole picture upright and fits it into the square."""
    height, width = shape_HW
    affine = window_matrix(hand.pose, side)
    corners = np.array([(0, 0, 1), (width - 1, 0, 1), (0, height - 1, 1), (width - 1, height - 1, 1)]) @ affine.T
    low, high = corners.min(0), corners.max(0)
    scale = (side - 1) / float((high - low).max())
    middle = (low + high) / 2
    return np.column_stack([affine[:, :2] * scale, (affine[:, 2] - middle) * scale + (side - 1) / 2])


def _mask(hand: Hand, affine: np.ndarray, side: int) -> np.ndarray:
    """Pixels of the view that show the hand, widened by the margin."""
    window = window_matrix(hand.pose, SIDE)
    linear = affine[:, :2] @ np.linalg.inv(window[:, :2])
    mask = cv2.warpAffine(
        hand.window_mask, np.column_stack([linear, affine[:, 2] - linear @ window[:, 2]]), (side, side)
    )
    reach = 2 * round(_MARGIN * side / CROP_LENGTHS) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return cv2.dilate((mask > 0.5).astype(np.uint8), disc) > 0
