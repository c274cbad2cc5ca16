"""X-ray attenuation of the ossified skeleton: each bone as path lengths through cortex and trabecular bone.

A short bone is a shaft and, once its centre has appeared, an epiphysis across a gap of cartilage; fusion
bridges the gap and leaves a white scar that fades. Shafts are dense at the rim, spongy near the ends and
almost empty inside. Cartilage is left out: on a radiograph it looks like soft tissue.

Every size below is non-decreasing in the maturity of its centre, so drawn bone only grows with bone age.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from preprocessing.drawing.ossification import Maturity
from preprocessing.drawing.placement import Placement, patch
from preprocessing.drawing.skeleton import FloatArray, Hand, Round, Tubular
from preprocessing.drawing.solids import TRABECULAR, bead, solid

VISIBLE = 0.012
"""Attenuation above which a pixel counts as bone."""

# Half-width along the axis as (position, factor of base, factor of waist, factor of head).
_OUTLINES = {
    "phalanx": ((0, 0.95, 0, 0), (0.06, 1, 0, 0), (0.17, 0.96, 0.02, 0), (0.29, 0.3, 0.66, 0),
                (0.45, 0, 1.06, 0), (0.66, 0, 1, 0), (0.80, 0, 0.45, 0.52), (0.91, 0, 0, 1.02),
                (1, 0, 0, 0.95)),
    "distal": ((0, 0.95, 0, 0), (0.10, 1, 0, 0), (0.24, 0.9, 0.1, 0), (0.40, 0.25, 0.75, 0), (0.58, 0, 1, 0),
               (0.74, 0, 0.9, 0.1), (0.87, 0, 0, 1), (1, 0, 0, 0.8)),
    "metacarpal": ((0, 0.94, 0, 0), (0.07, 1, 0, 0), (0.18, 0.5, 0.52, 0), (0.36, 0, 1.02, 0),
                   (0.58, 0, 1, 0), (0.70, 0, 0.62, 0.34), (0.81, 0, 0.06, 0.90),
                   (0.91, 0, 0, 1), (1, 0, 0, 0.88)),
    "thumb": ((0, 0.95, 0, 0), (0.08, 1, 0, 0), (0.18, 0.92, 0.05, 0), (0.32, 0.3, 0.68, 0), (0.52, 0, 1, 0),
              (0.72, 0, 0.7, 0.3), (0.9, 0, 0, 1), (1, 0, 0, 0.9)),
    "radius": ((0, 1, 0, 0), (0.6, 0, 1, 0), (0.76, 0, 0.98, 0.05), (0.87, 0, 0.5, 0.45), (0.945, 0, 0, 0.97),
               (1, 0, 0, 1)),
    "ulna": ((0, 1, 0, 0), (0.7, 0, 1, 0), (0.86, 0, 0.98, 0.04), (0.94, 0, 0.3, 0.68), (0.975, 0, 0, 1),
             (1, 0, 0, 0.95)),
}  # fmt: skip
_TILT = {"radius": (0.03, 0.20), "ulna": (0.0, -0.12)}
"""Slope of the growth plate and of the joint surface across the bone's width."""
_SHOULDER = {"metacarpal": 0.5, "radius": 0.12, "ulna": 0.3}
"""How far the joint surface of the mature bone falls back at its sides, in half-widths."""
_FINE = np.linspace(0, 1, 65)


