"""Self-training: what the network finds with confidence on unlabelled radiographs becomes its next lesson.

Round by round a larger share is taken, the most confident first, as Iglovikov et al. (2017) did by hand for the
challenge: they labelled 100 masks, trained, kept the good ones of the rest, and trained again.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from preprocessing.hand import Hand, find, window_matrix
from preprocessing.radiograph import RadiographError, decode
from preprocessing.segmenter import Segmenter
from preprocessing.segmenter_samples import Pair
from preprocessing.segmenter_training import Training, TrainingError, reduced, train
from preprocessing.sources import IMAGE_SUFFIXES

SHARES = (0.4, 0.7, 0.9)
"""Of the radiographs, learnt from in each round; the doubtful tenth never is."""


def adapt(
    start: Path,
    folder: Path,
    pairs: list[Pair],
    draw_wrong: Callable[[np.random.Generator], np.ndarray],
    settings: Training,
    write: Callable[[object, Path], None],
    out: Path,
    report: Callable[[str], None],
) -> None:
    """Adapt weights to the radiographs of a folder, in rounds; `out` holds the last round's.

    Args:
        start: Weights learnt from pairs.
        folder: Unlabelled radiographs, searched with its sub-folders.
        pairs: The pairs that `start` was learnt from; half of every lesson stays theirs.
        draw_wrong: Draws pictures that are no hand.
        settings: Of each round.
        write: Writes a network to a file.
        out: Where the weights go.
        report: Told in a sentence what each round did.

    Raises:
        TrainingError: No radiograph can be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    images = [image for path in files if (image := _read(path)) is not None]
    if not images:
        raise TrainingError(f"{folder} holds no radiograph that can be read. Name a folder of PNG, JPEG or DICOM.")
    weights = start
    for number, share in enumerate(SHARES, start=1):
        segment = Segmenter(weights)
        found = [(image, hand) for image in images if (hand := find(image, segment)) is not None]
        found.sort(key=lambda item: doubt(item[1]))
        kept = found[: max(1, round(share * len(images)))]
        if not found:
            raise TrainingError(f"No hand was found in any of {len(images)} radiographs. Start from other weights.")
        lessons = [_pair(image, hand) for image, hand in kept]
        repeated = lessons * max(1, round(len(pairs) / len(lessons)))  # as many real lessons as drawn ones
        network, _ = train(pairs + repeated, draw_wrong, replace(settings, seed=settings.seed + number), start=weights)
        write(network, out)
        weights = out
        report(
            f"round {number}: learnt from {len(kept)} of {len(images)} radiographs, "
            f"misfit up to {kept[-1][1].pose.misfit:.3f} lengths of the hand"
        )


def doubt(hand: Hand) -> float:
    """How little a finding is to be trusted: the coordinates' misfit, worse where the two looks disagree."""
    apart = np.hypot(*(np.array(hand.first.wrist) - hand.pose.wrist)) / hand.pose.length
    return float(hand.pose.misfit + 0.2 * apart + 0.2 * (1 - min(hand.hand)))


def _read(path: Path) -> np.ndarray | None:
    try:
        return decode(path.read_bytes())
    except (RadiographError, OSError):
        return None


def _pair(image_HW: np.ndarray, hand: Hand) -> Pair:
    back = cv2.invertAffineTransform(window_matrix(hand.pose, hand.window_mask.shape[0]))
    mask = cv2.warpAffine(hand.window_mask, back, image_HW.shape[::-1], flags=cv2.INTER_LINEAR)
    return reduced(image_HW, np.where(mask > 0.5, np.uint8(255), np.uint8(0)), hand.pose)
