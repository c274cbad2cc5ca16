"""Train one fold: plain PyTorch, one file.

Shape letters: B batch, N cases, M monthly bins, H height, W width.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from preprocessing.augment import Augmentation
from preprocessing.cohort import Cohort
from search.losses import loss
from search.model import BIN_MONTHS, BoneAgeNet
from search.space import TrialConfig

REPORTS = 5
"""How often a fold is measured while it trains. The last measurement counts; none of them picks the weights."""
EVAL_BATCH = 64
GLANCE_CASES = 256
"""Measurements before the last take at most this many of the fold's cases: they only draw a curve."""


class TrainingError(RuntimeError):
    """This configuration cannot be trained; running it again would end the same way."""


@dataclass(frozen=True)
class Measurement:
    """Where a fold stands."""

    epoch: float
    """Passes over the training cases so far."""
    images_seen: int
    train_loss: float
    """Mean since the measurement before."""
    mae_months: float
    """Of the fold's own cases, which it does not learn from; before the last measurement, of a sample of them."""
    final: bool = False
    """Whether training has ended; only this one counts."""


@dataclass(frozen=True)
class TrainedFold:
    """What training one fold leaves behind."""

    model: BoneAgeNet
    probabilities_NM: np.ndarray
    """``(N, 240)`` float32, one row a case of the fold, in the cohort's order."""
    history: list[Measurement]

    @property
    def mae_months(self) -> float:
        """Mean absolute error on the fold's own cases."""
        return self.history[-1].mae_months


def train_fold(
    config: TrialConfig,
    cohort: Cohort,
    fold: int,
    *,
    device: str = "cpu",
    report: Callable[[Measurement], None] = lambda measurement: None,
) -> TrainedFold:
    """Train on the other folds, predict this one.

    The weights after the last step are kept whatever the measurements said: picking the best epoch on the fold's own
    cases would make its out-of-fold predictions look better than they are.

    Args:
        config: The trial.
        cohort: The locked test split is not touched.
        fold: Which fold is left out and predicted.
        device: ``cpu`` or a CUDA device.
        report: Called `REPORTS` times.

    Raises:
        TrainingError: The loss is not finite.
        ValueError: The configuration names no model.
    """
    rows, pixels = cohort.train_rows(fold), cohort.view(config.view)
    months = cohort.cases["bone_age_months"].to_numpy(np.float32)
    is_male = cohort.cases["is_male"].to_numpy(bool)
    seed = config.seed * 1009 + fold  # every fold starts from weights and an order of its own
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    augment = Augmentation(config.augmentation, seed, device, config.warp_on)
    model = BoneAgeNet(config, float(months[rows].mean()), float(months[rows].std()))
    model = model.to(device).to(memory_format=torch.channels_last)
    batch_size = min(config.batch_size, len(rows))
    num_steps = max(REPORTS, min(config.epochs * len(rows), config.max_images_seen) // batch_size)
    optimizer = make_optimizer(model, config)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle(step / num_steps))
    batches = _batches(rows, batch_size, rng)
    report_steps = {math.ceil(num_steps * (i + 1) / REPORTS) for i in range(REPORTS)}
    history: list[Measurement] = []
    losses: list[float] = []
    probabilities = np.empty(0, np.float32)
    model.train()
    for step in range(1, num_steps + 1):
        epoch, batch = next(batches)
        images = augment(pixels[batch], batch, epoch)
        with mixed_precision(device):
            logits = model(images, torch.from_numpy(is_male[batch]).to(device))
        value = loss(logits, torch.from_numpy(months[batch]).to(device), config)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        scheduler.step()
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise TrainingError(f"The loss of fold {fold} became {losses[-1]} at step {step} of {num_steps}.")
        if step in report_steps:
            measured = cohort.fold_rows(fold)
            if step < num_steps:
                measured = measured[:: math.ceil(len(measured) / GLANCE_CASES)]
            probabilities = predict(model, pixels, is_male, measured, device)
            error = np.abs(probabilities @ BIN_MONTHS - months[measured])
            if not np.isfinite(error).all():
                raise TrainingError(f"The predictions of fold {fold} are not finite after step {step} of {num_steps}.")
            seen = step * batch_size
            history.append(
                Measurement(seen / len(rows), seen, float(np.mean(losses)), float(error.mean()), step == num_steps)
            )
            losses.clear()
            report(history[-1])
            model.train()
    return TrainedFold(model.eval(), probabilities, history)


@torch.inference_mode()
def predict(
    model: BoneAgeNet, pixels_NHW: np.ndarray, is_male_N: np.ndarray, rows: np.ndarray, device: str
) -> np.ndarray:
    """Predict some cases in full precision, as the server will.

    Args:
        model: Trained on the view that `pixels_NHW` shows.
        pixels_NHW: ``(N, S, S)`` uint8, the view's pictures of all cases.
        is_male_N: ``(N,)`` bool.
        rows: Which cases.
        device: Where.

    Returns:
        ``(len(rows), 240)`` float32 probabilities over months.
    """
    model.eval()
    parts = []
    for start in range(0, len(rows), EVAL_BATCH):
        batch = rows[start : start + EVAL_BATCH]
        images = torch.from_numpy(np.ascontiguousarray(pixels_NHW[batch])).to(device)
        parts.append(model(images, torch.from_numpy(is_male_N[batch]).to(device)).softmax(dim=1).cpu().numpy())
    return np.concatenate(parts)


def make_optimizer(model: BoneAgeNet, config: TrialConfig) -> torch.optim.Optimizer:
    """AdamW whose weight decay spares biases and normalisation."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _one_cycle(progress: float, warm_up: float = 0.1) -> float:
    """Share of the peak learning rate: a linear rise over the first tenth, then half a cosine down to zero."""
    if progress < warm_up:
        return (progress + 1e-3) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def _batches(rows: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Endless (epoch, row numbers); each epoch is shuffled anew and its incomplete last batch is left out."""
    for epoch in itertools.count():
        order = rng.permutation(rows)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield epoch, np.sort(order[start : start + batch_size])  # in order on disk


def mixed_precision(device: str) -> torch.autocast:
    """bfloat16 where the processor multiplies it in hardware: measured twice as fast for residual networks here."""
    has_hardware = device != "cpu" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_hardware)
