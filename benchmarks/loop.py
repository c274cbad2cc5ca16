"""What a real trial costs beside the bare training loop: ``python -m benchmarks.loop``.

The bare loop runs forward, backward and optimiser step of the same network on batches that already lie in memory.
The trial is `search.train.train_fold`: reading from the cohort, augmentation, sex, losses, measurements. Both take
turns in one process, so that a busy machine slows both; the ratio is the median over the turns.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from preprocessing.cohort import Cohort
from preprocessing.phantom import write_phantoms
from preprocessing.prepare import prepare
from preprocessing.recipe import Recipe
from preprocessing.sources import read_rsna
from search.losses import loss
from search.model import BoneAgeNet
from search.space import TrialConfig
from search.train import make_optimizer, mixed_precision, train_fold


def trial_rate(config: TrialConfig, cohort: Cohort, device: str) -> float:
    """Training images per second of a real fold, its measurements included."""
    start = time.perf_counter()
    trained = train_fold(config, cohort, 0, device=device)
    return trained.history[-1].images_seen / (time.perf_counter() - start)


def bare_rate(config: TrialConfig, num_steps: int, size: int, device: str) -> float:
    """Images per second of the loop with nothing around it."""
    model = BoneAgeNet(config).to(device).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(model, config)
    images = torch.randint(0, 255, (config.batch_size, size, size), dtype=torch.uint8, device=device)
    is_male = torch.arange(config.batch_size, device=device) % 2 == 0
    months = torch.linspace(20, 200, config.batch_size, device=device)
    start = time.perf_counter()
    for _ in range(num_steps):
        with mixed_precision(device):
            logits = model(images, is_male)
        value = loss(logits, months, config)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
    if device != "cpu":
        torch.cuda.synchronize()
    return config.batch_size * num_steps / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__)
    parser.add_argument("--full", action="store_true", help="more turns and longer ones")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)  # as a trial on a machine whose every core has one
    turns, images = (7, 4800) if options.full else (3, 1600)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        hands, out = Path(folder) / "hands", Path(folder) / "cohort"
        write_phantoms(hands, num_cases=200, seed=0)
        prepare(read_rsna(hands), out, Recipe(), num_folds=5, test_fraction=0.1, seed=0, progress=lambda done: None)
        cohort = Cohort.load(out)
        for backbone in ("slim_resnet10", "resnet10t"):
            config = TrialConfig(
                backbone=backbone, batch_size=16, epochs=1000, max_images_seen=images, augmentation=0.5
            )
            pairs = []
            for _ in range(turns):
                bare = bare_rate(config, images // config.batch_size, cohort.recipe.size, device)
                pairs.append((trial_rate(config, cohort, device), bare))
            rows.append((backbone, *map(statistics.median, zip(*pairs, strict=True)), pairs))
    print(f"{'backbone':16s} {'trial, img/s':>14s} {'bare, img/s':>14s} {'ratio':>8s}")
    result = {}
    for backbone, trial, bare, pairs in rows:
        ratio = statistics.median(a / b for a, b in pairs)
        result[backbone] = {"trial": trial, "bare": bare, "ratio": ratio}
        print(f"{backbone:16s} {trial:14.0f} {bare:14.0f} {ratio:8.2f}")
    summary = {
        "name": "loop",
        "ratio": min(item["ratio"] for item in result.values()),
        "models": result,
        "n": {"turns": turns, "images": images},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread, {device}",
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
