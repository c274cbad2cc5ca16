"""How a hand in millimetres lies on a pixel grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.drawing.habit import ORDINARY, Habit
from preprocessing.drawing.skeleton import FloatArray, Hand


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Similarity from the hand's frame (mm, y up) to pixels (y down); pixel centres lie at whole numbers."""

    rotation: float
    """Radians, clockwise in the picture."""
    scale: float
    """Pixels per mm."""
    wrist: tuple[float, float]
    """Pixel (x, y) of the frame's origin."""

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        sin, cos = np.sin(self.rotation), np.cos(self.rotation)
        return (
            float(self.wrist[0] + self.scale * (x * cos + y * sin)),
            float(self.wrist[1] + self.scale * (x * sin - y * cos)),
        )

    def enlarged(self, factor: int) -> Placement:
        """The same placement on a grid `factor` times finer that covers the same picture."""
        x, y = ((value + 0.5) * factor - 0.5 for value in self.wrist)
        return Placement(rotation=self.rotation, scale=self.scale * factor, wrist=(x, y))


def place(hand: Hand, height: int, width: int, rng: np.random.Generator, habit: Habit = ORDINARY) -> Placement:
    """Draws rotation, size and position so that all fingertips lie in a picture of these pixels."""
    rotation = float(np.radians(np.clip(6 * rng.standard_normal(), -15, 15)))
    share, shift_x, shift_y = rng.uniform(0.70, 0.92), rng.uniform(), rng.uniform()
    if habit.rotation_deg is not None and habit.share is not None:
        rotation, share = float(np.radians(habit.rotation_deg)), habit.share
    unit = Placement(rotation=rotation, scale=1.0, wrist=(0.0, 0.0))
    # Soft tissue reaches about 9 mm beyond the fingertip's axis and 30 mm to either side of the wrist.
    sides = [(-36.0, 0.0), (36.0, 0.0)]
    if habit.rotation_deg is not None:
        sides = [unit.to_pixels(*side) for side in sides]
    points = np.array([unit.to_pixels(*tip) for tip in hand.fingertips] + sides)
    low, high = points.min(0) - 10, points.max(0) + 10
    scale = min(share * height / (high[1] - low[1]), 0.97 * width / (high[0] - low[0]))
    slack_x, slack_y = width - scale * (high[0] - low[0]), height - scale * (high[1] - low[1])
    if habit.rotation_deg is not None:  # anywhere, and with little or much of the forearm
        wrist = (float(-scale * low[0] + slack_x * (0.15 + 0.7 * shift_x)), float(-scale * low[1] + slack_y * shift_y))
        return Placement(rotation=rotation, scale=float(scale), wrist=wrist)
    wrist = (
        float(-scale * low[0] + slack_x * (0.15 + 0.7 * shift_x)),
        float(-scale * low[1] + slack_y * (0.02 + 0.45 * shift_y)),
    )
    return Placement(rotation=rotation, scale=float(scale), wrist=wrist)


def patch(
    placement: Placement,
    shape_HW: tuple[int, int],
    centre: tuple[float, float],
    angle: float,
    half_across: float,
    half_along: float,
) -> tuple[tuple[slice, slice], FloatArray, FloatArray] | None:
    """Pixels round a bone: their window, and mm across (x) and along (y) its axis; None if outside."""
    column, row = placement.to_pixels(*centre)
    turn = angle + placement.rotation
    sin, cos = abs(np.sin(turn)), abs(np.cos(turn))
    reach_x = placement.scale * (half_across * cos + half_along * sin)
    reach_y = placement.scale * (half_across * sin + half_along * cos)
    left, right = max(0, int(column - reach_x)), min(shape_HW[1], int(column + reach_x) + 2)
    top, bottom = max(0, int(row - reach_y)), min(shape_HW[0], int(row + reach_y) + 2)
    if left >= right or top >= bottom:
        return None
    dx = ((np.arange(left, right) - column) / placement.scale).astype(np.float32)[None, :]
    dy = ((np.arange(top, bottom) - row) / placement.scale).astype(np.float32)[:, None]
    sin_f, cos_f = np.float32(np.sin(turn)), np.float32(np.cos(turn))
    return (slice(top, bottom), slice(left, right)), dx * cos_f + dy * sin_f, dx * sin_f - dy * cos_f
