"""Pairs of picture and mask for the segmenter: read from folders, held at one resolution, and compared."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocessing.pose import Pose
from preprocessing.segmenter import SIDE, Segmenter, letterbox, stretch, stretched

IMAGE_SIDE = 320
"""Longest side of the pictures kept in memory, in pixels: finer than the network sees."""


_LOSSY = (".jpg", ".jpeg", ".jpe", ".jp2", ".webp")
"""Suffixes of formats that may leave traces of a hand's edge in the background."""


class TrainingError(ValueError):
    """The pairs cannot be learnt from."""


@dataclass(frozen=True)
class Pair:
    """One picture with its hand's mask."""

    image_HW: np.ndarray
    """uint8, bone bright."""
    mask_HW: np.ndarray
    """uint8, 255 on hand and forearm."""
    pose: Pose | None
    """None where nobody measured it: such a pair teaches the mask alone."""
    name: str = ""
    """Of its files."""


@dataclass(frozen=True)
class Overlap:
    """How masks found lie on masks given."""

    names: tuple[str, ...]
    jaccard: tuple[float, ...]
    dice: tuple[float, ...]

    def table(self) -> str:
        """CSV, one row a picture."""
        rows = zip(self.names, self.jaccard, self.dice, strict=True)
        return "picture,jaccard,dice\n" + "".join(f"{name},{j:.4f},{d:.4f}\n" for name, j, d in rows)

    def summary(self) -> str:
        """Median and worst over the pictures."""
        jaccard, dice = np.array(self.jaccard), np.array(self.dice)
        return (
            f"Jaccard median {np.median(jaccard):.3f}, lowest tenth {np.quantile(jaccard, 0.1):.3f}, "
            f"lowest {jaccard.min():.3f}; Dice median {np.median(dice):.3f} (n = {len(jaccard)})"
        )


def read_pairs(images: Path, masks: Path) -> list[Pair]:
    """Read pictures and masks of the same `name_in`; poses come from a ``poses.json`` beside either folder, if there.

    Args:
        images: Folder of 8- or 16-bit pictures, bone bright, searched with its sub-folders.
        masks: Folder of masks, searched with its sub-folders: black or transparent is background, any other level
            or colour is hand and forearm. In a JPEG or another format that loses detail, what is darker than half of
            white is background.

    Raises:
        TrainingError: A folder is missing, there is no pair, a mask has another shape than its picture, one is hand
            all over or nowhere, or one that may have lost detail has no white.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise TrainingError(f"{folder} must be a folder of pictures or masks, and there is none.")
    poses: dict[str, Any] = {}
    for place in dict.fromkeys((images, images.parent, masks.parent)):
        if (place / "poses.json").is_file():
            poses |= json.loads((place / "poses.json").read_text())
    found = {name_in(images, path): path for path in sorted(images.rglob("*")) if path.is_file()}
    pairs = []
    for path in sorted(masks.rglob("*")):
        name = name_in(masks, path)
        if name not in found:
            continue
        image = cv2.imread(str(found[name]), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
        mask = _read_mask(path)
        if image is None or mask is None:
            continue
        if image.shape != mask.shape:
            raise TrainingError(
                f"A mask must be as large as its picture; {path.name} has {mask.shape[1]} x {mask.shape[0]} pixels, "
                f"the picture {image.shape[1]} x {image.shape[0]}. Write it again at the picture's size."
            )
        if mask.all() or not mask.any():
            what = "all" if mask.all() else "nothing"
            raise TrainingError(
                f"A mask must show a hand on a background; in {path.name} {what} is hand. "
                "Draw it again with 0 as background, or take it out."
            )
        pairs.append(replace(reduced(image, mask, _pose(poses.get(name))), name=name))
    if not pairs:
        raise TrainingError(f"{images} and {masks} share no picture of the same name. Name two folders that do.")
    return pairs


def _read_mask(path: Path) -> np.ndarray | None:
    """Where the hand is, True; None where the file is no picture."""
    is_lossy = path.suffix.lower() in _LOSSY
    # what may be a photograph's format is turned as its EXIF says, which the other way to read passes over
    mask = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR if is_lossy else cv2.IMREAD_UNCHANGED)
    if mask is None:
        return None
    mask_HWC = mask.reshape(*mask.shape[:2], -1)
    level_HW = mask_HWC[..., :3].max(axis=2)  # as grey, a dark colour would be rounded to black
    if is_lossy and 0 < level_HW.max() <= 127:
        raise TrainingError(
            f"A mask in a format that loses detail must be black and white; the brightest of {path.name} is "
            f"{level_HW.max()} of 255. Store it as PNG, where anything above 0 is hand."
        )
    is_hand = level_HW > (127 if is_lossy else 0)
    if mask_HWC.shape[2] == 4:
        is_hand &= mask_HWC[..., 3] > 0
    return is_hand


def name_in(folder: Path, path: Path) -> str:
    """What a picture, its mask and its pose have in common: the path below their folder, without the suffix."""
    return path.relative_to(folder).with_suffix("").as_posix()


def reduced(image: np.ndarray, mask: np.ndarray, pose: Pose | None) -> Pair:
    """A pair at the resolution that is kept in memory, of a mask that is 0 on background alone."""
    mask = np.where(mask > 0, np.uint8(255), np.uint8(0))
    scale = min(1.0, IMAGE_SIDE / max(image.shape))
    image = stretched(image)  # a film of few grey levels would drown in the noise that samples add
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        pose = pose and pose.moved(np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]]))
    return Pair(image, np.where(mask > 127, np.uint8(255), np.uint8(0)), pose)


def overlap(segment: Segmenter, pairs: list[Pair]) -> Overlap:
    """Measure masks on upright, whole pictures: intersection over union (Jaccard) and Dice, per picture."""
    jaccard, dice = [], []
    for pair in pairs:
        square, affine = letterbox(stretch(pair.image_HW))
        found = segment(square).mask_HW > 0.5
        given = cv2.warpAffine(pair.mask_HW, affine, (SIDE, SIDE), flags=cv2.INTER_LINEAR) > 127
        both, either = float((found & given).sum()), float((found | given).sum())
        jaccard.append(both / max(either, 1.0))
        dice.append(2 * both / max(float(found.sum() + given.sum()), 1.0))
    return Overlap(tuple(pair.name for pair in pairs), tuple(jaccard), tuple(dice))


def _pose(truth: dict[str, Any] | None) -> Pose | None:
    if truth is None:
        return None
    (x, y), (tip_x, tip_y) = truth["landmarks"]["wrist"], truth["landmarks"]["middle_fingertip"]
    length = float(np.hypot(tip_x - x, tip_y - y))
    rotation = float(np.degrees(np.arctan2(tip_x - x, y - tip_y)))
    return Pose((x, y), length, rotation, truth.get("side", "left") == "left", 0.0)