def draw_bones(
    hand: Hand,
    placement: Placement,
    shape_HW: tuple[int, int],
    maturity: Mapping[str, Maturity],
    growth: float,
    texture_HW: FloatArray,
    *,
    forearm_mm: float = 125.0,
) -> FloatArray:
    """Attenuation of all ossified bone.

    Args:
        hand: Mature geometry.
        placement: Where the hand lies on the pixel grid.
        shape_HW: Height and width of the grid.
        maturity: State of each of `ossification.CENTRES`.
        growth: 0 to 1: how far shafts have grown into their cartilage, from `ossification.shaft_growth`.
        texture_HW: Relative density of trabecular bone, about 1, on the same grid.
        forearm_mm: How much of the forearm is drawn, from the wrist.

    Returns:
        (H, W) float32, 0 where there is no bone.
    """
    attenuation_HW = np.zeros(shape_HW, np.float32)
    for bone in hand.tubular:
        drawn = forearm_mm if bone.kind in ("radius", "ulna") else bone.length
        middle = bone.length - drawn / 2
        reach = 1.15 * max(bone.base, bone.head) + 2
        located = patch(placement, shape_HW, bone.point(middle), bone.angle, reach, drawn / 2 + 4)
        if located is not None:
            window, x, s = located
            attenuation_HW[window] += _tubular(
                s + np.float32(middle), x, bone, maturity[bone.name], growth, texture_HW[window]
            )
    for shape in hand.rounds:
        grown = maturity[shape.name].grown
        reach = 1.5 * max(shape.half_width, shape.half_height)
        located = patch(placement, shape_HW, shape.centre, shape.angle, reach, reach)
        if located is not None and grown > 0:
            window, x, y = located
            attenuation_HW[window] += _round(x, y, shape, grown, texture_HW[window])
    return attenuation_HW


def _tubular(
    s: FloatArray, x: FloatArray, bone: Tubular, maturity: Maturity, growth: float, texture: FloatArray
) -> FloatArray:
    """Attenuation of shaft and epiphysis; `s` along the axis from the proximal end, `x` across it, in mm."""
    profile = _PROFILES[bone.kind]
    u = np.clip(s / bone.length, 0, 1)
    half = np.interp(u, _FINE, profile @ (bone.base, bone.waist, bone.head)).astype(np.float32)
    x = x - np.float32(4 * bone.bow) * u * (1 - u)
    across = np.minimum(np.abs(x) / half, 1.5)

    # Depth below the ends of the mature bone: `d` below the end with the epiphysis, `other` below the other.
    if bone.epiphysis_at_head:
        d, other, end_half = bone.length - s, s, bone.head
    else:
        d, other, end_half = s, bone.length - s, bone.base
    plate_tilt, joint_tilt = _TILT.get(bone.kind, (0.0, 0.0))
    lateral = x / np.float32(end_half)
    d = d + np.float32(joint_tilt * end_half) * lateral  # follows the joint surface
    cupped = d + np.float32((plate_tilt - joint_tilt) * end_half) * lateral - np.float32(0.08 * end_half) * lateral**2
    other = other - _rounding(bone, across, half)

    thick = 2 * bone.plate
    gap = (0.20 + 1.15 * (1 - growth)) * np.sqrt(
        bone.plate
    )  # cartilage of the growth plate, and of the end not yet ossified
    missing = 0.055 * min(bone.length, 50.0) * (1 - growth)
    cortex = bone.waist * (0.30 + 0.16 * growth) * np.clip(4.4 * (u - 0.02) * (0.98 - u), 0.16, 1)
    if bone.kind in ("radius", "ulna"):
        cortex = bone.waist * (0.24 + 0.14 * growth) * np.clip((bone.length - s) / 45 - 0.1, 0.1, 1)
        other = np.full_like(other, 50.0)
    nearness = np.clip(1.5 - np.minimum(d, other + 4) / (0.30 * min(bone.length, 60.0)), 0.12, 1)
    trabecular = TRABECULAR * nearness * texture
    shaft = solid(x, half, cupped - np.float32(thick + gap), other - np.float32(missing), cortex, trabecular)
    if maturity.grown <= 0:
        return shaft
    epiphysis = _epiphysis(d, cupped, lateral, bone, end_half, maturity, texture)
    if maturity.fused <= 0:
        return shaft + epiphysis

    rounded = d - np.float32(_SHOULDER.get(bone.kind, 0.22) * end_half) * np.clip(across, 0, 1) ** 3
    whole = solid(x, half, rounded - 0.2, other - np.float32(missing), cortex, trabecular)
    scar = np.exp(-(((cupped - np.float32(thick + 0.4 * gap)) / 0.55) ** 2)) * (whole > 0)
    # The plate is bridged from its middle outwards.
    bridged = np.clip(2 * maturity.fused - across, 0, 1) * np.clip((2.2 * thick - d) / thick, 0, 1)
    whole = whole + np.float32(0.14 * (1 - 0.85 * maturity.faded)) * scar
    apart = shaft + epiphysis
    # Outlines of the former parts shine through faintly, as in radiographs; and what was bone stays bone.
    remains = np.maximum(np.float32(0.6 - 0.2 * maturity.faded) * apart, np.minimum(apart, 2 * VISIBLE))
    return np.asarray(apart * (1 - bridged) + np.maximum(whole, remains) * bridged, np.float32)


