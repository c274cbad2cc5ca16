"""Pictures to learn hand segmentation from: drawn or real pairs, thrown into every pose, exposure and frame.

What the network must not rely on is varied far beyond what is ever met (domain randomisation, Tobin et al., IROS
2017), so that weights learnt from drawn hands serve on real radiographs.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from preprocessing.pose import Pose
from preprocessing.segmenter import SIDE, stretched
from preprocessing.segmenter_pairs import Pair

DrawWrong = Callable[[np.random.Generator], np.ndarray]
"""Draws ``(H, W)`` uint8 that is no hand."""

_WRONG, _TWO_HANDS, _INVERTED = 0.22, 0.06, 0.25


@dataclass(frozen=True)
class Sample:
    """What the network sees once, and should answer."""

    image_SS: np.ndarray
    """uint8."""
    mask_SS: np.ndarray
    """float32, 0 or 1."""
    coordinates_SS2: np.ndarray
    """float32."""
    has_pose: bool
    is_hand: bool
    is_inverted: bool


def draw_sample(pairs: list[Pair], draw_wrong: DrawWrong, rng: np.random.Generator) -> Sample:
    """Draw one sample.

    Args:
        pairs: To choose from.
        draw_wrong: Makes the pictures that hold no hand.
        rng: Of everything random.
    """
    kind = rng.uniform()
    if kind < _WRONG:
        wrong = draw_wrong(rng)
        image, _ = _warp(wrong, _fill_view(wrong.shape, rng), rng, border=_border(rng))
        mask, coordinates = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE, 2), np.float32)
        has_pose, is_hand = False, False
        if rng.uniform() < 0.5:
            return Sample(stretched(image), mask, coordinates, has_pose, is_hand, False)
    else:
        pair = pairs[rng.integers(len(pairs))]
        image, mask, coordinates = _view(pair, rng)
        has_pose, is_hand = pair.pose is not None, True
        if kind < _WRONG + _TWO_HANDS:
            image, mask, has_pose = _beside(image, mask, pairs[rng.integers(len(pairs))], rng)
    image = image.astype(np.float32) / 255
    image, mask = _film(image, mask, rng)
    is_inverted = bool(rng.uniform() < _INVERTED)
    grey = _digitise(1 - image if is_inverted else image, rng)
    return Sample(stretched(grey), mask, coordinates, has_pose, is_hand, is_inverted)


def _view(pair: Pair, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hand in a random pose: picture, mask and hand coordinates of every pixel."""
    mirror = rng.uniform() < 0.5
    pose = pair.pose or _guess(pair.mask_HW)
    if rng.uniform() < 0.35:  # as the second look sees it
        length, turn = SIDE * 0.6 * np.exp(rng.normal(0, 0.08)), rng.normal(0, 8)
        middle = np.array([SIDE / 2, SIDE / 2]) + rng.normal(0, 0.03 * SIDE, 2)
    else:
        length = SIDE * rng.uniform(0.2, 0.78)
        turn = rng.uniform(-180, 180) if rng.uniform() < 0.8 else rng.normal(0, 15)
        slack = max(0.0, SIDE / 2 - 0.55 * length) + 0.08 * SIDE
        middle = SIDE / 2 + rng.uniform(-slack, slack, 2)
    # From the hand's frame to the square; (0, 0.45) is about the middle of a hand.
    target = Pose((0.0, 0.0), length, turn, bool(pose.is_left != mirror), 0.0).matrix()
    # Some archives squash every picture into a square, which makes a hand up to half as wide again.
    ratio = rng.uniform(-0.45, 0.45) if rng.uniform() < 0.35 else rng.normal(0, 0.1)
    stretching = np.diag(np.exp(ratio * np.array([0.5, -0.5])))
    target[:, :2] = stretching @ target[:, :2]
    target[:, 2] = middle - target[:, :2] @ (0.0, 0.45)
    source = pose.matrix()
    linear = target[:, :2] @ np.linalg.inv(source[:, :2])
    affine = np.column_stack([linear, target[:, 2] - linear @ source[:, 2]])
    border = _border(rng)
    image, field = _warp(pair.image_HW, affine, rng, border)
    mask = _remap(pair.mask_HW, affine, field, cv2.BORDER_REPLICATE if border is None else 0, 0)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    inverse = np.linalg.inv(target[:, :2]).astype(np.float32)
    points = np.stack([columns, rows], -1) - target[:, 2].astype(np.float32)
    return image, (mask > 127).astype(np.float32), points @ inverse.T


