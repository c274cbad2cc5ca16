"""A film of any body part: outlines of soft tissue and bone become attenuation, and `exposure` develops it.

Unlike the hand's own bones, these are drawn from outlines alone: thickness is that of a round body of the
given radius below the outline, and bone has a dense shell.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from preprocessing.drawing.exposure import ByteArray, expose
from preprocessing.drawing.skeleton import FloatArray
from preprocessing.drawing.soft_tissue import fill_hull
from preprocessing.drawing.solids import CORTEX, TRABECULAR

Point = tuple[float, float]
Circle = tuple[Point, float]


class Film:
    """Soft tissue and bone between source and film; lengths are in hundredths of the picture's height.

    (0, 0) is the middle of the picture, x to the right, y down.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.shape, self.rng = (height, width), rng
        self.unit = height / 100
        self.soft_HW: FloatArray = np.zeros(self.shape, np.float32)
        self.bone_HW: FloatArray = np.zeros(self.shape, np.float32)
        coarse = rng.standard_normal((height // 3 + 1, width // 3 + 1), dtype=np.float32)
        self._texture_HW = 1 + np.float32(0.2) * cv2.resize(coarse, (width, height))

    def pixels(self, point: Point) -> Point:
        return self.shape[1] / 2 + self.unit * point[0], self.shape[0] / 2 + self.unit * point[1]

    def chains(self, *chains: Sequence[Circle]) -> ByteArray:
        """(H, W) uint8 mask: 255 inside any chain of circles, each joined to the next by its hull."""
        mask = np.zeros(self.shape, np.uint8)
        for chain in chains:
            scaled = [(self.pixels(centre), max(radius, 0.2) * self.unit) for centre, radius in chain]
            if len(scaled) == 1:
                fill_hull(mask, scaled)
            for first, second in pairwise(scaled):
                fill_hull(mask, [first, second])
        return mask

    def polygon(self, points: Sequence[Point]) -> ByteArray:
        """(H, W) uint8 mask of a polygon, its corners eased."""
        mask = np.zeros(self.shape, np.uint8)
        corners = np.array([self.pixels(point) for point in points])
        cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA)
        return cv2.GaussianBlur(mask, (0, 0), 0.6 * self.unit).astype(np.uint8)

    def flesh(self, mask_HW: ByteArray, radius: float, amount: float = 1.0) -> None:
        """Adds soft tissue as thick as a body of this radius; a negative amount takes it away (air)."""
        depth = self._depth(cv2.GaussianBlur(mask_HW, (0, 0), 1.2 * self.unit), radius)
        self.soft_HW += np.float32(amount / radius) * np.sqrt(depth * (2 * np.float32(radius) - depth))

    def bones(self, mask_HW: ByteArray, radius: float, shell: float = 0.25, amount: float = 1.0) -> None:
        """Adds bone `2 * radius` thick with a dense shell of that share of the radius."""
        depth = self._depth(mask_HW, radius)
        cortex = np.float32(shell * radius)
        outer = np.sqrt(depth * (2 * np.float32(radius) - depth))
        below = np.maximum(depth - cortex, 0)
        inner = np.sqrt(below * np.maximum(2 * (np.float32(radius) - cortex) - below, 0))
        spongy = np.float32(TRABECULAR) * self._texture_HW * inner
        self.bone_HW += np.float32(amount / radius) * (np.float32(CORTEX) * (outer - inner) + spongy)

    def develop(self) -> ByteArray:
        """The radiograph, bone bright; its contrast between bone and flesh is drawn."""
        rng = self.rng
        thick = float(np.percentile(self.soft_HW[self.soft_HW > 0.05], 70)) if (self.soft_HW > 0.05).any() else 1.0
        hard = float(np.percentile(self.bone_HW[self.bone_HW > 0.01], 80)) if (self.bone_HW > 0.01).any() else 1.0
        soft_HW = np.maximum(self.soft_HW, 0) * np.float32(rng.uniform(0.35, 0.8) / thick)
        bone_HW = self.bone_HW * np.float32(rng.uniform(0.2, 0.65) / hard)
        outline_HW = np.where(soft_HW > 0.02, np.uint8(255), np.uint8(0))
        return expose((soft_HW + bone_HW).astype(np.float32), soft_HW.astype(np.float32), outline_HW, rng)

    def _depth(self, mask_HW: ByteArray, radius: float) -> FloatArray:
        binary = np.where(mask_HW > 127, np.uint8(255), np.uint8(0))
        # What touches an edge of the picture goes on beyond it.
        pad = min(int(radius * self.unit) + 1, 40)
        padded = cv2.copyMakeBorder(binary, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        # A mask that is full has no outline: its distance is the largest float.
        depth = np.minimum(cv2.distanceTransform(padded, cv2.DIST_L2, 3)[pad:-pad, pad:-pad], np.float32(1e6))
        return np.asarray(np.minimum(depth / np.float32(self.unit), np.float32(radius)), np.float32)


def shaft(start: Point, end: Point, ends: tuple[float, float], waist: float) -> list[Circle]:
    """Circles of a long bone: wide at both ends, slender between."""
    (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
    knots = (
        (0.0, ends[0]),
        (0.08, ends[0] * 0.95),
        (0.25, waist),
        (0.75, waist),
        (0.92, ends[1] * 0.95),
        (1.0, ends[1]),
    )
    return [((x + share * dx, y + share * dy), radius) for share, radius in knots]


def along(start: Point, degrees: float, length: float) -> Point:
    """The point that far from `start`; 0 degrees is up, 90 to the right."""
    turn = np.radians(degrees)
    return float(start[0] + length * np.sin(turn)), float(start[1] - length * np.cos(turn))
