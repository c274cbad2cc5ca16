"""What a trial's training costs beside the bare training loop: ``python -m benchmarks.loop``.

The bare loop runs forward, backward and optimiser step of the same network, in the same precision, on one batch that
already lies in memory. The trial is `search.train.train_fold`: reading from the cohort, augmentation, sex, losses,
measurements on disk and in TensorBoard, checkpoints. Left out is Ray Tune: the start of a worker, the way of each
measurement to the driver and of its answer back, and Tune's other logs; the TensorBoard writer is called as its logger
would. Both take turns in one process, so that a busy machine slows
both; the ratio is the median over the turns. Beside it stands the ratio of processor time, which other work on the
machine does not disturb and which leaves out what waits for the disk. The precision is measured before, as a trial
does once for all its folds; its cost is shown beside. A turn is as long as a short fold: five measurements weigh more
on fewer images.

A GPU's row: ``python -m benchmarks.loop --backbone resnet50 --size 384 --device cuda --batch 64 --images 12800``
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tensorboardX import SummaryWriter

from preprocessing.cohort import Cohort
from preprocessing.phantom import write_phantoms
from preprocessing.prepare import prepare
from preprocessing.recipe import Recipe
from preprocessing.sources import read_rsna
from search.model import BoneAgeNet
from search.numerics import Numerics, device_name
from search.optimize import make_optimizer
from search.precision import choose_numerics
from search.progress import keep_measurement
from search.space import TrialConfig
from search.tasks import result_of
from search.train import Measurement, train_fold
from search.trial import FoldReport

FOLDS = 5
TRIAL_STEPS = 10_000
"""Optimiser steps of all folds of the trial that the precision is chosen for."""


class Rates(NamedTuple):
    """Images per second of the wall's clock, and of the processor time that this process spent."""

    wall: float
    processor: float


class Clock:
    """Both clocks, from now."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def rates(self, images: int) -> Rates:
        """Images per second since then."""
        return Rates(images / (time.perf_counter() - self._wall), images / (time.process_time() - self._processor))


def trial_rate(config: TrialConfig, cohort: Cohort, device: str, numerics: Numerics, folder: Path) -> Rates:
    """Training images per second of a real fold, its measurements, their logs and checkpoints included."""
    clock, checkpoint = Clock(), folder / "fold_0.checkpoint"
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def report(point: Measurement) -> None:
            maes = (point.mae_months,) if point.final else ()
            told = FoldReport(0, point, maes, fold_finished=point.final, replayed=False)
            keep_measurement(folder, told)
            for name, value in result_of(told).items():  # as Tune's logger does
                if isinstance(value, int | float):
                    writer.add_scalar(name, value, point.images_seen)
            writer.flush()

        trained = train_fold(config, cohort, 0, device=device, checkpoint=checkpoint, numerics=numerics, report=report)
    rates = clock.rates(trained.history[-1].images_seen)
    checkpoint.unlink()
    return rates


def bare_rate(config: TrialConfig, num_steps: int, size: int, device: str, numerics: Numerics) -> Rates:
    """Images per second of the loop with nothing around it."""
    layout = torch.channels_last if numerics.channels_last else torch.contiguous_format
    model = BoneAgeNet(config, fetch=False).to(device).to(memory_format=layout).train()
    training_loss = torch.compile(model.training_loss) if numerics.compiled else model.training_loss
    optimizer = make_optimizer(model, config)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=numerics.precision == "fp16")
    images = torch.randint(0, 255, (config.batch_size, size, size), dtype=torch.uint8, device=device)
    sex = torch.arange(config.batch_size, device=device) % 2 * 2.0 - 1
    months = torch.linspace(20, 200, config.batch_size, device=device)
    for step in range(1 + num_steps):
        if step == 1:  # the first one allocates and chooses algorithms
            clock = Clock()
        with numerics.autocast(device):
            value = training_loss(images, sex, months, config)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
    value.item()  # waits for the device
    return clock.rates(config.batch_size * num_steps)


def measure(config: TrialConfig, cohort: Cohort, device: str, turns: int, folder: Path) -> dict[str, Any]:
    """One network's rates and their ratio."""
    size = cohort.recipe.size
    start = time.perf_counter()
    numerics, seconds, _ = choose_numerics(config, size, device, num_steps=TRIAL_STEPS // FOLDS, num_folds=FOLDS)
    numerics = replace(numerics, compiled=False)  # or both sides compile for longer than they train
    choosing = time.perf_counter() - start
    pairs = []
    for _ in range(turns):
        bare = bare_rate(config, config.max_images_seen // config.batch_size, size, device, numerics)
        pairs.append((trial_rate(config, cohort, device, numerics, folder), bare))
    ratios = [a.wall / b.wall for a, b in pairs]
    return {
        "trial": statistics.median(a.wall for a, _ in pairs),
        "bare": statistics.median(b.wall for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "processor_ratio": statistics.median(a.processor / b.processor for a, b in pairs),
        "numerics": asdict(numerics),
        "seconds_per_step": seconds,
        "choosing_seconds": round(choosing, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__)
    parser.add_argument("--full", action="store_true", help="more turns and longer ones")
    parser.add_argument("--backbone", action="append", help="timm name; again for more; slim_resnet10 and resnet10t")
    parser.add_argument("--size", type=int, default=96, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--images", type=int, help="training images a turn; 4800, or 9600 with --full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)  # as a trial on a machine whose every core has one
    turns, images = (7, 9600) if options.full else (3, 4800)
    images = options.images or images
    result = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(folder / "hands", num_cases=200, seed=0)
        recipe = Recipe(size=options.size)
        prepare(
            read_rsna(folder / "hands"),
            folder / "cohort",
            recipe,
            num_folds=FOLDS,
            test_fraction=0.1,
            seed=0,
            progress=lambda done: None,
        )
        cohort = Cohort.load(folder / "cohort")
        for backbone in options.backbone or ["slim_resnet10", "resnet10t"]:
            config = TrialConfig(
                backbone=backbone,
                batch_size=options.batch,
                epochs=1_000_000,
                max_images_seen=images,
                augmentation=0.5,
                precision=options.precision,
            )
            result[backbone] = measure(config, cohort, options.device, turns, folder)
    heads = ("trial, img/s", "bare, img/s", "ratio", "processor")
    print(f"{'backbone':16s} {' '.join(f'{head:>12s}' for head in heads)}  precision (chosen in)")
    for backbone, row in result.items():
        chosen = f"{row['numerics']['precision']} ({row['choosing_seconds']:.1f} s)"
        rates = f"{row['trial']:12.0f} {row['bare']:12.0f} {row['ratio']:12.2f} {row['processor_ratio']:12.2f}"
        print(f"{backbone:16s} {rates}  {chosen}")
    summary = {
        "name": "loop",
        "ratio": min(item["ratio"] for item in result.values()),
        "models": result,
        "n": {"turns": turns, "images": images},
        "size": options.size,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread, {device_name(options.device)}",
        "load": [round(value, 1) for value in os.getloadavg()],
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
