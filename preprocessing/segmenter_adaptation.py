"""Self-training: what the network finds with confidence on unlabelled radiographs becomes its next lesson.

Round by round a larger share is taken, the most confident first, as Iglovikov et al. (2017) did by hand for the
challenge: they labelled 100 masks, trained, kept the good ones of the rest, and trained again.
"""

from pathlib import Path

import numpy as np

from preprocessing.hand import Hand, find
from preprocessing.limits import read_limited
from preprocessing.radiograph import RadiographError, decode
from preprocessing.segmenter import Segmenter
from preprocessing.segmenter_pairs import Pair, TrainingError, reduced
from preprocessing.sources import IMAGE_SUFFIXES

SHARES = (0.4, 0.7, 0.9)
"""Of the radiographs, learnt from in each round; the doubtful tenth never is."""


def lessons(images: list[np.ndarray], weights: Path, share: float) -> tuple[list[Pair], float]:
    """Turn what the network finds in radiographs into pairs, the most confident first.

    Args:
        images: ``(H, W)`` each.
        weights: Of the network that finds.
        share: Of the radiographs to take.

    Returns:
        The pairs, and the doubt of the last one taken.

    Raises:
        TrainingError: No hand was found at all.
    """
    segment = Segmenter(weights)
    found = [(image, hand) for image in images if (hand := find(image, segment)) is not None]
    if not found:
        raise TrainingError(f"No hand was found in any of {len(images)} radiographs. Start from other weights.")
    found.sort(key=lambda item: doubt(item[1]))
    kept = found[: max(1, round(share * len(images)))]
    return [_pair(*item) for item in kept], doubt(kept[-1][1])


def read_unlabelled(folder: Path) -> list[np.ndarray]:
    """All radiographs below a folder that can be decoded.

    Raises:
        TrainingError: There is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    images = [image for path in files if (image := _read(path)) is not None]
    if not images:
        raise TrainingError(f"{folder} holds no radiograph that can be read. Name a folder of PNG, JPEG or DICOM.")
    return images


def doubt(hand: Hand) -> float:
    """How little a finding is to be trusted: the coordinates' misfit, worse where the two looks disagree."""
    apart = np.hypot(*(np.array(hand.first.wrist) - hand.pose.wrist)) / hand.pose.length
    return float(hand.pose.misfit + 0.2 * apart + 0.2 * (1 - min(hand.hand)))


def _read(path: Path) -> np.ndarray | None:
    try:
        return decode(read_limited(path))
    except (RadiographError, OSError):
        return None


def _pair(image_HW: np.ndarray, hand: Hand) -> Pair:
    return reduced(image_HW, np.where(hand.mask(image_HW.shape), np.uint8(255), np.uint8(0)), hand.pose)
