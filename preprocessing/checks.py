"""The quality gate: one score a check, and what follows from it.

Codes are stable. ``unreadable`` and the other codes of `preprocessing.limits` come from the decoder; the rest here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from preprocessing.hand import Hand, hand_levels, window_matrix
from preprocessing.levels import Sample, percentiles
from preprocessing.quality import Finding
from preprocessing.recipe import Recipe
from preprocessing.segmenter import SIDE

_EDGE = 0.012
"""Levels within this share of the file's range of its end count as saturated: compression blurs the end itself."""
_FOREARM = 0.15
"""Hand coordinate v below which the picture's edge may run through: the forearm leaves every picture."""


@dataclass(frozen=True)
class Check:
    """One line of the gate."""

    code: str
    action: str
    """What follows; `judge` turns a repair that the recipe leaves out into a warning."""
    is_low: bool
    """Whether low scores are bad."""
    says: str
    """The sentence; ``{score}`` and ``{threshold}`` are filled in."""


CHECKS = (
    Check("blank", "refused", True, "The picture spans {score:.0f} grey levels, {threshold:g} or more are needed: it "
          "is blank. Export it with its full contrast."),
    Check("not_a_hand", "refused", False, "The picture does not look like the radiograph of a hand (score {score:.2f}, "
          "at most {threshold:g} passes). Send one left hand with wrist."),
    Check("two_hands", "refused", False, "A second hand of {score:.2f} times the area is in the picture. Cut it to "
          "the left hand."),
    Check("too_small", "refused", True, "The hand measures {score:.0f} pixels from wrist to fingertip, {threshold:g} "
          "are needed. Send the original."),
    Check("cut_off", "refused", False, "The picture's edge runs through the hand over {score:.2f} of its length, at "
          "most {threshold:g} passes. Send a picture with all fingers and the wrist."),
    Check("saturated", "refused", False, "Of the hand's pixels {score:.0%} are wholly black or white. Export it with "
          "another window."),
    Check("low_contrast", "refused", True, "The hand spans {score:.0f} grey levels, {threshold:g} or more are needed. "
          "Export it with more contrast or more bits."),
    Check("inverted", "repaired", False, "Bone is darker than its surroundings (probability {score:.2f})."),
    Check("rotated", "repaired", False, "The hand lies {score:.0f} degrees from upright."),
    Check("right_hand", "repaired", False, "The picture shows a right hand, or a mirrored left one (probability "
          "{score:.2f})."),
    Check("framed", "warned", False, "Straight edges of a frame or collimator lie beside the hand, {score:.1f} times "
          "the picture's longer side in all."),
)  # fmt: skip
"""In the order in which they are judged; the first refusal is the answer."""


def measure(image_HW: np.ndarray, hand: Hand | None, sample: Sample, *, quantum: int = 1) -> dict[str, float]:
    """Score every check.

    Args:
        image_HW: ``(H, W)`` uint16, before any repair.
        hand: What `find` gave.
        sample: Of the picture.
        quantum: Distance of neighbouring grey levels in the file: 257 where 8 bits were spread over 16.

    Returns:
        A score for each code of `CHECKS`; the meaning and unit of each stands in `Gate`.
    """
    low, high = sample.percentiles((0.1, 99.9))
    scores = {"blank": float(high - low) / quantum}
    if hand is None:
        return scores | {"not_a_hand": 1.0}
    window = window_matrix(hand.pose, SIDE)
    inside = hand_levels(sample, hand)
    least, most = float(image_HW.min()), float(image_HW.max())
    end = _EDGE * (most - least)
    dark, bright = np.mean(inside <= least + end), np.mean(inside >= most - end)
    darkest, brightest = percentiles(inside, (5, 95))
    return scores | {
        "not_a_hand": doubt(hand),
        "two_hands": hand.others,
        "too_small": hand.pose.length,
        "cut_off": _cut(image_HW.shape, hand, window),
        "saturated": float(max(dark, bright)),
        "low_contrast": (brightest - darkest) / quantum,
        "inverted": hand.looks_inverted,
        "rotated": abs(hand.pose.rotation),
        "right_hand": 0.0 if hand.pose.is_left else 1.0,
        "framed": _straight_edges(image_HW.shape, hand, window),
    }


