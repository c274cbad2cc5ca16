"""Wrong inputs that a camera might have taken: drawn stand-ins for photographs, and pictures of screens.

Every function draws (H, W) float32 grey levels of about 0 to 1; `wrong` finishes them like files from anywhere.
"""

from __future__ import annotations

import cv2
import numpy as np

from preprocessing.drawing.habit import draw_habit
from preprocessing.drawing.patterns import Grey, fractal_noise, stretched
from preprocessing.drawing.placement import place
from preprocessing.drawing.skeleton import FloatArray, draw_hand
from preprocessing.drawing.soft_tissue import draw_soft_tissue


def spectrum(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Noise whose amplitude falls as a power of frequency, as in photographs of nature."""
    size = 128 if rng.random() < 0.5 else 192
    frequency = np.hypot(np.fft.fftfreq(size)[:, None] * rng.uniform(0.5, 2), np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    wave = np.fft.rfft2(rng.standard_normal((size, size))) / frequency ** rng.uniform(0.7, 2.0)
    texture = np.fft.irfft2(wave, s=(size, size)).astype(np.float32)
    return stretched(np.asarray(cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC), np.float32))


def dead_leaves(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Opaque shapes of all sizes hiding one another, each with its own grey and texture.

    Source: Lee, Mumford & Huang, "Occlusion models for natural images", IJCV 41:35-59, 2001.
    """
    ids: FloatArray = np.zeros((height, width), np.float32)
    count, least, boxes = int(rng.integers(30, 260)), rng.uniform(0.01, 0.06), rng.random()
    radii = height * least * np.minimum(rng.pareto(rng.uniform(0.8, 2.0), count) + 1, 0.4 / least)
    for leaf, radius in enumerate(radii, start=1):
        x, y, turn = float(rng.random() * width), float(rng.random() * height), float(rng.uniform(0, 180))
        box = ((x, y), (float(2 * radius), float(2 * radius * rng.uniform(0.25, 1))), turn)
        if rng.random() < boxes:
            cv2.fillConvexPoly(ids, cv2.boxPoints(box).astype(np.int32), float(leaf))
        else:
            cv2.ellipse(ids, box, float(leaf), -1)
    which = ids.astype(np.int32)
    level, rough = rng.random(count + 1).astype(np.float32), rng.uniform(0, 0.4, count + 1).astype(np.float32)
    return np.asarray(level[which] + rough[which] * (fractal_noise(height, width, rng) - np.float32(0.5)), np.float32)


def landscape(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Sky, a horizon with hills or houses, ground, perhaps a sun and trees."""
    horizon = height * rng.uniform(0.25, 0.75)
    y = np.arange(height, dtype=np.float32)[:, None]
    sky = np.float32(rng.uniform(0.5, 1)) - np.float32(rng.uniform(0, 0.4)) * y / height
    picture = sky + np.float32(rng.uniform(0, 0.35)) * fractal_noise(height, width, rng)
    if rng.random() < 0.4:
        sun = (int(rng.integers(width)), int(horizon * rng.random()))
        cv2.circle(picture, sun, int(height * rng.uniform(0.03, 0.12)), 1.0, -1, cv2.LINE_AA)
    ground = np.zeros((height, width), np.uint8)
    knots = horizon + height * rng.uniform(0.02, 0.25) * rng.uniform(-1, 1, int(rng.integers(3, 30)))
    if rng.random() < 0.35:  # roofs
        line = np.repeat(knots, 4)[:: max(1, knots.size // 8)]
        ridge = np.interp(np.arange(width), np.linspace(0, width, line.size), line)
    else:
        smooth = cv2.resize(knots.astype(np.float32)[None, :], (width, 1), interpolation=cv2.INTER_CUBIC)
        ridge = np.asarray(smooth[0], np.float64)
    ground[:] = np.where(y > ridge[None, :], 255, 0)
    soil = np.float32(rng.uniform(0.05, 0.5)) + np.float32(rng.uniform(0.1, 0.6)) * spectrum(height, width, rng)
    picture = np.where(ground > 0, soil, picture).astype(np.float32)
    for _ in range(int(rng.choice([0, 0, 3, 8]))):
        foot = (int(rng.integers(width)), int(horizon + rng.uniform(0, 0.2) * height))
        top, grey = int(foot[1] - height * rng.uniform(0.1, 0.5)), float(rng.uniform(0, 0.4))
        cv2.line(picture, foot, (foot[0], top), grey, max(1, height // 60))
        cv2.circle(picture, (foot[0], top), int(height * rng.uniform(0.03, 0.12)), grey, -1, cv2.LINE_AA)
    return picture


def bubbles(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Balls lit from one side, from one large to many small, on a plain or uneven ground."""
    picture = np.float32(rng.uniform(0, 0.7)) + np.float32(rng.uniform(0, 0.3)) * fractal_noise(height, width, rng)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    light = rng.uniform(-0.6, 0.6, 2)
    for _ in range(int(rng.choice([1, 2, 4, 9]))):
        radius = height * rng.uniform(0.05, 0.4)
        dx, dy = (x - np.float32(rng.random() * width)) / radius, (y - np.float32(rng.random() * height)) / radius
        bulge = 1 - dx * dx - dy * dy
        shade = np.sqrt(np.maximum(bulge, 0)) * 0.7 + dx * np.float32(light[0]) + dy * np.float32(light[1])
        picture = np.where(bulge > 0, np.float32(rng.uniform(0.1, 0.5)) + shade * np.float32(0.6), picture)
    return np.asarray(picture, np.float32)


def face(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """An oval with hair, eyes, nose, mouth and shoulders: a portrait, out of focus."""
    canvas: Grey = np.full((height, width), int(rng.integers(0, 256)), np.uint8)
    skin, dark = int(rng.integers(90, 240)), int(rng.integers(0, 90))
    cx, cy = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.35, 0.5)
    long = height * rng.uniform(0.18, 0.33)
    wide = long * rng.uniform(0.65, 0.85)

    def oval(dx: float, dy: float, a: float, b: float, grey: int) -> None:
        centre, axes = (int(cx + dx * wide), int(cy + dy * long)), (int(a * wide) + 1, int(b * long) + 1)
        cv2.ellipse(canvas, centre, axes, 0, 0, 360, grey, -1, cv2.LINE_AA)

    oval(0, 2.1, 2.2, 0.9, int(rng.integers(0, 256)))  # shoulders
    oval(0, 1.0, 0.45, 0.6, max(0, skin - 25))
    oval(0, -0.25, 1.15, 1.05, dark)
    oval(0, 0, 1, 1, skin)
    for side in (-1, 1):
        oval(0.42 * side, -0.15, 0.2, 0.08, 245)
        oval(0.42 * side, -0.15, 0.08, 0.08, dark)
        oval(0.42 * side, -0.35, 0.25, 0.04, dark)
    oval(0, 0.2, 0.1, 0.22, max(0, skin - 30))
    oval(0, 0.55, rng.uniform(0.25, 0.45), rng.uniform(0.04, 0.14), max(0, skin - 90))
    picture = cv2.GaussianBlur(canvas, (0, 0), height * rng.uniform(0.003, 0.02)).astype(np.float32) / 255
    return np.asarray(picture + np.float32(0.2) * (spectrum(height, width, rng) - np.float32(0.5)), np.float32)


def room(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Walls in perspective with door, window, table or shelf: straight edges and flat greys."""
    canvas: Grey = np.full((height, width), int(rng.integers(120, 230)), np.uint8)
    far = np.array([[0.3, 0.3], [0.7, 0.3], [0.7, 0.65], [0.3, 0.65]]) + rng.uniform(-0.15, 0.15, 2)
    far = far * (width, height)
    near = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    for side in range(4):
        wall = np.stack([near[side], near[(side + 1) % 4], far[(side + 1) % 4], far[side]])
        cv2.fillConvexPoly(canvas, wall.astype(np.int32), int(rng.integers(40, 256)), cv2.LINE_AA)
    for _ in range(int(rng.integers(2, 14))):
        x, y = rng.random() * width, rng.random() * height
        w, h = width * rng.uniform(0.03, 0.35), height * rng.uniform(0.03, 0.45)
        lean = rng.uniform(-0.1, 0.1) * height
        quad = np.array([(x, y), (x + w, y + lean), (x + w, y + h + lean), (x, y + h)]).astype(np.int32)
        cv2.fillConvexPoly(canvas, quad, int(rng.integers(256)), cv2.LINE_AA)
        if rng.random() < 0.5:
            cv2.polylines(canvas, [quad], True, int(rng.integers(256)), 1 + int(rng.integers(4)), cv2.LINE_AA)
    picture = canvas.astype(np.float32) / 255
    return np.asarray(picture * (np.float32(0.75) + np.float32(0.4) * fractal_noise(height, width, rng)), np.float32)


def screen(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """The screen of a telephone: status bar, rows with icons and text, a picture, buttons."""
    dark = rng.random() < 0.5
    canvas: Grey = np.full((height, width), 25 if dark else 245, np.uint8)
    ink = 230 if dark else 30
    y = int(0.06 * height)
    cv2.rectangle(canvas, (0, 0), (width, y), int(rng.integers(256)), -1)
    while y < 0.93 * height:
        row, kind = int(height * rng.uniform(0.05, 0.2)), rng.integers(4)
        middle = y + row // 2
        if kind == 0:
            cv2.circle(canvas, (width // 10, middle), max(2, row // 3), int(rng.integers(256)), -1, cv2.LINE_AA)
        elif kind == 1:
            corner = (width * 9 // 10, y + row - 2)
            cv2.rectangle(canvas, (width // 10, y), corner, int(rng.integers(256)), -1)
        else:
            for line in range(int(rng.integers(1, 4))):
                level = y + int((line + 0.5) * row / 4)
                end = int(width * rng.uniform(0.4, 0.95))
                cv2.line(canvas, (width // 5, level), (end, level), ink, max(1, row // 14))
        cv2.line(canvas, (0, y + row), (width, y + row), 128, 1)
        y += row
    return np.asarray(canvas, np.float32) / 255


def hand_photo(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """A hand as a camera sees it: skin lit from one side, creases, no bones, on a table or a patterned ground."""
    habit = draw_habit(rng, posed=True, turned=rng.random() < 0.5)
    hand = draw_hand(rng, habit)
    placement = place(hand, height, width, rng, habit)
    tissue = draw_soft_tissue(hand, placement, (height, width), rng, habit)
    cover = cv2.GaussianBlur(tissue.outline_HW, (0, 0), 0.8).astype(np.float32) / 255
    ground = (spectrum if rng.random() < 0.4 else fractal_noise)(height, width, rng)
    ground = np.float32(rng.uniform(0, 0.8)) + np.float32(rng.uniform(0.02, 0.35)) * (ground - np.float32(0.5))
    relief = cv2.GaussianBlur(stretched(tissue.attenuation_HW), (0, 0), height / 100)
    lit = cv2.Sobel(relief, cv2.CV_32F, 1, 0) * np.float32(rng.uniform(-2, 2))
    lit = lit + cv2.Sobel(relief, cv2.CV_32F, 0, 1) * np.float32(rng.uniform(-2, 2))
    creases = np.zeros((height, width), np.uint8)
    for bone in hand.tubular:
        if bone.name[0].isdigit() and not bone.name.endswith("metacarpal"):
            for along in rng.uniform(-1.5, 1.5, 3):
                ends = [placement.to_pixels(*bone.point(float(along), side * bone.base)) for side in (-0.8, 0.8)]
                first, second = ((int(x), int(y)) for x, y in ends)
                cv2.line(creases, first, second, 255, 1, cv2.LINE_AA)
    pores = np.float32(0.1) * (fractal_noise(height, width, rng) - np.float32(0.5))
    skin = np.float32(rng.uniform(0.25, 0.95)) + lit + pores - np.float32(0.15) * creases.astype(np.float32) / 255
    shadow = cv2.GaussianBlur(np.roll(tissue.outline_HW, (height // 40, height // 50), (0, 1)), (0, 0), height / 50)
    ground = ground * (1 - np.float32(rng.uniform(0, 0.6)) * shadow.astype(np.float32) / 255)
    return np.asarray(ground * (1 - cover) + skin * cover, np.float32)
