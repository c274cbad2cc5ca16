"""Batch scoring against a bare loop of the same forward passes on prepared arrays, and its memory against the files.

    python -m benchmarks.score REGISTRY PICTURES [--images 256] [--rounds 3]

The bare loop predicts pixels that are in memory already, in batches of the same size, on the same threads; scoring
reads, decodes, checks, standardises, predicts and writes a row each. Both are timed without their start: the loop after
a first batch, scoring from its first finished part to its last. Scoring has four times as many files: several parts are
under way when the first is done, which in a short batch is time that nobody counted. The loop runs before and after
each round, and the round is held against the mean of both, since a shared machine drifts by more than what is asked;
the ratio is the median of the rounds. Memory is the peak of what this process and all its children have for themselves,
with what lies in shared memory, over a batch and over that of four times as many files. Both are counters of the
kernel: to ask for proportional set sizes instead, which it has to walk all pages for, took a fifth of two cores from
what was measured. Files are named again and again where there are too few.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from ensemble.bundle import Bundle
from ensemble.inputs import Inputs, read_inputs
from ensemble.predictor import MAX_BATCH, Predictor
from ensemble.registry import named_bundle
from preprocessing.environment import prepare as prepare_environment
from preprocessing.prepare import num_cores
from preprocessing.standardize import Reading


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("registry")
    parser.add_argument("pictures")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    if options.images < 8 * MAX_BATCH:
        parser.error(f"--images must be {8 * MAX_BATCH} or more: too few parts tell no rate, got {options.images}")
    prepare_environment(own_ray=True)
    bundle = named_bundle(options.registry)
    found = read_inputs(options.pictures, sex="female")
    torch.set_num_threads(num_cores())
    readings, many = _readings(bundle, found), 4 * options.images
    few = _score(bundle, _repeated(found, options.images), options.device)
    loops, scored = [_loop(bundle, readings, options.images, options.device)], []
    for _ in range(options.rounds):
        scored.append(_score(bundle, _repeated(found, many), options.device))
        loops.append(_loop(bundle, readings, options.images, options.device))
    beside = [(before + after) / 2 for before, after in itertools.pairwise(loops)]
    ratios = [rate["images_per_s"] / loop for rate, loop in zip(scored, beside, strict=True)]
    report = {
        "bundle": bundle.version,
        "models": sum(len(member.files) for member in bundle.members),
        "device": options.device,
        "cores": num_cores(),
        "images": many,
        "loop_images_per_s": [round(rate, 2) for rate in loops],
        "score_images_per_s": [round(rate["images_per_s"], 2) for rate in scored],
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 3),
        "peak_mib": {
            str(options.images): few["peak_mib"],
            str(many): max(rate["peak_mib"] for rate in scored),
        },
        "rows_dropped": sum(int(rate["dropped"]) for rate in [few, *scored]),
    }
    print(json.dumps(report, indent=1))


def _readings(bundle: Bundle, inputs: Inputs, at_most: int = 256) -> np.ndarray:
    reader, pixels = Predictor(bundle).reader, []
    for location, *_ in inputs.chunk(0, min(at_most, len(inputs))):
        try:
            reading: Reading = reader.read(Path(location).read_bytes())
        except ValueError:
            continue
        pixels.append(reading.pixels)
    return np.stack(pixels)


def _loop(bundle: Bundle, pixels: np.ndarray, images: int, device: str) -> float:
    predictor = Predictor(bundle, device)
    is_male = np.zeros(MAX_BATCH, bool)
    rows = np.arange(images) % len(pixels)
    predictor.predict(pixels[rows[:MAX_BATCH]], is_male)
    start = time.perf_counter()
    for at in range(0, images, MAX_BATCH):
        batch = rows[at : at + MAX_BATCH]
        predictor.predict(pixels[batch], is_male[: len(batch)])
    return images / (time.perf_counter() - start)


def _score(bundle: Bundle, inputs: Inputs, device: str) -> dict[str, float]:
    from ensemble.score import score

    first: list[tuple[float, int]] = []
    last: list[tuple[float, int]] = []

    def seen(done: int, total: int) -> None:
        moment = (time.perf_counter(), done)
        if not first:
            first.append(moment)
        if not last or done > last[0][1]:
            last[:] = [moment]

    with tempfile.TemporaryDirectory() as folder, _Peak() as peak:
        counts = score(bundle, inputs, Path(folder) / "out.parquet", device=device, progress=seen)
    seconds, images = last[0][0] - first[0][0], last[0][1] - first[0][1]
    return {
        "images_per_s": images / seconds,
        "peak_mib": round(peak.bytes / 2**20),
        "dropped": len(inputs) - sum(counts.values()),
    }


def _repeated(inputs: Inputs, number: int) -> Inputs:
    rows = [index % len(inputs) for index in range(number)]
    return Inputs(
        inputs.folder,
        tuple(inputs.files[row] for row in rows),
        tuple(f"{inputs.case_ids[row]}-{turn}" for turn, row in enumerate(rows)),
        tuple(inputs.sexes[row] for row in rows),
        tuple(inputs.ages[row] for row in rows),
    )


class _Peak:
    """Highest private memory of this process and its children, and shared memory, asked five times a second."""

    def __enter__(self) -> "_Peak":
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._stop.wait(0.2):
            total = psutil.virtual_memory().shared
            for process in [own, *own.children(recursive=True)]:
                try:
                    memory = process.memory_info()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                total += memory.rss - memory.shared
            self.bytes = max(self.bytes, total)


if __name__ == "__main__":
    main()
