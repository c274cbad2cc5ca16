"""Phantoms as files come: the other hand, two hands, any angle, cut, framed, faded, inverted, at 16 bit, in an atlas.

Each variant is named; a picture may have several. What each did is written down as truth.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.drawing import styles
from preprocessing.drawing.exposure import develop
from preprocessing.drawing.habit import Habit, draw_habit
from preprocessing.drawing.ossification import Sex
from preprocessing.drawing.plate import Plate, Points, draw_plate
from preprocessing.drawing.sheet import Sheet
from preprocessing.drawing.skeleton import FloatArray

VARIANTS: dict[str, float] = {
    "posed": 0.8,
    "right": 0.5,
    "turned": 0.3,
    "cut": 0.15,
    "pair": 0.08,
    "framed": 0.35,
    "low_contrast": 0.25,
    "saturated": 0.1,
    "inverted": 0.2,
    "deep": 0.2,
    "atlas": 0.1,
}
"""Name of each variant, and the share of pictures that have it where it is asked for by name alone."""
PLAIN: dict[str, Any] = {"variants": "", "side": "left", "hands": 1, "inverted": False, "cut": "", "bits": 8}
"""Truth of a picture without variants, beside its pose."""
_EXCLUDE = (("atlas", "low_contrast"), ("atlas", "saturated"), ("atlas", "framed"), ("low_contrast", "saturated"))
_AXIS = "_mirror"  # a point to the thumb's side of the wrist, kept with the landmarks to measure the final pose by


def check(names: Collection[str]) -> None:
    """Raises ValueError for a name that is no variant."""
    if unknown := sorted(set(names) - set(VARIANTS)):
        raise ValueError(f"variants must be among {', '.join(VARIANTS)}; got {', '.join(unknown)}. Name those.")


def shares(words: Collection[str]) -> dict[str, float]:
    """The share of pictures that shall have each variant.

    Args:
        words: Names, each with the share in `VARIANTS` or with one of its own: ``atlas:1`` gives plates alone.

    Raises:
        ValueError: A name that is no variant, or a share outside 0..1.
    """
    found: dict[str, float] = {}
    for word in words:
        name, colon, given = word.partition(":")
        check([name])
        try:
            found[name] = float(given) if colon else VARIANTS[name]
        except ValueError:
            found[name] = np.nan
        if not 0 <= found[name] <= 1:
            raise ValueError(f"The share of a variant lies within 0..1, got {word}. Write it like atlas:0.5.")
    return found


def choose(shares: Mapping[str, float], rng: np.random.Generator) -> tuple[str, ...]:
    """Which variants one picture has: each by its own share, and of two that exclude each other the first."""
    draws = rng.random(len(VARIANTS))
    chosen = [name for name, draw in zip(VARIANTS, draws, strict=True) if draw < shares.get(name, 0)]
    for kept, dropped in _EXCLUDE:
        if kept in chosen and dropped in chosen:
            chosen.remove(dropped)
    return tuple(chosen)


def draw_varied(
    bone_age_months: float,
    sex: Sex,
    rng: np.random.Generator,
    variants: Collection[str],
    *,
    height: int,
    bones_visible: bool,
) -> tuple[npt.NDArray[np.uint8 | np.uint16], Sheet, dict[str, Any]]:
    """Draws a radiograph that has every one of `variants`.

    Returns:
        (H, W) pixels, uint8 or for "deep" uint16; the sheet they were cut from, with mask, bones and landmarks;
        and the truth of the picture, without the landmarks.
    """
    has = set(variants)
    style = np.random.default_rng(rng.integers(2**63))  # so that bones never shift what is drawn after them
    width = round(height * style.uniform(0.62, 1.05) * (1.5 if "pair" in has else 1))
    on_table = "turned" in has and style.random() < 0.5
    shape = (height, width // 2 * 2 if "pair" in has else width)
    plate = _lay(bone_age_months, sex, rng, shape, has, bones_visible, on_table, style)
    letter, mirrored = "L", False
    if "right" in has and "pair" not in has:
        mirrored = style.random() < 0.3  # the file is mirrored, letters and all, instead of the hand
        plate, letter = (plate, "L") if mirrored else (plate.flipped(), "R")
    grey = develop(plate.total_HW, plate.soft_HW, plate.outline_HW, rng, letter=letter)
    sheet = Sheet(grey_HW=grey, mask_HW=plate.outline_HW, bones_HW=plate.bones_HW, points=plate.points)
    truth = PLAIN | {
        "variants": " ".join(sorted(has)),
        "side": "both" if "pair" in has else "right" if "right" in has else "left",
        "hands": 2 if "pair" in has else 1,
        "inverted": "inverted" in has,
    }
    sheet = sheet.flipped() if mirrored else sheet
    if "cut" in has:
        sheet, truth["cut"] = styles.cut(sheet, style)
    if "turned" in has and not on_table:
        sheet = styles.turned(sheet, style)
    for name, apply in (
        ("saturated", styles.saturated),
        ("low_contrast", styles.faded),
        ("framed", styles.framed),
        ("atlas", styles.atlas),
    ):
        if name in has:
            sheet = apply(sheet, style)
    if sheet.shape[0] > height:  # a frame or a turn has made it larger; what was cut stays small
        sheet = sheet.resized(height)
    if "inverted" in has:
        sheet = sheet.shown(255 - sheet.grey_HW)
    if "deep" not in has:
        return np.clip(sheet.grey_HW + 0.5, 0, 255).astype(np.uint8), sheet, truth
    truth["bits"] = int(style.choice(np.array([12, 16])))
    return _deep(sheet.grey_HW, truth["bits"]), sheet, truth


def measured(points: Points) -> tuple[float, float]:
    """Rotation in degrees, clockwise from fingers up, and pixels per mm, of a hand whose landmarks lie there."""
    (x, y), (side_x, side_y) = points["wrist"], points[_AXIS]
    north = points["_north"]
    rotation = float(np.degrees(np.arctan2(north[0] - x, y - north[1])))
    return rotation, float(np.hypot(side_x - x, side_y - y)) / 10


def visible(points: Points) -> Points:
    """Landmarks without those kept to measure by."""
    return {name: point for name, point in points.items() if "_mirror" not in name and "_north" not in name}


def _lay(
    months: float,
    sex: Sex,
    rng: np.random.Generator,
    shape: tuple[int, int],
    has: set[str],
    bones_visible: bool,
    on_table: bool,
    style: np.random.Generator,
) -> Plate:
    """One hand on the film, or the left and the right beside each other."""

    def one(shape_HW: tuple[int, int], habit: Habit) -> Plate:
        plate = draw_plate(months, sex, rng, shape_HW, bones_visible=bones_visible, habit=habit)
        axes = {"_north": plate.placement.to_pixels(0, 10), _AXIS: plate.placement.to_pixels(10, 0)}
        return _with_points(plate, plate.points | axes)

    habit = draw_habit(style, posed="posed" in has, turned=on_table)
    if "pair" not in has:
        return one(shape, habit)
    height, half = shape[0], shape[1] // 2
    straight = Habit(
        **{**vars(habit), "rotation_deg": float(style.uniform(-12, 12)), "share": float(style.uniform(0.6, 0.9))}
    )
    left, right = one((height, half), straight), one((height, half), straight).flipped()
    first, second = (right, left) if style.random() < 0.5 else (left, right)
    # The left hand's landmarks keep their names, wherever on the film it lies.
    points = {
        ("second_" if plate is right else "") + name: (x + offset, y)
        for plate, offset in ((first, 0), (second, half))
        for name, (x, y) in plate.points.items()
    }
    return Plate(
        total_HW=np.hstack([first.total_HW, second.total_HW]),
        soft_HW=np.hstack([first.soft_HW, second.soft_HW]),
        outline_HW=np.hstack([first.outline_HW, second.outline_HW]),
        bones_HW=np.hstack([first.bones_HW, second.bones_HW]),
        points=points,
        placement=left.placement,
    )


def _with_points(plate: Plate, points: Points) -> Plate:
    return Plate(**{**vars(plate), "points": points})


def _deep(grey_HW: FloatArray, bits: int) -> npt.NDArray[np.uint16]:
    """Whole levels of a detector with that many bits, in 16."""
    top = 2**bits - 1
    return np.clip(np.asarray(grey_HW, np.float64) * (top / 255) + 0.5, 0, top).astype(np.uint16)