def _epiphysis(
    d: FloatArray,
    cupped: FloatArray,
    lateral: FloatArray,
    bone: Tubular,
    end_half: float,
    maturity: Maturity,
    texture: FloatArray,
) -> FloatArray:
    """A dot that widens to a disc (phalanges) or dome (metacarpals) and then caps the shaft."""
    wide = end_half * (0.06 + 0.82 * maturity.grown + 0.10 * maturity.capped)
    thin: float | FloatArray = bone.plate * (0.22 + 0.66 * maturity.grown + 0.12 * maturity.capped)
    dome = 0.42 if bone.kind == "metacarpal" else 0.10
    # Towards the joint the disc is rounded; towards the plate it follows the cup of the shaft's end.
    middle: FloatArray = 0.5 * (d + cupped) - np.float32(dome * end_half * 0.25) * lateral**2 - np.float32(bone.plate)
    if bone.kind == "radius":
        thin = thin * (1 + 0.16 * np.clip(lateral, -1, 1))  # wedge: high at the styloid
    if maturity.capped > 0:  # the rim grows towards the shaft
        middle = middle - np.float32(0.35 * bone.plate * maturity.capped) * np.clip(np.abs(lateral) - 0.45, 0, 1) ** 2
    return bead(lateral * np.float32(end_half), middle, wide, thin, 2.5, 0.8 * wide, texture)


def _round(x: FloatArray, y: FloatArray, shape: Round, grown: float, texture: FloatArray) -> FloatArray:
    """A carpal: round while small, its own outline when grown."""
    mean = np.sqrt(shape.half_width * shape.half_height)
    wide = grown * (mean + grown * (shape.half_width - mean))
    high = grown * (mean + grown * (shape.half_height - mean))
    power = 2 + grown * (shape.power - 2)
    narrowed = x / np.clip(1 + np.float32(grown * shape.taper) * y / np.float32(high), 0.5, 1.6)
    cos = narrowed / np.sqrt(narrowed**2 + y**2 + 0.01)
    sin = y / np.sqrt(narrowed**2 + y**2 + 0.01)
    corners = shape.corners[0] * (4 * cos**3 - 3 * cos) + shape.corners[1] * (
        3 * sin - 4 * sin**3
    )  # of cos and sin of 3 turns
    swell = 1 + np.float32(grown) * corners
    narrowed, y = narrowed / swell, y / swell
    return bead(narrowed, y, wide, high, power, 0.62 * grown * mean + 0.8, texture)


def _rounding(bone: Tubular, across: FloatArray, half: FloatArray) -> FloatArray:
    """How far the end without an epiphysis falls back at its sides: condyles, tuft, metacarpal base."""
    across = np.clip(across, 0, 1)
    if bone.kind == "phalanx":
        return half * (0.5 * across**4 + 0.14 * (1 - across**2) ** 2)
    if bone.kind == "distal":
        return half * 0.8 * across**3
    if bone.kind == "thumb":
        return half * 0.55 * across**3
    return half * 0.3 * across**4


def _profile(knots: tuple[tuple[float, ...], ...]) -> FloatArray:
    """(65, 3) weights of base, waist and head along the axis, eased so that outlines have no corners."""
    table = np.array(knots, np.float64)
    fine = np.stack([np.interp(_FINE, table[:, 0], table[:, column]) for column in (1, 2, 3)], axis=1)
    kernel = np.hanning(9)[1:-1]
    padded = np.pad(fine, ((3, 3), (0, 0)), mode="edge")
    smooth = np.stack(
        [np.convolve(padded[:, column], kernel / kernel.sum(), mode="valid") for column in range(3)], axis=1
    )
    return smooth.astype(np.float32)


_PROFILES = {kind: _profile(knots) for kind, knots in _OUTLINES.items()}
