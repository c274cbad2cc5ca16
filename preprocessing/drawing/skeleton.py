"""Where the bones of one drawn left hand lie, and how they are posed; nothing here knows bone age.

Lengths are in millimetres of a mature hand whatever the bone age, because a phantom's hand is scaled to the
picture: size must not give bone age away. Proportions are rounded from adult radiographs (metacarpals of 46
to 68 mm, phalanges of 17 to 45 mm, carpus about 36 mm high and 50 mm wide). The frame: origin at the wrist
joint, x to the thumb's side (right in the picture), y towards the fingers; angles are in radians from +y,
positive towards the thumb.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.drawing.habit import ORDINARY, Habit

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Tubular:
    """A tubular bone; its axis runs from the proximal end (s = 0) to the distal end (s = length)."""

    name: str
    kind: str
    """metacarpal, thumb, phalanx, distal, radius or ulna: chooses the outline."""
    origin: tuple[float, float]
    angle: float
    length: float
    base: float
    """Half-widths in mm: at the proximal end, at the waist, at the distal end."""
    waist: float
    head: float
    plate: float
    """Half the thickness of the mature epiphysis along the axis, in mm."""
    epiphysis_at_head: bool
    bow: float
    """Sideways bend of the axis at mid-shaft, in mm."""

    def point(self, along: float, sideways: float = 0.0) -> tuple[float, float]:
        """Position in the hand's frame of a point given along the axis and to its thumb side, in mm."""
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        x, y = self.origin
        return float(x + along * sin + sideways * cos), float(y + along * cos - sideways * sin)


@dataclass(frozen=True, kw_only=True)
class Round:
    """A carpal or sesamoid: a rotated superellipse, wider at one end by `taper`."""

    name: str
    centre: tuple[float, float]
    angle: float
    half_width: float
    half_height: float
    power: float
    taper: float
    corners: tuple[float, float]
    """Relative swelling of the outline in three directions, cosine and sine part: no bone is an ellipse."""


@dataclass(frozen=True, kw_only=True)
class Hand:
    """Mature geometry of one individual in one pose."""

    tubular: tuple[Tubular, ...]
    rounds: tuple[Round, ...]
    fingertips: tuple[tuple[float, float], ...]
    """Ends of the soft tissue, thumb first."""

    def bone(self, name: str) -> Tubular:
        return next(bone for bone in self.tubular if bone.name == name)


# ray: metacarpal base (x, y), metacarpal angle in degrees, extra fan of the finger in degrees at full spread.
_RAYS = {
    1: ((23.5, 29.0), 40.0, -6.0),
    2: ((11.5, 35.0), 9.0, 5.0),
    3: ((1.0, 35.5), 0.0, 0.0),
    4: ((-8.5, 34.0), -8.0, -4.0),
    5: ((-16.0, 31.0), -17.0, -12.0),
}
# ray: rows of (length, base, waist, head) for metacarpal, proximal, (middle,) distal.
_SIZES = {
    1: ((46, 7.8, 5.0, 7.2), (32, 7.4, 4.5, 5.8), (23, 7.2, 3.7, 4.9)),
    2: ((67, 8.4, 4.4, 7.4), (40, 7.8, 4.7, 5.8), (24, 6.7, 3.9, 5.0), (18, 5.4, 2.5, 4.0)),
    3: ((65, 7.6, 4.4, 7.6), (45, 8.0, 4.9, 6.1), (28.5, 7.1, 4.1, 5.3), (19, 5.8, 2.7, 4.2)),
    4: ((58, 6.4, 3.7, 6.7), (42, 7.4, 4.5, 5.7), (27.5, 6.7, 3.8, 5.0), (19, 5.5, 2.6, 4.1)),
    5: ((54, 6.8, 3.8, 6.4), (33, 6.7, 3.9, 4.8), (19.5, 5.6, 3.2, 4.3), (16.5, 4.6, 2.1, 3.4)),
}
# name: centre, angle in degrees, half-width, half-height, power, taper.
_CARPALS = {
    "capitate": ((0.5, 21.3), 2, 7.2, 12.3, 2.8, 0.16),
    "hamate": ((-11.8, 23.8), -14, 7.5, 9.9, 2.9, 0.38),
    "triquetral": ((-17.6, 11.6), -38, 5.6, 8.5, 2.8, 0.12),
    "lunate": ((-4.6, 7.0), 8, 7.8, 6.8, 2.6, -0.14),
    "scaphoid": ((11.0, 10.8), 42, 6.0, 11.8, 2.6, 0.06),
    "trapezium": ((20.6, 22.3), 38, 8.0, 6.4, 3.0, 0.10),
    "trapezoid": ((11.6, 26.6), 14, 5.7, 6.6, 2.9, 0.22),
    "pisiform": ((-18.6, 14.2), -25, 4.5, 5.8, 2.1, 0.0),
}
_CORNERS = {"triquetral": 0.05, "trapezium": -0.06, "trapezoid": 0.05, "hamate": 0.05, "lunate": -0.04}
_SEGMENTS = {3: ("metacarpal", "proximal", "distal"), 4: ("metacarpal", "proximal", "middle", "distal")}
_PLATES = {"metacarpal": 5.5, "proximal": 2.8, "middle": 2.5, "distal": 2.1}
_PIVOT = (-4.0, 9.0)
FOREARM = 170.0
"""Drawn length of radius and ulna, in mm: always beyond the lower edge of the picture."""


