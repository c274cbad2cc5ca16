"""From attenuation to a grey radiograph: beam, scatter, noise, display curve, markers and film frames.

Everything here is drawn without knowledge of bone age or of the bones, so that brightness, contrast, noise
and what lies beside the hand tell nothing about it.
"""

from __future__ import annotations

import cv2
import numpy as np

from preprocessing.drawing.skeleton import FloatArray

ByteArray = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def expose(
    attenuation_HW: FloatArray, soft_HW: FloatArray, outline_HW: ByteArray, rng: np.random.Generator
) -> ByteArray:
    """Develops one radiograph, bone bright, as (H, W) uint8; takes what `develop` takes."""
    return np.clip(develop(attenuation_HW, soft_HW, outline_HW, rng) + 0.5, 0, 255).astype(np.uint8)


def develop(
    attenuation_HW: FloatArray,
    soft_HW: FloatArray,
    outline_HW: ByteArray,
    rng: np.random.Generator,
    *,
    letter: str = "L",
) -> FloatArray:
    """Develops one radiograph, bone bright, before it is cut to whole grey levels.

    Args:
        attenuation_HW: Soft tissue and bone, natural logarithm units, float32.
        soft_HW: Soft tissue alone; sets the display window, which must not depend on the bones.
        outline_HW: 255 where the hand is; markers keep off it.
        rng: Drawn from the same number of times whatever the bones.
        letter: What the lead marker says of the side.

    Returns:
        (H, W) float32 on a scale where 0 is black and 255 white; some of it lies beyond.
    """
    height, width = attenuation_HW.shape
    beam, scatter, dose = rng.uniform(0.85, 1.2), rng.uniform(0.02, 0.14), 10 ** rng.uniform(3.6, 4.6)
    window, gamma, grain = rng.uniform(1.7, 3.0), rng.uniform(0.75, 1.35), rng.uniform(0.2, 1.2)
    blur = rng.uniform(0.35, 0.75) * height / 320
    slope = rng.uniform(-0.06, 0.06, 2)
    low_contrast, level = rng.uniform() < 0.2, rng.uniform()
    noise_HW = rng.standard_normal((height, width), dtype=np.float32)
    grain_HW = rng.standard_normal((height, width), dtype=np.float32)

    light = np.exp(-np.float32(beam) * attenuation_HW)
    haze = cv2.resize(light, (width // 8, height // 8), interpolation=cv2.INTER_AREA)
    haze = cv2.GaussianBlur(haze, (0, 0), height / 8 / 12, borderType=cv2.BORDER_REPLICATE)
    light = (1 - np.float32(scatter)) * light + np.float32(scatter) * cv2.resize(haze, (width, height))
    light = cv2.GaussianBlur(light, (0, 0), blur)
    light = np.maximum(light + noise_HW * np.sqrt(light / np.float32(dose)), 1e-3)

    density = -np.log(light)
    density += np.float32(slope[0]) * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    density += np.float32(slope[1]) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    flesh = soft_HW[outline_HW > 0]
    top = np.float32(beam * window * (np.percentile(flesh[::7], 70) if flesh.size else 0.4))
    shown = np.clip((density + 0.03) / top, 0, None)
    shown = shown / (1 + 0.12 * shown**3)  # shoulder of the film: the densest bone is compressed
    shown = np.maximum(shown, 0) ** np.float32(gamma)
    if low_contrast:
        floor, span = 25 + 100 * level, 60 + 60 * (1 - level)
    else:
        floor, span = 18 * level, 215.0
    grey = np.float32(floor) + np.float32(span) * shown + np.float32(grain) * grain_HW
    grey = _frame(grey, rng)
    return _stamp(grey, outline_HW, np.float32(min(255.0, floor + span * rng.uniform(0.85, 1.25))), letter, rng)


def _frame(grey_HW: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Collimation: black shutters, a bright unexposed rim, or nothing."""
    kind, soft, tilt = rng.uniform(), rng.uniform(0.4, 2.5), rng.uniform(-1.2, 1.2)
    margins = rng.uniform(0.0, 0.05, 4)
    dim = rng.uniform(0.0, 0.5)
    if kind < 0.55:
        return grey_HW
    height, width = grey_HW.shape
    left, right = margins[0] * width, width - margins[1] * width
    top, bottom = margins[2] * height, height - margins[3] * height if kind < 0.8 else height + 5.0
    corners: FloatArray = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    centre = np.array([width / 2, height / 2], np.float32)
    turn = np.radians(tilt)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], np.float32)
    corners = (corners - centre) @ rotation + centre
    inside = np.zeros(grey_HW.shape, np.uint8)
    cv2.fillConvexPoly(inside, (corners * 16).astype(np.int32), 255, lineType=cv2.LINE_AA, shift=4)
    weight = cv2.GaussianBlur(inside.astype(np.float32) / 255, (0, 0), soft)
    rim = np.float32(0.0 if kind < 0.8 else 60 + 160 * dim)
    return np.asarray(grey_HW * weight + rim * (1 - weight))


def _stamp(
    grey_HW: FloatArray, outline_HW: ByteArray, bright: np.float32, letter: str, rng: np.random.Generator
) -> FloatArray:
    """Lead letters: one for the side, sometimes initials below and a plate round them, at a free place."""
    height, width = grey_HW.shape
    present, plated, turn = rng.uniform() < 0.9, rng.uniform() < 0.6, rng.normal(0, 14)
    size = height * rng.uniform(0.045, 0.085)
    initials = "".join(chr(65 + int(letter)) for letter in rng.integers(0, 26, 3))[: int(rng.integers(0, 4))]
    stacked = rng.uniform() < 0.5
    corners = rng.uniform(0, 1, (24, 2))
    if not present:
        return grey_HW
    letters = [(letter, 1.0)] + [(text, 0.55) for text in (initials if stacked else [initials]) if text]
    step = [size * 1.35 * scale for _, scale in letters]
    box_w = int(size * (1.1 if stacked or not initials else 0.75 * max(1.5, len(initials)))) + 6
    box_h = int(sum(step)) + 8
    plate: FloatArray = np.zeros((box_h, box_w), np.float32)
    ink = np.zeros((box_h, box_w), np.uint8)
    if plated:
        plate[1:-1, 1:-1] = 0.16
    baseline = 3.0
    for (text, scale), advance in zip(letters, step, strict=True):
        baseline += advance
        font = size * scale / 22
        (text_w, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font, 2)
        position = (max(1, (box_w - text_w) // 2), int(baseline - 0.2 * advance))
        cv2.putText(
            ink,
            text,
            position,
            cv2.FONT_HERSHEY_SIMPLEX,
            font,
            255,
            max(1, round(size * scale / 7)),
            cv2.LINE_AA,
        )
    stamp = np.maximum(plate, ink.astype(np.float32) / 255)
    side = int(np.hypot(box_h, box_w)) + 4
    move = cv2.getRotationMatrix2D((box_w / 2, box_h / 2), float(turn), 1.0)
    move[:, 2] += side / 2 - np.array([box_w / 2, box_h / 2])
    stamp = cv2.warpAffine(stamp, move, (side, side), flags=cv2.INTER_LINEAR)
    if side >= min(height, width):
        return grey_HW
    for x, y in corners:  # first place that is off the hand
        left, top = int(x * (width - side)), int(y * (height - side))
        window = (slice(top, top + side), slice(left, left + side))
        if not outline_HW[window].any():
            grey_HW[window] = grey_HW[window] * (1 - stamp) + bright * stamp
            break
    return grey_HW
