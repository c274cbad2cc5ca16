"""Build and pose beyond the ordinary: spread fingers and closed ones, a thumb near or far, a bent wrist, short
plump hands and long slender ones, any share of forearm and any angle on the film.

`ORDINARY` leaves every phantom as it always was. Nothing here knows bone age.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Habit:
    """What is said of one hand in place of the ordinary draw; the defaults say nothing."""

    spread: float | None = None
    """Fan of the fingers: about 0 closed, 1 open, 1.8 as wide as they go; None is drawn as ordinary."""
    thumb_deg: float = 0.0
    """The whole thumb, further from the palm."""
    curl_deg: float = 9.0
    """Standard deviation of a phalanx's bend towards the film, which shortens its image."""
    sway_deg: float = 0.0
    """Standard deviation of a finger's own sideways turn at its knuckle."""
    wrist_deg: float = 0.0
    """Turn of the forearm against the hand; positive moves its elbow to the thumb's side."""
    finger_length: float = 1.0
    """Factors of phalanges and metacarpals."""
    palm_length: float = 1.0
    plump: float | None = None
    """Factor of the soft tissue beside the bones; None is drawn as ordinary."""
    web: float | None = None
    """How far skin joins the fingers along the proximal phalanx, 0 to 0.5; None draws no web of its own."""
    palm_mm: float = 0.0
    """More soft tissue at the ball of the little finger and of the thumb."""
    mineral: float = 1.0
    """Factor of the attenuation of bone: less shows bones that hardly stand out, as of young or plump hands."""
    relief: tuple[float, float] = (0.42, 0.85)
    """Thickness of a slender part, and what a broad one has on top of it."""
    rotation_deg: float | None = None
    """Clockwise in the picture; None is drawn as ordinary, within 15."""
    share: float | None = None
    """Of the picture's height that the hand takes; None is drawn as ordinary."""

    @property
    def is_ordinary(self) -> bool:
        return self == ORDINARY


ORDINARY = Habit()


def draw_habit(rng: np.random.Generator, *, posed: bool, turned: bool) -> Habit:
    """Draws a habit: `posed` varies build and pose, `turned` lays the hand at any angle."""
    spread, closed = rng.uniform(-0.2, 1.8), rng.random() < 0.25
    # Whether short and plump as a toddler's is drawn whatever the bone age: size and flesh must not tell it.
    chubby, grown, small = rng.random() < 0.3, 1 + 0.08 * rng.standard_normal(), rng.uniform(0.7, 0.88)
    length = float(small if chubby else np.clip(grown, 0.82, 1.15))
    fat = float(np.clip(rng.normal(1.15, 0.16) + 1.2 * (1 - length), 0.8, 1.7))
    drawn = Habit(
        spread=float(-0.6 + 0.3 * rng.random() if closed else spread),
        thumb_deg=float(rng.uniform(-24, 22)),
        curl_deg=float(rng.uniform(4, 20)),
        sway_deg=float(rng.uniform(0, 4)),
        wrist_deg=float(np.clip(11 * rng.standard_normal(), -28, 28)),
        finger_length=length,
        palm_length=float(0.5 + 0.5 * length + 0.03 * rng.uniform(-1, 1)),
        plump=fat,
        web=float(rng.uniform(0.15, 0.5)),
        palm_mm=float(rng.uniform(0.0, 5.0) * (1.5 if chubby else 1)),
        mineral=float(rng.uniform(0.45, 1.05)),
        relief=(float(rng.uniform(0.12, 0.42)), float(rng.uniform(0.8, 1.3))),
        rotation_deg=float(np.clip(14 * rng.standard_normal(), -40, 40)),
        share=float(rng.uniform(0.5, 0.97)),
    )
    angle = float(rng.uniform(0, 360))
    if not posed:
        return Habit(rotation_deg=angle, share=drawn.share) if turned else ORDINARY
    if turned:
        return Habit(**{**vars(drawn), "rotation_deg": angle})
    return drawn
