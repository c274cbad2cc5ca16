"""What preparing costs beside a bare OpenCV loop: ``python -m benchmarks.prepare SOURCE``.

The bare loop decodes, resizes and equalises (CLAHE), with no check of anything; ours is `Reader.read`, from a file's
bytes to model input. Both take turns, picture by picture, on one thread, so that a busy machine slows both. A picture
counts with its fastest turn, which other work disturbed least; the ratio is that of the sums, its interval a bootstrap
over pictures. The same is done with pictures redrawn as 16-bit PNG of 2,000 x 2,600 pixels, as the challenge's own.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocessing.prepare import prepare, single_thread, thread_map
from preprocessing.radiograph import decode
from preprocessing.recipe import Recipe
from preprocessing.sources import Source, read_rsna
from preprocessing.standardize import Reader
from preprocessing.storage import sha256_file

SEVERAL = (500, 1_000_000)
"""Numbers of cases whose peak memory is compared: few, and all."""


@dataclass(frozen=True)
class Ratio:
    """Throughput of ours as a share of the bare loop's."""

    value: float
    ci95: tuple[float, float]
    bare_ms: float
    ours_ms: float


def compare(
    pictures: list[bytes], bare: Callable[[bytes], object], ours: Callable[[bytes], object], turns: int
) -> Ratio:
    """Time both on every picture in alternating order."""
    seconds = np.empty((2, turns, len(pictures)))
    for turn in range(turns):
        for index, data in enumerate(pictures):
            for which in (0, 1) if (turn + index) % 2 else (1, 0):
                begin = time.perf_counter()
                (bare, ours)[which](data)
                seconds[which, turn, index] = time.perf_counter() - begin
    bare_P, ours_P = seconds.min(axis=1)
    draws = np.random.default_rng(0).integers(len(pictures), size=(2000, len(pictures)))
    low, high = np.percentile(bare_P[draws].sum(axis=1) / ours_P[draws].sum(axis=1), [2.5, 97.5])
    value = bare_P.sum() / ours_P.sum()
    return Ratio(float(value), (float(low), float(high)), 1000 * float(bare_P.mean()), 1000 * float(ours_P.mean()))


def bare_loop(size: int) -> Callable[[bytes], np.ndarray]:
    """Decode, resize, CLAHE; nothing else."""
    clahe = cv2.createCLAHE(2.0, (8, 8))

    def run(data: bytes) -> np.ndarray:
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        return clahe.apply(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))

    return run


def deep_png(data: bytes, seed: int) -> bytes:
    """The picture as a 16-bit PNG of 2,000 x 2,600 pixels with the grain of a detector in its lowest bits."""
    grey = cv2.resize(decode(data).astype(np.float32), (2000, 2600), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(seed).normal(0, 24, grey.shape).astype(np.float32)
    deep = np.clip(grey * (4000 / max(float(grey.max()), 1.0)) + 40 + grain, 0, 4095)
    return cv2.imencode(".png", deep.astype(np.uint16))[1].tobytes()


def first_cases(source: Source, num_cases: int) -> Source:
    """The source cut to its first cases."""
    return replace(source, cases=source.cases.head(num_cases), problems=source.problems.head(0))


def prepare_rate(source: Source, recipe: Recipe, weights: Path | None) -> float:
    """Pictures per second of a whole `prepare` with one worker, splits and tables included."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        prepare(
            source, Path(folder) / "cohort", recipe, num_folds=3, test_fraction=0.1, seed=0, weights=weights,
            progress=lambda done: None, chunk_map=partial(thread_map, num_workers=1),
        )  # fmt: skip
        return len(source.cases) / (time.perf_counter() - begin)


def peak_mib(source: str, num_cases: int, recipe: str, weights: str) -> float:
    """Peak resident memory of a process that prepares that many cases."""
    words = [sys.executable, "-m", "benchmarks.prepare", source, "--child", str(num_cases), recipe, weights]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def _child(source: str, num_cases: str, recipe: str, weights: str) -> None:
    chosen = first_cases(read_rsna(source), int(num_cases))
    with tempfile.TemporaryDirectory() as folder:
        prepare(
            chosen, Path(folder) / "cohort", Recipe.from_dict(json.loads(recipe)), num_folds=3, test_fraction=0.1,
            seed=0, weights=Path(weights) if weights else None, progress=lambda done: None,
        )  # fmt: skip
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__)
    parser.add_argument("source", help="labelled folder in the RSNA layout")
    parser.add_argument("--size", type=int, default=Recipe.size, help="of the model input (default 96)")
    parser.add_argument("--images", type=int, default=200, help="pictures compared (default 200)")
    parser.add_argument("--deep", type=int, default=12, help="of them redrawn at full size (default 12)")
    parser.add_argument("--turns", type=int, default=9, help="(default 9)")
    parser.add_argument("--segmenter", type=Path, help="weights: also measure the share of finding the hand")
    parser.add_argument("--memory", action="store_true", help="also compare peak memory of 500 and of all cases")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.source, *options.child)
        return
    single_thread()
    source, recipe = read_rsna(options.source), Recipe(size=options.size, clahe_clip=2.0)
    chosen = source.paths[:: max(1, len(source.paths) // options.images)]
    stored = [(source.folder / file).read_bytes() for file in chosen]
    step = max(1, len(stored) // max(options.deep, 1))
    deep = [deep_png(data, seed) for seed, data in enumerate(stored[::step][: options.deep])]
    sets = {"as stored": stored} | ({"PNG, 16 bit, 2,000 x 2,600": deep} if deep else {})
    summary: dict[str, Any] = {"name": "prepare", "size": options.size, "n": {"turns": options.turns}}
    print(f"{'pictures':28s} {'n':>5s} {'bare, ms':>10s} {'ours, ms':>10s} {'ratio':>7s}")
    for name, pictures in sets.items():
        ratio = compare(pictures, bare_loop(options.size), Reader(recipe).read, options.turns)
        summary[name] = {"n": len(pictures), **vars(ratio)}
        low, high = ratio.ci95
        print(
            f"{name:28s} {len(pictures):5d} {ratio.bare_ms:10.2f} {ratio.ours_ms:10.2f} {ratio.value:7.2f}"
            f"   95 % interval {low:.2f} to {high:.2f}"
        )
    weights = options.segmenter
    if weights:
        with_hand = replace(recipe, segmenter=sha256_file(weights))
        share = compare(stored, Reader(recipe).read, Reader(with_hand, weights).read, options.turns)
        summary["share_of_finding_the_hand"] = 1 - share.value
        print(f"finding the hand takes {100 * (1 - share.value):.0f} % of {share.ours_ms:.1f} ms")
        recipe = with_hand
    rate = prepare_rate(first_cases(source, 1000), recipe, weights)
    summary["prepare_per_second"] = rate
    print(f"a whole prepare with one worker: {rate:.0f} pictures per second")
    if options.memory:
        words = (json.dumps(recipe.to_dict()), str(weights or ""))
        few, many = (peak_mib(options.source, number, *words) for number in SEVERAL)
        summary["peak_mib"] = {"500": few, str(len(source.cases)): many}
        print(f"peak memory: {few:.0f} MiB for 500 cases, {many:.0f} MiB for {len(source.cases):,}")
    summary["machine"] = f"{platform.machine()}, 1 thread"
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
