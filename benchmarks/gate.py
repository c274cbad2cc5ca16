"""What the quality gate lets through: ``python -m benchmarks.gate SOURCE [--wrong N]``.

Real radiographs should pass, drawn wrong inputs should not. The wrong inputs are drawn from seeds that the segmenter's
training never used; they are of the kinds that it was trained on, so a site's own wrong inputs are the better test.
Shares come with their 95 % Wilson interval.
"""

import argparse
import json
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch

from preprocessing.drawing.wrong import KINDS, draw_wrong_input
from preprocessing.progress import Progress
from preprocessing.radiograph import RadiographError
from preprocessing.recipe import Recipe
from preprocessing.sources import read_source
from preprocessing.standardize import Reader
from search.metrics import wilson

SEED = 991
_reader: list[Reader] = []


def verdict(data: bytes) -> tuple[str, list[str]]:
    """The refusal's code, or nothing; and the codes of what was repaired or warned of."""
    if not _reader:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        _reader.append(Reader(Recipe.standard(size=64)))
    try:
        return "", [f"{finding.code}, {finding.action}" for finding in _reader[0].read(data).findings]
    except RadiographError as error:
        return error.code, []


def verdict_of_file(file: str) -> tuple[str, list[str]]:
    """As `verdict`, of a file."""
    return verdict(Path(file).read_bytes())


def verdict_of_drawn(task: tuple[str, int]) -> tuple[str, list[str]]:
    """As `verdict`, of a drawn wrong input."""
    kind, number = task
    rng = np.random.default_rng([SEED, KINDS.index(kind), number])
    image = draw_wrong_input(kind, rng, height=int(rng.integers(160, 513)))
    return verdict(cv2.imencode(".png", image)[1].tobytes())


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("source", help="labelled radiographs of hands, in a local folder")
    parser.add_argument("--wrong", type=int, default=1000, help="wrong inputs drawn, over all kinds")
    options = parser.parse_args()
    source = read_source(options.source)
    files = [str(source.folder / path) for path in source.paths]
    tasks = [(kind, number) for number in range(max(1, options.wrong // len(KINDS))) for kind in KINDS]
    progress = Progress("pictures judged", len(files) + len(tasks))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        both = chain(pool.map(verdict_of_file, files, chunksize=8), pool.map(verdict_of_drawn, tasks, chunksize=8))
        results = []
        for result in both:
            results.append(result)
            progress(len(results))
    real, wrong = results[: len(files)], results[len(files) :]
    reasons = Counter(code for code, _ in real if code)
    print(f"real radiographs, n = {len(real)}: {_share(sum(reasons.values()), len(real))} refused")
    for code, count in [*reasons.most_common(), *Counter(note for _, notes in real for note in notes).most_common()]:
        print(f"  {code:22} {count}")
    for file, (code, _) in zip(files, real, strict=True):
        if code:
            print(f"    {Path(file).name}: {code}")
    passed = [task for task, (code, _) in zip(tasks, wrong, strict=True) if not code]
    print(f"wrong inputs, n = {len(wrong)}: {_share(len(wrong) - len(passed), len(wrong))} refused")
    for code, count in Counter(code for code, _ in wrong if code).most_common():
        print(f"  {code:22} {count}")
    print(f"  passed: {dict(Counter(kind for kind, _ in passed))}")
    print(
        json.dumps(
            {
                "name": "gate",
                "real": {"n": len(real), "refused": dict(reasons)},
                "wrong": {"n": len(wrong), "passed": dict(Counter(kind for kind, _ in passed))},
            }
        )
    )


def _share(hits: int, n: int) -> str:
    low, high = wilson(hits, n)
    return f"{hits / n:.2%} (95 % {low:.2%} to {high:.2%})"


if __name__ == "__main__":
    main()
