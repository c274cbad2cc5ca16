"""One hand between source and film: its attenuation, its outline, its bones, and where its joints lie."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from preprocessing.drawing.bones import VISIBLE, draw_bones
from preprocessing.drawing.exposure import ByteArray
from preprocessing.drawing.habit import ORDINARY, Habit
from preprocessing.drawing.ossification import CENTRES, Sex, draw_tempo, maturity, shaft_growth
from preprocessing.drawing.placement import Placement, place
from preprocessing.drawing.skeleton import FloatArray, Hand, draw_hand
from preprocessing.drawing.soft_tissue import draw_soft_tissue

_FINER = 2  # bones are drawn on a grid this much finer than the picture: a dot of 1 mm keeps its shape
Points = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Plate:
    """What the beam meets, before it is developed."""

    total_HW: FloatArray
    """Attenuation of soft tissue and bone."""
    soft_HW: FloatArray
    outline_HW: ByteArray
    """255 on hand and forearm, else 0."""
    bones_HW: ByteArray
    """255 where ossified bone is drawn, else 0."""
    points: Points
    """Landmarks in pixels (x, y)."""
    placement: Placement

    def flipped(self) -> Plate:
        """The other hand: the same seen in a mirror. `placement` is that of the hand before."""
        width = self.total_HW.shape[1]
        return replace(
            self,
            total_HW=np.ascontiguousarray(self.total_HW[:, ::-1]),
            soft_HW=np.ascontiguousarray(self.soft_HW[:, ::-1]),
            outline_HW=np.ascontiguousarray(self.outline_HW[:, ::-1]),
            bones_HW=np.ascontiguousarray(self.bones_HW[:, ::-1]),
            points={name: (width - 1 - x, y) for name, (x, y) in self.points.items()},
        )


def draw_plate(
    bone_age_months: float,
    sex: Sex,
    rng: np.random.Generator,
    shape_HW: tuple[int, int],
    *,
    bones_visible: bool = True,
    habit: Habit = ORDINARY,
) -> Plate:
    """Draws one left hand; `rng` is drawn from equally often at every bone age and sex."""
    height, width = shape_HW
    tempo = draw_tempo(rng)
    hand = draw_hand(rng, habit)
    placement = place(hand, height, width, rng, habit)
    fine, fine_HW = placement.enlarged(_FINER), (height * _FINER, width * _FINER)
    tissue = draw_soft_tissue(hand, placement, (height, width), rng, habit)
    texture_HW = _trabeculae(height, width, placement.scale, rng)
    mineral = rng.uniform(0.68, 1.25) * habit.mineral

    states = {centre: maturity(centre, sex, bone_age_months, tempo[centre]) for centre in CENTRES}
    reach = 125.0 if habit.is_ordinary else max(125.0, float(np.hypot(height, width)) / placement.scale)
    growth = shaft_growth(sex, bone_age_months)
    bone_fine_HW = draw_bones(hand, fine, fine_HW, states, growth, texture_HW, forearm_mm=reach)

    bone_HW = _shrink(bone_fine_HW, width, height)
    ossified = _shrink((bone_fine_HW > VISIBLE).astype(np.float32), width, height)
    soft_HW, mask = tissue.attenuation_HW, tissue.outline_HW
    return Plate(
        total_HW=soft_HW + np.float32(mineral) * bone_HW if bones_visible else soft_HW,
        soft_HW=soft_HW,
        outline_HW=mask,
        bones_HW=np.where(ossified > 0.5, mask, np.uint8(0)),
        points=_landmarks(hand, placement),
        placement=placement,
    )


def _trabeculae(height: int, width: int, pixels_per_mm: float, rng: np.random.Generator) -> FloatArray:
    """Relative density of trabecular bone on the finer grid: an irregular mesh about 1."""
    noise = rng.standard_normal((height, width), dtype=np.float32)
    mesh = cv2.GaussianBlur(noise, (0, 0), 0.35 * pixels_per_mm) - cv2.GaussianBlur(noise, (0, 0), 1.0 * pixels_per_mm)
    mesh = np.clip(1 + np.float32(0.22 / max(float(mesh.std()), 1e-6)) * mesh, 0.3, 1.9)
    fine = cv2.resize(mesh, (width * _FINER, height * _FINER), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine, np.float32)


def _shrink(image_HW: FloatArray, width: int, height: int) -> FloatArray:
    return np.asarray(cv2.resize(image_HW, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _landmarks(hand: Hand, placement: Placement) -> Points:
    points = {"wrist": (0.0, 0.0), "middle_fingertip": hand.fingertips[2]}
    points |= {f"fingertip_{ray}": tip for ray, tip in enumerate(hand.fingertips, start=1)}
    points |= {
        bone.name: bone.origin for bone in hand.tubular if bone.name[0].isdigit()
    }  # proximal end of each short bone
    return {name: placement.to_pixels(*point) for name, point in points.items()}