def doubt(hand: Hand) -> float:
    """How unlike a hand the candidate is, 0 to 1: the worst of several pieces of evidence.

    Each is scaled so that 0.5 lies beyond what real hands reach, by 532 radiographs of the RSNA challenge. The first is
    logistic in the network's own word at the last look and in how badly the coordinates fit; it alone tells feet from
    hands. The others alone refuse every other kind of drawn wrong input.
    """
    first, final = hand.first, hand.pose
    word = float(np.clip(hand.hand[1], 1e-6, 1 - 1e-6))
    area = float((hand.window_mask > 0.5).mean())  # of the window: real hands take 0.15 to 0.25
    turned = abs((final.rotation - first.rotation + 180) % 360 - 180)
    evidence = (
        1 / (1 + np.exp(np.log(word / (1 - word)) - 30 * final.misfit + 1.75)),
        final.misfit / 0.26,  # coordinates that fit no pose
        first.misfit / 0.44,
        0.06 / max(area, 1e-3),  # a mask too small for its pose, or too large
        area / 0.6,
        turned / 24,  # looks that disagree
        abs(np.log(final.length / first.length)) / 0.6,
    )
    return float(min(1.0, max(evidence)))


def judge(scores: Mapping[str, float], recipe: Recipe) -> tuple[Finding, ...]:
    """Hold scores against the recipe's gate.

    Returns:
        What was found, in the order of `CHECKS`; a refusal, if any, is the last.
    """
    found = []
    for check in CHECKS:
        if check.code not in scores:
            continue
        score, threshold = scores[check.code], getattr(recipe.gate, check.code)
        if not (score < threshold if check.is_low else score > threshold):
            continue
        sentence = check.says.format(score=score, threshold=threshold)
        action = _action(check, recipe)
        found.append(Finding(check.code, action, score, threshold, sentence))
        if action == "refused":
            break
    return tuple(found)


def _action(check: Check, recipe: Recipe) -> str:
    if check.code == "inverted":
        return "repaired" if recipe.repair_inversion else "warned"
    if check.code in ("rotated", "right_hand"):
        return "repaired" if recipe.align else "warned"
    if check.code == "framed":
        return "warned" if "full" in recipe.views else "repaired"
    return check.action


def _cut(shape: tuple[int, ...], hand: Hand, window: np.ndarray) -> float:
    """Length of the picture's edge inside the hand above the forearm, in lengths of the hand."""
    height, width = shape
    spacing = max(height, width) / 512
    across, down = np.arange(0, width, spacing), np.arange(0, height, spacing)
    inset = 1.5 * max(height, width) / SIDE  # the mask fades at the very edge
    points = np.concatenate(
        [
            np.column_stack([across, np.full_like(across, inset)]),
            np.column_stack([across, np.full_like(across, height - 1 - inset)]),
            np.column_stack([np.full_like(down, inset), down]),
            np.column_stack([np.full_like(down, width - 1 - inset), down]),
        ]
    )
    there = points @ window[:, :2].T + window[:, 2]
    mask = cv2.remap(hand.window_mask, there[None].astype(np.float32), None, cv2.INTER_LINEAR)[0]  # type: ignore[call-overload]
    pose = hand.pose.matrix()
    v = ((points - pose[:, 2]) @ np.linalg.inv(pose[:, :2]).T)[:, 1]
    return float(np.sum((mask > 0.5) & (v > _FOREARM)) * spacing / hand.pose.length)


def _straight_edges(shape: tuple[int, ...], hand: Hand, window: np.ndarray) -> float:
    """Length of straight edges beside the hand that run over a third of the picture or more."""
    height, width = shape
    rows, columns = (round(length * SIDE / max(height, width)) for length in (height, width))
    picture = hand.whole[(SIDE - rows) // 2 :, (SIDE - columns) // 2 :][:rows, :columns]
    linear = window[:, :2] @ np.linalg.inv(hand.to_whole[:, :2])
    affine = np.column_stack([linear, window[:, 2] - linear @ hand.to_whole[:, 2]])
    affine[:, 2] += linear @ ((SIDE - columns) // 2, (SIDE - rows) // 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mask = cv2.warpAffine(hand.window_mask, affine, (columns, rows), flags=flags)
    edges = cv2.Canny(picture, 20, 60)
    edges[cv2.dilate((mask > 0.5).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0] = 0
    lines = cv2.HoughLinesP(edges, 1, np.pi / 180, 30, minLineLength=SIDE / 3, maxLineGap=6)
    if lines is None:
        return 0.0
    # A line is found several times over; each direction and place counts once.
    seen: dict[tuple[int, int], float] = {}
    for x0, y0, x1, y1 in lines.reshape(-1, 4).astype(float):
        turn = np.arctan2(y1 - y0, x1 - x0) % np.pi
        place = x0 * np.sin(turn) - y0 * np.cos(turn)
        key = (round(turn / 0.35) % 9, round(place / 12))
        seen[key] = max(seen.get(key, 0.0), float(np.hypot(x1 - x0, y1 - y0)))
    return sum(seen.values()) / SIDE
