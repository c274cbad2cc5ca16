"""Wrong inputs that no camera took: noise, gradients, writing, charts, screens and shapes.

Every function draws (H, W) float32 grey levels of about 0 to 1; `wrong` finishes them like files from anywhere.
"""

from __future__ import annotations

import cv2
import numpy as np

from preprocessing.drawing.skeleton import FloatArray

Grey = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
_FONTS = tuple(range(8))  # OpenCV's Hershey fonts
_WORDS = """
    left right hand wrist report patient date clinic of the and bone age years months film no normal study page
    invoice total menu open sale street room 24 7 2019 x-ray comment see above signed letter dear sir
""".split()  # noqa: SIM905


def white_noise(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Uniform, normal or salt-and-pepper noise, of grains from one pixel to a few."""
    grain = int(rng.choice([1, 1, 2, 3, 6]))
    shape = (height // grain + 1, width // grain + 1)
    kind = rng.integers(3)
    if kind == 0:
        noise = rng.random(shape, dtype=np.float32)
    elif kind == 1:
        noise = 0.5 + np.float32(rng.uniform(0.03, 0.3)) * rng.standard_normal(shape, dtype=np.float32)
    else:
        share, base = rng.uniform(0.01, 0.5), np.float32(rng.choice([0.0, 0.5, 1.0]))
        draw = rng.random(shape, dtype=np.float32)
        noise = np.where(draw < share / 2, np.float32(0), np.where(draw > 1 - share / 2, np.float32(1), base))
    mode = cv2.INTER_NEAREST if rng.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(noise, (shape[1] * grain, shape[0] * grain), interpolation=mode)[:height, :width])


def fractal_noise(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Octaves of smooth noise: clouds, marble, or ridges."""
    total: FloatArray = np.zeros((height, width), np.float32)
    loss, cells = rng.uniform(0.35, 0.85), int(rng.integers(1, 6))
    for octave in range(6):
        coarse = rng.standard_normal((cells * 2**octave + 2, cells * 2**octave + 2), dtype=np.float32)
        layer = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        total = total + np.float32(loss**octave) * (np.abs(layer) if octave == 0 and rng.random() < 0.3 else layer)
    if rng.random() < 0.25:
        total = np.sin(np.float32(rng.uniform(2, 8)) * total)
    return stretched(total)


def blank(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """One level with next to nothing on it, as of a plate that was never exposed."""
    picture = np.full((height, width), rng.random(), np.float32)
    return picture + np.float32(rng.uniform(0, 0.02)) * rng.standard_normal((height, width), dtype=np.float32)


def gradient(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """A linear or radial ramp, in one sweep or in rings and bands."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(height)
    if rng.random() < 0.5:
        turn = rng.uniform(0, 2 * np.pi)
        ramp = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    else:
        stretch = np.float32(rng.uniform(0.5, 2))
        ramp = np.hypot((x - np.float32(rng.random())) * stretch, y - np.float32(rng.random()))
    ramp = stretched(ramp)
    if rng.random() < 0.3:
        ramp = 0.5 + 0.5 * np.sin(np.float32(rng.uniform(4, 30)) * ramp)
    elif rng.random() < 0.3:
        ramp = np.floor(ramp * np.float32(rng.integers(3, 12))) / 11
    return np.asarray(ramp ** np.float32(rng.uniform(0.5, 2)), np.float32)


def text_page(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Lines of words in one font, sometimes in columns, with a heading or ruled lines."""
    page: Grey = np.zeros((height, width), np.uint8)
    font, size = int(rng.choice(_FONTS)), height * rng.uniform(0.018, 0.07)
    scale, bold = size / 22, max(1, round(size / rng.uniform(7, 14)))
    left, step = int(width * rng.uniform(0.02, 0.12)), size * rng.uniform(1.4, 2.4)
    y = size * rng.uniform(1.5, 5)
    while y < height * rng.uniform(0.93, 1.0):
        count = int(rng.integers(1, 12))
        line = " ".join(rng.choice(_WORDS, count))[: int((width - 2 * left) / (0.8 * size)) + 1]
        large = rng.random() < 0.06
        cv2.putText(page, line, (left, int(y)), font, scale * (1.8 if large else 1), 255, bold, cv2.LINE_AA)
        if rng.random() < 0.05:
            cv2.line(page, (left, int(y + 0.4 * size)), (width - left, int(y + 0.4 * size)), 200, 1)
        y += step * (1.8 if large or rng.random() < 0.08 else 1)
    return np.asarray(page, np.float32) / 255


def digits(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """One digit or letter that fills the picture, written or printed, or a street number on a wall."""
    picture: Grey = np.zeros((height, width), np.uint8)
    count = int(rng.choice([1, 1, 1, 2, 3, 4]))
    text = "".join(rng.choice(list("0123456789" if rng.random() < 0.8 else "ABEKLRSUVWXY"), count))
    font, size = int(rng.choice(_FONTS)), min(height * rng.uniform(0.3, 0.9), 1.5 * width / count)
    thick = max(2, round(size * rng.uniform(0.04, 0.24)))
    (text_w, text_h), _ = cv2.getTextSize(text, font, size / 22, thick)
    place = (int((width - text_w) * rng.uniform(0.2, 0.8)), int(text_h + (height - text_h) * rng.uniform(0.2, 0.8)))
    cv2.putText(picture, text, place, font, size / 22, 255, thick, cv2.LINE_AA)
    ink = np.asarray(picture, np.float32) / 255
    shear, turn = rng.uniform(-0.3, 0.3), rng.uniform(-0.25, 0.25)
    warp = np.array([[1, shear, -shear * height / 2], [turn, 1, -turn * width / 2]], np.float32)
    ink = np.asarray(cv2.warpAffine(ink, warp, (width, height)), np.float32)
    if rng.random() < 0.45:  # the wall behind a street number
        return ink * np.float32(rng.uniform(0.5, 1)) + (1 - ink) * np.float32(0.6) * fractal_noise(height, width, rng)
    return ink


def grid(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Checkerboard, stripes, dots or a mesh, turned and seen from the side."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(height)
    turn, slant = rng.uniform(0, np.pi), np.float32(rng.uniform(-0.3, 0.3))
    depth = 1 + slant * x + np.float32(rng.uniform(-0.3, 0.3)) * y
    a = (x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))) / depth
    b = (y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))) / depth
    count, kind = np.float32(rng.uniform(3, 40)), rng.integers(4)
    waves_a, waves_b = np.sin(np.pi * count * a), np.sin(np.pi * count * b)
    if kind == 0:
        return np.asarray(waves_a * waves_b > 0, np.float32)
    if kind == 1:
        return np.asarray(0.5 + 0.5 * np.sign(waves_a - np.float32(rng.uniform(-0.8, 0.8))), np.float32)
    if kind == 2:
        return np.asarray(np.hypot(waves_a, waves_b) < rng.uniform(0.3, 1.1), np.float32)
    return np.asarray(np.maximum(np.abs(waves_a), np.abs(waves_b)) > rng.uniform(0.85, 0.98), np.float32)


def test_chart(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """A monitor's or detector's test picture: steps of grey, circles, line pairs, a cross."""
    chart: Grey = np.full((height, width), int(rng.integers(0, 200)), np.uint8)
    steps, deep = int(rng.integers(4, 17)), int(height * rng.uniform(0.08, 0.3))
    top = int(rng.integers(0, height - deep))
    for step in range(steps):
        left, right = width * step // steps, width * (step + 1) // steps
        cv2.rectangle(chart, (left, top), (right, top + deep), step * 255 // (steps - 1), -1)
    for _ in range(int(rng.integers(1, 6))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(chart, centre, int(height * rng.uniform(0.05, 0.45)), int(rng.integers(256)), 2, cv2.LINE_AA)
    for pair in range(int(rng.integers(5, 30))):
        left = int(width * 0.1 + pair * max(2, width / 60))
        cv2.line(chart, (left, height // 8), (left, height // 4), 255, 1 + pair % 3)
    cv2.line(chart, (width // 2, 0), (width // 2, height), 255, 1)
    cv2.line(chart, (0, height // 2), (width, height // 2), 255, 1)
    return np.asarray(chart, np.float32) / 255


def diagram(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Axes with curves, columns, or a bar code."""
    chart: Grey = np.zeros((height, width), np.uint8)
    kind = rng.integers(3)
    if kind == 0:
        x, wide = width * 0.1, width * rng.uniform(0.004, 0.02)
        while x < 0.9 * width:
            bar = wide * int(rng.integers(1, 5))
            cv2.rectangle(chart, (int(x), height // 5), (int(x + bar), height * 4 // 5), 255, -1)
            x += bar + wide * int(rng.integers(1, 5))
        return np.asarray(chart, np.float32) / 255
    cv2.line(chart, (width // 10, height // 12), (width // 10, height * 9 // 10), 255, 2)
    cv2.line(chart, (width // 10, height * 9 // 10), (width * 19 // 20, height * 9 // 10), 255, 2)
    count = int(rng.integers(3, 14))
    if kind == 1:
        for bar in range(count):
            left, level = width * (0.13 + 0.8 * bar / count), height * rng.uniform(0.15, 0.85)
            corner = (int(left + 0.5 * width / count), height * 9 // 10)
            cv2.rectangle(chart, (int(left), int(level)), corner, int(rng.integers(100, 256)), -1)
    else:
        across = np.linspace(0.12, 0.93, 60) * width
        for _ in range(int(rng.integers(1, 5))):
            walk = np.clip(0.5 + np.cumsum(rng.normal(0, 0.04, 60)), 0.1, 0.88) * height
            cv2.polylines(chart, [np.stack([across, walk], 1).astype(np.int32)], False, 255, 1 + int(rng.integers(3)))
    return np.asarray(chart, np.float32) / 255


def polygons(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Bars, triangles and blobs of flat grey, few or many."""
    canvas: Grey = np.full((height, width), int(rng.integers(0, 120)), np.uint8)
    for _ in range(int(rng.choice([1, 2, 5, 15, 40]))):
        centre = rng.random(2) * (width, height)
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        radii = height * rng.uniform(0.03, 0.45) * rng.uniform(0.4, 1, (angles.size, 1))
        corners = centre + radii * np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.2, 1)], 1)
        cv2.fillPoly(canvas, [corners.astype(np.int32)], int(rng.integers(256)), cv2.LINE_AA)
    return np.asarray(canvas, np.float32) / 255


def stretched(picture_HW: FloatArray) -> FloatArray:
    """Rescaled to 0 to 1."""
    low, high = float(picture_HW.min()), float(picture_HW.max())
    return np.asarray((picture_HW - np.float32(low)) / np.float32(max(high - low, 1e-6)), np.float32)
