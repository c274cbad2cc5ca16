"""Learn hand segmentation from pairs of picture and mask, and say how well it went on pairs held out."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from preprocessing.pose import Pose
from preprocessing.segmenter import SIDE, Segmenter, build, letterbox, network_input, save, stretch
from preprocessing.segmenter_samples import DrawWrong, Pair, draw_sample

IMAGE_SIDE = 320
"""Longest side of the pictures kept in memory, in pixels: finer than the network sees."""


class TrainingError(ValueError):
    """The pairs cannot be learnt from."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of one training run."""

    steps: int = 2500
    batch_size: int = 24
    learning_rate: float = 3e-3
    held_out: float = 0.1
    """Share of the pairs that is not learnt from."""
    workers: int = 1
    """Processes that draw samples."""
    seed: int = 0


@dataclass(frozen=True)
class Overlap:
    """How masks found lie on masks given."""

    jaccard: tuple[float, ...]
    dice: tuple[float, ...]

    def summary(self) -> str:
        """Median and worst over the pictures."""
        jaccard, dice = np.array(self.jaccard), np.array(self.dice)
        return (
            f"Jaccard median {np.median(jaccard):.3f}, lowest tenth {np.quantile(jaccard, 0.1):.3f}, "
            f"lowest {jaccard.min():.3f}; Dice median {np.median(dice):.3f} (n = {len(jaccard)})"
        )


