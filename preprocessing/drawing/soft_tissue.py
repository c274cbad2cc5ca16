"""Outline and thickness of the soft tissue round one posed hand; the same for every bone age.

The outline is a union of tapered fingers, a palm, the ball of the thumb and a forearm, smoothed so that
webs form between them. Its thickness rises from the outline like that of a rounded body and is largest at
the palm, thumb ball and wrist.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from preprocessing.drawing.habit import ORDINARY, Habit
from preprocessing.drawing.placement import Placement
from preprocessing.drawing.skeleton import FloatArray, Hand

SOFT, FAT = 0.021, 0.006
"""Attenuation per mm of muscle and skin, and how much less a mm of fat attenuates."""
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


@dataclass(frozen=True, kw_only=True)
class SoftTissue:
    """Pixels of the hand and what they attenuate."""

    outline_HW: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    """255 inside the hand or forearm, else 0."""
    attenuation_HW: FloatArray


def draw_soft_tissue(
    hand: Hand,
    placement: Placement,
    shape_HW: tuple[int, int],
    rng: np.random.Generator,
    habit: Habit = ORDINARY,
) -> SoftTissue:
    """Draws outline and attenuation; plumpness, thickness and fat vary between hands, never with bone age."""
    plump = 1.0 + 0.07 * float(np.clip(rng.standard_normal(), -1.5, 2))
    if habit.plump is not None:
        plump = habit.plump
    thickness = rng.uniform(0.9, 1.3)
    fat_mm = rng.uniform(0.8, 2.6)
    clouds_88 = rng.standard_normal((8, 8)).astype(np.float32)

    canvas = np.zeros(shape_HW, np.uint8)
    longest = 0.0 if habit.is_ordinary else float(np.hypot(*shape_HW)) / placement.scale
    for circles in _parts(hand, plump, habit, longest):
        fill_hull(canvas, [(placement.to_pixels(x, y), radius * placement.scale) for x, y, radius in circles])
    smooth = cv2.GaussianBlur(canvas, (0, 0), 1.6 * placement.scale)
    outline_HW = np.where(smooth > 127, np.uint8(255), np.uint8(0))
    steepness = 255 / (2.5 * 1.6 * placement.scale)  # grey levels per pixel across the smoothed rim
    cover = np.clip((smooth.astype(np.float32) - 127) / np.float32(steepness) + 0.5, 0, 1)

    # Beyond the edge that the arm crosses it goes on: without the pad the distance would fall to 0 there.
    below = int(20 * placement.scale)
    around = 0 if habit.is_ordinary else below
    padded = cv2.copyMakeBorder(outline_HW, around, below, around, around, cv2.BORDER_REPLICATE)
    within = (slice(around, around + shape_HW[0]), slice(around, around + shape_HW[1]))
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[within] / np.float32(placement.scale) * cover
    round_mm = 11.0
    capped = np.minimum(depth, np.float32(round_mm))
    body = 2 * np.sqrt(capped * (2 * round_mm - capped))
    broad = _blur_small(outline_HW.astype(np.float32) / 255, 9 * placement.scale)
    clouds = cv2.resize(clouds_88, (shape_HW[1], shape_HW[0]), interpolation=cv2.INTER_CUBIC)
    body = body * (habit.relief[0] + habit.relief[1] * broad) * np.float32(thickness) * (1 + 0.03 * clouds)
    fat = 2 * np.minimum(depth, np.float32(fat_mm))
    return SoftTissue(outline_HW=outline_HW, attenuation_HW=np.maximum(SOFT * body - FAT * fat, 0).astype(np.float32))


def _parts(hand: Hand, plump: float, habit: Habit, longest: float) -> list[list[tuple[float, float, float]]]:
    """Groups of circles (x, y, radius in mm); the hull of each group is inside the hand."""
    parts: list[list[tuple[float, float, float]]] = []
    palm: list[tuple[float, float, float]] = []
    for ray in range(1, 6):
        names = ("metacarpal", "proximal", "distal") if ray == 1 else ("metacarpal", "proximal", "middle", "distal")
        bones = [hand.bone(f"{ray}_{name}") for name in names]
        metacarpal, fingers = bones[0], bones[1:]
        extra = 4.6 * plump - 0.6
        knuckle = (*metacarpal.point(metacarpal.length), metacarpal.head + extra)
        circles = [knuckle]
        for bone in fingers:
            circles.append((*bone.point(0), bone.base + 0.6 * extra + 0.6))
            circles.append(
                (*bone.point(0.6 * bone.length), bone.waist + extra + (0.2 if bone.kind == "distal" else 1.2))
            )
        tip = fingers[-1]
        x, y = hand.fingertips[ray - 1]
        radius = tip.head + 0.55 * extra
        circles.append((x - radius * np.sin(tip.angle), y - radius * np.cos(tip.angle), radius))
        parts += [[first, second] for first, second in pairwise(circles)]
        base = (*metacarpal.point(4), metacarpal.base + extra + 1.5)
        if ray == 1:
            parts.append([base, knuckle])
            ball = (base, knuckle)
        else:
            palm += [base, knuckle]
            parts.append([base, (*metacarpal.point(1.12 * metacarpal.length), metacarpal.head + extra + 0.5)])
    parts.append(palm)
    index = hand.bone("2_metacarpal")
    parts.append([*ball, (*index.point(0.42 * index.length), 9.0)])  # ball of the thumb and its web
    parts.append([(*hand.bone("1_metacarpal").point(30), 7.0), (*index.point(0.62 * index.length), 7.0), ball[0]])

    if habit.web is not None:
        for ray in range(2, 5):
            pair = (hand.bone(f"{ray}_proximal"), hand.bone(f"{ray + 1}_proximal"))
            parts.append([(*bone.point(at * bone.length), 4.0) for bone in pair for at in (-0.1, habit.web)])
        edge = hand.bone("5_metacarpal")  # the ball of the little finger
        parts.append(
            [(*edge.point(at * edge.length), edge.base + 5.0 * plump + habit.palm_mm) for at in (-0.1, 0.35, 0.7)]
        )
        thumb = hand.bone("1_metacarpal")
        reach = 0.55 + habit.web
        parts.append([(*thumb.point(reach * thumb.length), 6.0), (*index.point(reach * index.length), 6.0), ball[0]])
        parts.append([*ball, (*thumb.point(0.55 * thumb.length), thumb.waist + 5.0 * plump + 1.2 * habit.palm_mm)])
    forearm, ulna = hand.bone("radius"), hand.bone("ulna")
    wrist = [
        (*forearm.point(forearm.length - 6), forearm.head + 6 * plump),
        (*ulna.point(ulna.length - 3), ulna.head + 0.5 + 6 * plump),
    ]
    parts.append([*wrist, palm[0], palm[-2], ball[0]])
    arm = [wrist[0], wrist[1]]
    sections = [(40.0, 15.5), (80.0, 17.5), (125.0, 19.0), (165.0, 20.0)]
    for back, wide in [*sections, (longest, 22.0)] if longest > 165 else sections:
        section = [
            (*forearm.point(forearm.length - back), wide * plump),
            (*ulna.point(ulna.length - back), wide * plump),
        ]
        parts.append([*arm, *section])
        arm = section
    return parts


def fill_hull(canvas: np.ndarray, circles: list[tuple[tuple[float, float], float]]) -> None:
    """Fills the convex hull of circles ((x, y), radius), in pixels, with 255."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rim = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points = np.concatenate([np.array(centre) + radius * rim for centre, radius in circles])
    hull = cv2.convexHull((points * (1 << _SHIFT)).astype(np.int32))
    cv2.fillConvexPoly(canvas, hull, 255, lineType=cv2.LINE_AA, shift=_SHIFT)


def _blur_small(image_HW: FloatArray, sigma: float) -> FloatArray:
    """A wide Gaussian at an eighth of the size: the eye cannot tell, and it costs a hundredth."""
    height, width = image_HW.shape
    small = cv2.resize(image_HW, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 8, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
