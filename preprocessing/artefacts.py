"""What lies on a radiograph beside the hand: side markers, name plates, frames, collimators.

All places and sizes are shares of the picture's side. Everything is drawn in place on ``(S, S)`` uint8.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

TEXTS = ("L", "R", "L", "R", "L", "R", "LT", "RT", "L AB", "R KM", "LEFT 2", "R 14", "L HAND", "07 12 R")
"""Side letters alone half the time, else with a technician's initials, a number or a date."""
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
_CAPITAL_PX = 22
"""Height of a capital in these fonts at scale 1."""


@dataclass(frozen=True)
class Marker:
    """Lead letters on the plate, or a plate with letters on it."""

    text: str
    places: tuple[tuple[float, float], ...]
    """Centres (x, y) to choose from: it goes where the picture is darkest, beside the hand as a technician lays it."""
    height: float
    """Of a capital."""
    level: int
    """Grey level of the letters, or of the plate where there is one."""
    is_plate: bool
    font: int
    """Which of three."""

    def draw(self, image_HW: np.ndarray) -> None:
        """Draw it, wholly inside the picture unless it is larger than that."""
        side = image_HW.shape[0]
        capital_px = max(5.0, self.height * side)
        scale, stroke = capital_px / _CAPITAL_PX, max(1, round(capital_px / 7))
        font = _FONTS[self.font]
        (text_width, text_height), _ = cv2.getTextSize(self.text, font, scale, stroke)
        pad = max(1, round(capital_px / 3)) if self.is_plate else 1
        width, height = min(text_width + 2 * pad, side), min(text_height + 2 * pad, side)
        corners = []
        for x, y in self.places:
            left = min(max(round(x * side - width / 2), 0), side - width)
            top = min(max(round(y * side - height / 2), 0), side - height)
            corners.append((float(image_HW[top : top + height, left : left + width].mean()), top, left))
        _, top, left = min(corners)
        ink = self.level
        if self.is_plate:
            image_HW[top : top + height, left : left + width] = self.level
            ink = 20 if self.level > 127 else 235
        origin = (left + pad, top + height - pad - 1)
        cv2.putText(image_HW, self.text, origin, font, scale, ink, stroke, cv2.LINE_AA)


@dataclass(frozen=True)
class Border:
    """A frame or a collimator: outside a rectangle, which may be turned, the picture has one grey level."""

    margins: tuple[float, float, float, float]
    """Top, right, bottom, left."""
    rotation_deg: float
    level: int

    def draw(self, image_HW: np.ndarray) -> None:
        """Cover what lies outside the rectangle, side by side."""
        side = image_HW.shape[0]
        turn = math.radians(self.rotation_deg)
        cos, sin = math.cos(turn), math.sin(turn)
        for quarter, margin in enumerate(self.margins):
            if margin == 0:
                continue
            strip = [(-1.0, -1.0), (1.0, -1.0), (1.0, margin - 0.5), (-1.0, margin - 0.5)]  # top, about the centre
            for _ in range(quarter):
                strip = [(-y, x) for x, y in strip]  # on to the right, the bottom, the left
            points = [((cos * x - sin * y + 0.5) * side, (sin * x + cos * y + 0.5) * side) for x, y in strip]
            cv2.fillConvexPoly(image_HW, np.rint(points).astype(np.int32), self.level, cv2.LINE_AA)