def _guess(mask_HW: np.ndarray) -> Pose:
    """A stand-in where no pose was measured: upright, as long as the mask is high."""
    rows, columns = np.nonzero(mask_HW)
    if not len(rows):
        return Pose((mask_HW.shape[1] / 2, mask_HW.shape[0] * 0.8), mask_HW.shape[0] * 0.6, 0.0, True, 0.0)
    length = 0.8 * (rows.max() - rows.min() + 1)
    return Pose((float(columns.mean()), float(rows.min() + length)), float(length), 0.0, True, 0.0)


def _fill_view(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    scale = SIDE / max(shape) * rng.uniform(0.6, 1.5)
    turn = np.radians(rng.choice([0, 0, 90, 180, 270]) + rng.normal(0, 8))
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, np.array([SIDE, SIDE]) / 2 - linear @ (shape[1] / 2, shape[0] / 2)])


def _border(rng: np.random.Generator) -> float | None:
    """Grey level beyond the film's edge; None continues the film."""
    return None if rng.uniform() < 0.45 else float(rng.choice([0, 0, 255, rng.uniform(0, 255)]))


def _warp(
    image_HW: np.ndarray, affine: np.ndarray, rng: np.random.Generator, border: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Map a picture into the square, bent a little; the displacement comes back with it."""
    coarse = rng.normal(0, 1, (5, 5, 2)).astype(np.float32)
    field = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) * np.float32(rng.uniform(0, 0.018) * SIDE)
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    if shrink > 1.5:  # an area filter first: a linear one would alias
        image_HW = cv2.GaussianBlur(image_HW, (0, 0), 0.4 * shrink)
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    return _remap(image_HW, affine, field, mode, border or 0.0), field


def _remap(image_HW: np.ndarray, affine: np.ndarray, field: np.ndarray, mode: int, border: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    inverse = cv2.invertAffineTransform(affine).astype(np.float32)
    points = np.stack([columns, rows], -1) + field
    source = points @ inverse[:, :2].T + inverse[:, 2]
    return cv2.remap(image_HW, source, None, cv2.INTER_LINEAR, borderMode=mode, borderValue=border)  # type: ignore[call-overload, no-any-return]


def _beside(
    image: np.ndarray, mask: np.ndarray, other: Pair, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, bool]:
    """A second hand on the same film, brighter of the two at each pixel."""
    second, second_mask, _ = _view(other, rng)
    return np.maximum(image, second), np.maximum(mask, second_mask), False


def _film(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Exposure and what lies on a film: tone, shading, bands, frames, strips and letters; levels in 0..1.

    What a frame covers wholly is taken out of the mask.
    """
    image = image.copy()
    if rng.uniform() < 0.5:  # a hand that hardly shows against its background, or shows as one flat shape
        image += np.float32(rng.uniform(-0.25, 0.35)) * cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 3))
    slope = rng.normal(0, 0.12, 2).astype(np.float32)
    ramp = np.linspace(-1, 1, SIDE, dtype=np.float32)
    image += slope[0] * ramp[None, :] + slope[1] * ramp[:, None]
    for _ in range(int(rng.integers(0, 3)) if rng.uniform() < 0.4 else 0):  # a second exposure, a shutter's shadow
        _half_plane(image, rng)
    image = np.clip(image, 0, 1.3) ** np.float32(np.exp(rng.normal(0, 0.35)))
    if rng.uniform() < 0.45:
        mask = mask * _frame(image, rng)
    if rng.uniform() < 0.3:
        _strips(image, rng)
    for _ in range(int(rng.integers(0, 4))):
        _letters(image, mask, rng)
    return image, mask


