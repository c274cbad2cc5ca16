"""Learn hand segmentation from pairs of picture and mask, and say how well it went on pairs held out."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from preprocessing.drawing.wrong import KINDS, draw_wrong_input
from preprocessing.segmenter import Segmenter, build, load_network, network_input, save
from preprocessing.segmenter_adaptation import SHARES, lessons, read_unlabelled
from preprocessing.segmenter_pairs import Pair, TrainingError, overlap, read_pairs
from preprocessing.segmenter_samples import draw_sample

TOLERATED = 0.05
"""How far the mean Jaccard of the pairs held out may fall in self-training: real radiographs pull it down a little."""


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


def learn(
    images: Path,
    masks: Path,
    out: Path,
    settings: Training,
    *,
    start: Path | None,
    adapt_to: Path | None,
    progress: Callable[[str], Callable[[int], None]],
) -> None:
    """Train a segmenter from folders, say how its masks lie on those held out, and write its weights.

    Beside the weights lies a CSV of the same name with Jaccard and Dice of every picture held out.

    Args:
        images: Pictures.
        masks: Their masks.
        out: File for the weights; after each round of self-training it holds that round's, unless the masks of the
            pairs held out lie worse by then: a network that teaches itself can also talk itself into an error.
        settings: Of each round.
        start: Weights to begin from.
        adapt_to: Unlabelled radiographs; None trains on the pairs alone.
        progress: Makes a reporter of steps for a round, given its name.

    Raises:
        TrainingError: The folders cannot be learnt from.
        SegmenterError: `start` is no segmenter.
    """
    pairs = read_pairs(images, masks)
    kept, held_out = split(pairs, settings)
    unlabelled = read_unlabelled(adapt_to) if adapt_to else []
    started = {"start": Segmenter(start).sha256 if start else None, "settings": asdict(settings), "pairs": len(pairs)}
    network = train(kept, settings, start=start, progress=progress("steps of learning from pairs"))
    save(network, out, started)
    best = _tell("pairs held out", out, held_out)
    tried = out.with_name(f".{out.stem}.round.safetensors")
    for number, share in enumerate(SHARES if unlabelled else (), start=1):
        found, last = lessons(unlabelled, out, share)
        repeated = found * max(1, round(len(kept) / len(found)))  # as many real lessons as drawn ones
        again = replace(settings, seed=settings.seed + number)
        network = train(kept + repeated, again, start=out, progress=progress(f"steps of self-training, round {number}"))
        save(network, tried, {**started, "adapted": len(unlabelled), "round": number})
        learnt = f"learnt from {len(found)} of {len(unlabelled)} radiographs (doubt up to {last:.2f})"
        reached = _tell(f"round {number}: {learnt}; pairs held out", tried, held_out)
        if reached < best - TOLERATED:
            tried.unlink()
            tried.with_suffix(".csv").unlink()
            print(
                f"round {number} is left aside: the mean Jaccard of the pairs held out fell from {best:.3f} to "
                f"{reached:.3f}. {out.name} holds what was before it."
            )
            return
        tried.replace(out)
        tried.with_suffix(".csv").replace(out.with_suffix(".csv"))
        best = max(best, reached)


def _tell(what: str, weights: Path, held_out: list[Pair]) -> float:
    """Print how masks lie on those held out, and write it for each picture beside the weights; returns the mean."""
    measured = overlap(Segmenter(weights), held_out)
    weights.with_suffix(".csv").write_text(measured.table())
    print(f"{what}: {measured.summary()}")
    return float(np.mean(measured.jaccard))


def split(pairs: list[Pair], settings: Training) -> tuple[list[Pair], list[Pair]]:
    """The pairs to learn from and those held out, drawn by the seed.

    Raises:
        TrainingError: Fewer than two pairs.
    """
    if len(pairs) < 2:
        raise TrainingError(f"Two pairs or more are needed, one to be held out, got {len(pairs)}.")
    order = np.random.default_rng(settings.seed).permutation(len(pairs))
    count = max(1, round(settings.held_out * len(pairs)))
    return [pairs[i] for i in order[count:]], [pairs[i] for i in order[:count]]


def train(
    pairs: list[Pair],
    settings: Training,
    *,
    start: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> nn.Module:
    """Train a segmenter.

    Args:
        pairs: To learn from; wrong inputs are drawn beside them.
        settings: How.
        start: Weights to begin from; None begins from random ones.
        progress: Called with the number of steps done.

    Returns:
        The network in eval mode.

    Raises:
        TrainingError: No weights to start from and no pose among the pairs: alignment could not be learnt.
    """
    if start is None and not any(pair.pose for pair in pairs):
        raise TrainingError(
            "To learn poses from the beginning, pairs need a poses.json beside them, as `phantom` writes it. "
            "Name weights to start from, or learn from phantoms first."
        )
    torch.manual_seed(settings.seed)
    network = build() if start is None else load_network(start)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    samples = _Samples(pairs, settings.steps * settings.batch_size, settings.seed)
    # Spawned, not forked: a forked process inherits the locks of OpenCV's and PyTorch's threads, and can hang on them.
    loader = DataLoader(
        samples,
        settings.batch_size,
        num_workers=settings.workers,
        worker_init_fn=_one_thread,
        multiprocessing_context="spawn" if settings.workers else None,
    )
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
    return network.to("cpu").eval()


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


LOOKALIKES = ("foot_above", "paw", "prongs", "bare_fingers", "jumbled_bones", "hand_photo")
"""Half of the wrong inputs are of these kinds: a first training told the others from hands almost always."""


class _Samples(Dataset[tuple[Any, ...]]):
    """Sample i depends on the seed and i alone, whichever process draws it."""

    def __init__(self, pairs: list[Pair], count: int, seed: int) -> None:
        self._pairs, self._count, self._seed = pairs, count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, index]))
        sample = draw_sample(self._pairs, _draw_wrong, rng)
        flags = (np.float32(flag) for flag in (sample.has_pose, sample.is_hand, sample.is_inverted))
        return sample.image_SS, sample.mask_SS, sample.coordinates_SS2, *flags


def _draw_wrong(rng: np.random.Generator) -> np.ndarray:
    kinds = LOOKALIKES if rng.uniform() < 0.5 else KINDS
    return draw_wrong_input(kinds[rng.integers(len(kinds))], rng, height=224)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    os.nice(1)
