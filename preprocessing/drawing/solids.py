"""Attenuation of two solids with a dense shell, seen in projection: a shaft between two end faces, and a
bead.

Where the beam crosses a bone, the path through the whole solid minus the path through its inside is cortex;
the inside is trabecular bone. Bright rims and a darker medulla follow from that.
"""

from __future__ import annotations

import numpy as np

from preprocessing.drawing.skeleton import FloatArray

CORTEX, TRABECULAR = 0.105, 0.034
"""Attenuation per mm in excess of the soft tissue that the bone displaces."""


def bead(
    x: FloatArray,
    y: FloatArray,
    wide: float,
    high: float | FloatArray,
    power: float,
    depth: float,
    texture: FloatArray,
) -> FloatArray:
    """A superellipse: half-axes `wide` and `high` across the beam, `depth` along it; a thin dense shell."""
    shell = 0.28 + 0.05 * depth
    low = np.minimum(high, wide)
    outer = _dome(x / wide, y / high, power)
    inner = _dome(x / np.maximum(wide - shell, 0.3), y / np.maximum(high - np.minimum(shell, 0.5 * low), 0.2), power)
    inner = inner * np.float32(max(depth - shell, 0.1) / depth)
    return 2 * np.float32(depth) * (CORTEX * (outer - inner) + TRABECULAR * inner * texture)


def _dome(xi: FloatArray, eta: FloatArray, power: float) -> FloatArray:
    """Relative thickness of a flattened ellipsoid: 1 in the middle, falling steeply to 0 at its outline."""
    radius = np.abs(xi) ** power + np.abs(eta) ** power
    return np.sqrt(np.clip(1 - radius * np.sqrt(radius), 0, 1))


def solid(
    x: FloatArray,
    half: FloatArray,
    near: FloatArray,
    far: FloatArray,
    cortex: FloatArray,
    trabecular: FloatArray,
) -> FloatArray:
    """A round shaft of half-width `half` between two end faces; `near` and `far` are depths below them."""
    flat = 0.85  # bones of the hand are a little flatter than wide
    plate = 0.5  # thickness of the dense end plates, in mm
    outer = np.sqrt(np.maximum(half**2 - x**2, 0)) * _edge(near) * _edge(far)
    inner = (
        np.sqrt(np.maximum(np.maximum(half - cortex, 0.2) ** 2 - x**2, 0)) * _edge(near - plate) * _edge(far - plate)
    )
    inner = np.minimum(inner, outer)
    return np.asarray(2 * flat * (CORTEX * (outer - inner) + trabecular * inner), np.float32)


def _edge(depth: FloatArray) -> FloatArray:
    """0 outside an end face, 1 from half a millimetre below it."""
    return np.asarray(np.clip(depth / 0.5, 0, 1))