def _half_plane(image: np.ndarray, rng: np.random.Generator) -> None:
    turn = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    along = columns * np.float32(np.cos(turn)) + rows * np.float32(np.sin(turn))
    low = rng.uniform(0, SIDE)
    side = (along > low) & (along < low + rng.uniform(0.1, 1) * SIDE)
    image[side] = image[side] * np.float32(rng.uniform(0.5, 1.3)) + np.float32(rng.uniform(-0.15, 0.25))


def _frame(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A collimated field: shade outside a rectangle, and often a bright line along it; returns what still shows."""
    low, high = rng.uniform(0.0, 0.2, 2) * SIDE, SIDE * (1 - rng.uniform(0.0, 0.2, 2))
    box = cv2.boxPoints((tuple((low + high) / 2), tuple(high - low), float(rng.normal(0, 5))))
    inside = cv2.fillConvexPoly(np.zeros((SIDE, SIDE), np.uint8), np.rint(box).astype(np.int32), 1)
    shows = np.ones((SIDE, SIDE), np.float32)
    if rng.uniform() < 0.7:
        level = np.float32(rng.choice([0, 1, rng.uniform(0, 1)]))
        keep = np.float32(rng.choice([0, rng.uniform(0, 1)]))
        image[inside == 0] = image[inside == 0] * keep + level * (1 - keep)
        shows = inside.astype(np.float32) if keep == 0 else shows
    if rng.uniform() < 0.6:
        colour = float(rng.uniform(0.2, 1.2))
        cv2.polylines(image, [np.rint(box).astype(np.int32)], True, (colour,), int(rng.integers(1, 4)), cv2.LINE_AA)
    return shows


def _strips(image: np.ndarray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        width = int(rng.integers(1, 14))
        view = np.rot90(image, int(rng.integers(4)))
        view[:, :width] = np.float32(rng.choice([0.0, 1.0, 1.2, rng.uniform()]))


def _letters(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    size = int(rng.uniform(0.05, 0.14) * SIDE)
    top, left = rng.integers(0, SIDE - size, 2)
    window = (slice(int(top), int(top) + size), slice(int(left), int(left) + size))
    if mask[window].mean() > 0.15:
        return
    plate = image[window]
    if rng.uniform() < 0.6:
        plate[:] = plate * np.float32(rng.uniform(0, 1)) + np.float32(rng.uniform(0, 0.9))
    text = "L" if rng.uniform() < 0.5 else "".join(rng.choice(list(string.ascii_uppercase + string.digits), 2))
    drawn = np.zeros((size, size), np.uint8)
    font, thickness = int(rng.integers(0, 5)), int(rng.integers(1, 4))
    cv2.putText(drawn, text, (1, size - 3), font, size / 30, (255,), thickness, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), float(rng.normal(0, 25)), 1.0)
    ink = cv2.warpAffine(drawn, turn, (size, size)).astype(np.float32) / 255
    plate[:] = plate * (1 - ink) + np.float32(rng.uniform(0.5, 1.2)) * ink


def _digitise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Few pixels, blur, noise, coarse levels and compression of what arrives as a file."""
    if rng.uniform() < 0.3:
        coarse = (int(rng.uniform(0.25, 0.8) * SIDE),) * 2
        image = cv2.resize(image, coarse, interpolation=cv2.INTER_AREA)
    elif rng.uniform() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.6))
    image = image + rng.normal(0, rng.uniform(0, 0.05), image.shape).astype(np.float32)
    low, span = (rng.uniform(0, 0.6), rng.uniform(0.12, 0.4)) if rng.uniform() < 0.3 else (0.0, 1.0)
    grey = np.rint(255 * np.clip(low + span * np.clip(image, 0, 1), 0, 1)).astype(np.uint8)
    if rng.uniform() < 0.2:
        _, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 90))])
        grey = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    if len(grey) < SIDE:
        grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return grey