def read_pairs(images: Path, masks: Path) -> list[Pair]:
    """Read pictures and masks of the same stem; poses come from a ``poses.json`` beside either folder, if there.

    Args:
        images: Folder of 8- or 16-bit pictures, bone bright.
        masks: Folder of masks: 0 is background, anything else is hand and forearm.

    Raises:
        TrainingError: No pair, or a mask of another shape than its picture.
    """
    poses: dict[str, Any] = {}
    for place in dict.fromkeys((images, images.parent, masks.parent)):
        if (place / "poses.json").is_file():
            poses |= json.loads((place / "poses.json").read_text())
    found = {path.stem: path for path in sorted(images.iterdir()) if path.is_file()}
    pairs = []
    for path in sorted(masks.iterdir()):
        if path.stem not in found:
            continue
        image = cv2.imread(str(found[path.stem]), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is None or mask is None:
            continue
        if image.shape != mask.shape:
            raise TrainingError(
                f"A mask must be as large as its picture; {path.name} has {mask.shape[1]} x {mask.shape[0]} pixels, "
                f"the picture {image.shape[1]} x {image.shape[0]}. Write it again at the picture's size."
            )
        pairs.append(reduced(image, mask, _pose(poses.get(path.stem))))
    if not pairs:
        raise TrainingError(f"{images} and {masks} share no picture of the same name. Name two folders that do.")
    return pairs


def train(
    pairs: list[Pair],
    draw_wrong: DrawWrong,
    settings: Training,
    *,
    start: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[nn.Module, list[int]]:
    """Train a segmenter.

    Args:
        pairs: All of them; the share to hold out is drawn here.
        draw_wrong: Draws pictures that are no hand.
        settings: How.
        start: Weights to begin from; None begins from random ones.
        progress: Called with the number of steps done.

    Returns:
        The network in eval mode, and the indices of the pairs held out.

    Raises:
        TrainingError: No weights to start from and no pose among the pairs: alignment could not be learnt.
    """
    if start is None and not any(pair.pose for pair in pairs):
        raise TrainingError(
            "To learn poses from the beginning, pairs need a poses.json beside them, as `phantom` writes it. "
            "Name weights to start from, or learn from phantoms first."
        )
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(pairs))
    held_out = order[: max(1, round(settings.held_out * len(pairs)))].tolist()
    learnt = [pairs[i] for i in order[len(held_out) :]] or pairs
    torch.manual_seed(settings.seed)
    network = build() if start is None else Segmenter(start).network
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    samples = _Samples(learnt, draw_wrong, settings.steps * settings.batch_size, settings.seed)
    loader = DataLoader(samples, settings.batch_size, num_workers=settings.workers, worker_init_fn=_one_thread)
    for step, batch in enumerate(loader, start=1):
        parts = [part.to(device) for part in batch]
        with torch.autocast(device.type, torch.bfloat16):
            maps, scores = network(network_input(parts[0]).contiguous(memory_format=torch.channels_last))
        loss = _loss(maps.float(), scores.float(), *parts[1:])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress(step)
    return network.to("cpu").eval(), held_out


def overlap(segment: Segmenter, pairs: list[Pair]) -> Overlap:
    """Measure masks on upright, whole pictures: intersection over union (Jaccard) and Dice, per picture."""
    jaccard, dice = [], []
    for pair in pairs:
        square, affine = letterbox(stretch(pair.image_HW))
        found = segment(np.rint(square).astype(np.uint8)).mask_HW > 0.5
        given = cv2.warpAffine(pair.mask_HW, affine, (SIDE, SIDE), flags=cv2.INTER_LINEAR) > 127
        both, either = float((found & given).sum()), float((found | given).sum())
        jaccard.append(both / max(either, 1.0))
        dice.append(2 * both / max(float(found.sum() + given.sum()), 1.0))
    return Overlap(tuple(jaccard), tuple(dice))


def write(network: nn.Module, path: Path, settings: Training, about: dict[str, Any]) -> None:
    """Write the weights with the settings that made them."""
    save(network, path, {**about, "settings": asdict(settings)})


def _loss(
    maps: torch.Tensor,
    scores: torch.Tensor,
    mask: torch.Tensor,
    coordinates: torch.Tensor,
    has_pose: torch.Tensor,
    is_hand: torch.Tensor,
    is_inverted: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy and soft Dice of the mask, absolute error of the coordinates in it, cross-entropy of the scores."""
    logit = maps[:, 0]
    probability = torch.sigmoid(logit)
    both = (probability * mask).sum((1, 2))
    soft_dice = 1 - (2 * both + 50) / (probability.sum((1, 2)) + mask.sum((1, 2)) + 50)
    inside = (mask * has_pose[:, None, None])[:, None]
    away = (maps[:, 1:3] - coordinates.permute(0, 3, 1, 2)).abs() * inside
    place = away.sum() / (inside.sum() + 1)
    hand = F.binary_cross_entropy_with_logits(scores[:, 0], is_hand)
    inverted = F.binary_cross_entropy_with_logits(scores[:, 1], is_inverted, reduction="none")
    inverted = (inverted * is_hand).sum() / (is_hand.sum() + 1e-6)
    return F.binary_cross_entropy_with_logits(logit, mask) + soft_dice.mean() + 3 * place + 0.3 * (hand + inverted)


class _Samples(Dataset[tuple[Any, ...]]):
    """Sample i depends on the seed and i alone, whichever process draws it."""

    def __init__(self, pairs: list[Pair], draw_wrong: DrawWrong, count: int, seed: int) -> None:
        self._pairs, self._draw_wrong, self._count, self._seed = pairs, draw_wrong, count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, index]))
        sample = draw_sample(self._pairs, self._draw_wrong, rng)
        flags = (np.float32(flag) for flag in (sample.has_pose, sample.is_hand, sample.is_inverted))
        return sample.image_SS, sample.mask_SS, sample.coordinates_SS2, *flags


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    os.nice(1)


def reduced(image: np.ndarray, mask: np.ndarray, pose: Pose | None) -> Pair:
    scale = min(1.0, IMAGE_SIDE / max(image.shape))
    image = stretch(image) if image.dtype != np.uint8 else image
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        pose = pose and pose.moved(np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]]))
    return Pair(image, np.where(mask > (0 if mask.max() == 1 else 127), np.uint8(255), np.uint8(0)), pose)


def _pose(truth: dict[str, Any] | None) -> Pose | None:
    if truth is None:
        return None
    (x, y), (tip_x, tip_y) = truth["landmarks"]["wrist"], truth["landmarks"]["middle_fingertip"]
    length = float(np.hypot(tip_x - x, tip_y - y))
    rotation = float(np.degrees(np.arctan2(tip_x - x, y - tip_y)))
    return Pose((x, y), length, rotation, truth.get("side", "left") == "left", 0.0)