def draw_hand(rng: np.random.Generator, habit: Habit = ORDINARY) -> Hand:
    """Draws one individual's proportions and the pose of its fingers; as many draws for every hand of a habit."""
    build = 1 + 0.05 * _bounded(rng)
    spread = rng.uniform(0.35, 1.35)
    if habit.spread is not None:
        spread = habit.spread
    tubular: list[Tubular] = []
    tips: list[tuple[float, float]] = []
    for ray, (base, metacarpal_angle, fan) in _RAYS.items():
        rows = _SIZES[ray]
        angle = np.radians(metacarpal_angle * (0.75 + 0.25 * spread) + 1.2 * _bounded(rng))
        if ray == 1:
            angle += np.radians(8 * _bounded(rng) + habit.thumb_deg)
        origin = (base[0] + 0.4 * _bounded(rng), base[1] + 0.4 * _bounded(rng))
        longer = 1 + 0.02 * _bounded(rng)
        for segment, (length, wide, waist, head) in zip(_SEGMENTS[len(rows)], rows, strict=True):
            if segment == "proximal":
                angle += np.radians(fan * spread + 2.0 * _bounded(rng))
                if habit.sway_deg:
                    angle += np.radians(habit.sway_deg * _bounded(rng))
            elif segment != "metacarpal":
                angle += np.radians(1.8 * _bounded(rng))
            # A slightly bent finger is foreshortened; the palm lies flat.
            bend = 0.0 if segment == "metacarpal" else np.radians(habit.curl_deg) * abs(_bounded(rng))
            noise = 1 + 0.025 * np.array([_bounded(rng) for _ in range(4)])
            stretch = habit.palm_length if segment == "metacarpal" else habit.finger_length
            thumb_metacarpal = ray == 1 and segment == "metacarpal"
            bone = Tubular(
                name=f"{ray}_{segment}",
                kind="thumb" if thumb_metacarpal else segment if segment in ("metacarpal", "distal") else "phalanx",
                origin=origin,
                angle=float(angle),
                length=float(length * stretch * longer * noise[0] * np.cos(bend)),
                base=float(wide * build * noise[1]),
                waist=float(waist * build * noise[2]),
                head=float(head * build * noise[3]),
                plate=2.9 if thumb_metacarpal else _PLATES[segment] * (0.85 if ray == 5 else 1.0),
                epiphysis_at_head=segment == "metacarpal" and ray != 1,
                bow=0.5 * _bounded(rng),
            )
            tubular.append(bone)
            origin = bone.point(bone.length + (1.7 if segment == "metacarpal" else 1.2))
        tips.append(tubular[-1].point(tubular[-1].length + 4.2))
    forearm = np.radians(4 * _bounded(rng))
    for name, (x, y), length_half, plate in (
        ("radius", (6.0, 2.2), (7.0, 7.4, 15.4), 4.4),
        ("ulna", (-18.6, -1.8), (5.4, 5.6, 8.2), 3.2),
    ):
        noise = 1 + 0.03 * np.array([_bounded(rng) for _ in range(3)])
        angle = forearm + np.radians(-2.5 if name == "radius" else 1.5)
        if habit.wrist_deg:  # both bones turn about the middle of the carpus
            turn = -np.radians(habit.wrist_deg)
            angle += turn
            along_x, along_y = x - _PIVOT[0], y - _PIVOT[1]
            x = float(_PIVOT[0] + along_x * np.cos(turn) + along_y * np.sin(turn))
            y = float(_PIVOT[1] + along_y * np.cos(turn) - along_x * np.sin(turn))
        foot, waist, head = (float(half * build * factor) for half, factor in zip(length_half, noise, strict=True))
        origin = (float(x - FOREARM * np.sin(angle)), float(y - FOREARM * np.cos(angle)))
        tubular.append(
            Tubular(
                name=name,
                kind=name,
                origin=origin,
                angle=float(angle),
                length=FOREARM,
                base=foot,
                waist=waist,
                head=head,
                plate=plate,
                epiphysis_at_head=True,
                bow=0.0,
            )
        )
    return Hand(tubular=tuple(tubular), rounds=_draw_rounds(rng, tubular[0], build), fingertips=tuple(tips))


def _draw_rounds(rng: np.random.Generator, thumb: Tubular, build: float) -> tuple[Round, ...]:
    rounds = []
    sesamoid = thumb.point(thumb.length - 2.5, -0.62 * thumb.head)
    shapes = {**_CARPALS, "sesamoid": (sesamoid, 40, 2.4, 3.0, 2.0, 0.0)}
    for name, (centre, degrees, half_width, half_height, power, taper) in shapes.items():
        x, y, turn, width, height, cosine, sine = (_bounded(rng) for _ in range(7))
        rounds.append(
            Round(
                name=name,
                centre=(centre[0] + 0.4 * x, centre[1] + 0.4 * y),
                angle=float(np.radians(degrees + 5 * turn)),
                half_width=half_width * (0.5 + 0.5 * build) * (1 + 0.03 * width),
                half_height=half_height * (1 + 0.03 * height),
                power=power,
                taper=taper,
                corners=(0.03 * cosine + _CORNERS.get(name, 0.0), 0.03 * sine),
            )
        )
    return tuple(rounds)


def _bounded(rng: np.random.Generator) -> float:
    """A normal draw cut at two standard deviations, so that no hand is malformed."""
    return float(np.clip(rng.standard_normal(), -2, 2))
