"""Pictures that are no radiograph of a hand, of many kinds, for the gate to refuse.

Photographs, pages and patterns are finished with a random contrast, polarity, blur, noise and border, so that
none of these tells a wrong input; films of other body parts pass the exposure that hands pass. They are
drawn, not collected: nothing here needs a licence, and any number can be had.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from preprocessing.drawing import limbs, lookalikes, patterns, scenes, trunk
from preprocessing.drawing.exposure import ByteArray
from preprocessing.drawing.film import Film
from preprocessing.drawing.skeleton import FloatArray

_PICTURES: dict[str, Callable[[int, int, np.random.Generator], FloatArray]] = {
    "noise": patterns.white_noise,
    "clouds": patterns.fractal_noise,
    "blank": patterns.blank,
    "gradient": patterns.gradient,
    "text": patterns.text_page,
    "digits": patterns.digits,
    "grid": patterns.grid,
    "test_chart": patterns.test_chart,
    "diagram": patterns.diagram,
    "polygons": patterns.polygons,
    "texture": scenes.spectrum,
    "dead_leaves": scenes.dead_leaves,
    "landscape": scenes.landscape,
    "bubbles": scenes.bubbles,
    "face": scenes.face,
    "room": scenes.room,
    "screen": scenes.screen,
    "hand_photo": scenes.hand_photo,
}
_FILMS: dict[str, Callable[[Film], ByteArray]] = {
    "long_bone": limbs.long_bone,
    "joint": limbs.joint,
    "foot_above": limbs.foot_above,
    "foot_beside": limbs.foot_beside,
    "chest": trunk.chest,
    "skull": trunk.skull,
    "pelvis": trunk.pelvis,
    "spine": trunk.spine,
    "teeth": trunk.teeth,
    "jumbled_bones": lookalikes.jumbled_bones,
    "bare_fingers": lookalikes.bare_fingers,
    "paw": lookalikes.paw,
    "ct_slice": lookalikes.ct_slice,
    "prongs": lookalikes.prongs,
}
KINDS: tuple[str, ...] = (*_PICTURES, *_FILMS)
"""What can be drawn: pictures of anything first, then films of what is no hand."""
_TURNED, _INVERTED, _COARSE = 0.35, 0.1, 0.12  # shares of films at any angle, of negatives, of enlarged files


def draw_wrong_input(kind: str, rng: np.random.Generator, *, height: int = 256) -> ByteArray:
    """Draws one picture that is no hand radiograph.

    Args:
        kind: One of `KINDS`.
        rng: Source of everything else.
        height: Pixels, at least 64; the width is 0.6 to 1.5 of it.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: A kind that is not in `KINDS`, or too small a height.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}. Name one of them.")
    if height < 64:
        raise ValueError(f"height must be at least 64 pixels, got {height}. Draw it larger, then shrink it.")
    if kind in _PICTURES:
        width = round(height * rng.uniform(0.65, 1.5))
        drawn = _finished(_PICTURES[kind](height, width, rng), rng)
    else:
        width = round(height * rng.uniform(0.6, 1.25))
        drawn = _FILMS[kind](Film(height, width, rng))
        if rng.random() < _TURNED:
            drawn = _turned(drawn, rng)
        if rng.random() < _INVERTED:
            drawn = 255 - drawn
    return _coarsened(drawn, rng) if rng.random() < _COARSE else drawn


def _coarsened(image_HW: ByteArray, rng: np.random.Generator) -> ByteArray:
    """As of a file that was tiny, 28 to 80 pixels high, and has been enlarged since."""
    height, width = image_HW.shape
    least = int(rng.integers(28, 81))
    small = cv2.resize(image_HW, (max(1, least * width // height), least), interpolation=cv2.INTER_AREA)
    mode = int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    return np.asarray(cv2.resize(small, (width, height), interpolation=mode), np.uint8)


def _finished(picture_HW: FloatArray, rng: np.random.Generator) -> ByteArray:
    """Grey levels of 0 to 1 as a file: contrast, polarity, blur, noise, border, compression."""
    height, width = picture_HW.shape
    if rng.random() < 0.35:
        picture_HW = 1 - picture_HW
    if rng.random() < 0.5:
        picture_HW = cv2.GaussianBlur(picture_HW, (0, 0), height / 256 * rng.uniform(0.3, 2.5))
    low, span = (0.0, 255.0) if rng.random() < 0.5 else (rng.uniform(0, 100), rng.uniform(40, 155))
    grey = np.float32(low) + np.float32(span) * np.clip(picture_HW, 0, 1) ** np.float32(rng.uniform(0.6, 1.6))
    if rng.random() < 0.5:
        grey = grey + np.float32(rng.uniform(0.5, 8)) * rng.standard_normal((height, width), dtype=np.float32)
    finished: ByteArray = np.clip(grey + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        top, bottom, left, right = (int(height * share) for share in rng.uniform(0, 0.14, 4))
        edge = int(rng.choice(np.array([0, 255, 128])))
        framed = cv2.copyMakeBorder(finished, top, bottom, left, right, cv2.BORDER_CONSTANT, value=edge)
        finished = np.asarray(cv2.resize(framed, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 90))]
        finished = np.asarray(cv2.imdecode(cv2.imencode(".jpg", finished, quality)[1], cv2.IMREAD_GRAYSCALE), np.uint8)
    return finished


def _turned(image_HW: ByteArray, rng: np.random.Generator) -> ByteArray:
    """A film laid down at any angle; what was never exposed shows the level of its own corner."""
    height, width = image_HW.shape
    move = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(0, 360)), float(rng.uniform(0.75, 1.15)))
    level = float(np.median(image_HW[:4, :4]))
    return np.asarray(cv2.warpAffine(image_HW, move, (width, height), borderValue=level), np.uint8)
