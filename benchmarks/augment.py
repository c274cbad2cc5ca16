"""What augmentation costs: ``python -m benchmarks.augment``.

Against an albumentations `Compose` of the same mirroring, rotation, shift, zoom, shear, brightness, contrast and gamma,
seeded once: the artefacts have no counterpart there and are left out of the ratio, which is the median over turns in
one process. The full change, artefacts included, is timed beside it, warped on the host and as a batch on the device.
"""

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from preprocessing.augment import Augmentation, draw_change
from preprocessing.augment_sheet import sample
from preprocessing.phantom import write_phantoms
from preprocessing.strength import Limits, limits
from preprocessing.warp import warp_on_host

STRENGTHS = (0.3, 0.6, 1.0)
SIZES = (96, 224)
BATCH = 16


def compose(limits: Limits, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The same content as one albumentations pipeline."""
    import albumentations as A
    import cv2

    pipeline = A.Compose(
        [
            A.HorizontalFlip(p=limits.mirrored),
            A.Affine(
                rotate=(-limits.rotation_deg, limits.rotation_deg),
                translate_percent=(-limits.shift, limits.shift),
                scale=(1 / limits.zoom, limits.zoom),
                shear={"x": (-limits.shear_deg, limits.shear_deg), "y": (0, 0)},
                border_mode=cv2.BORDER_REPLICATE,
                p=1,
            ),
            A.RandomBrightnessContrast(brightness_limit=limits.brightness, contrast_limit=limits.contrast, p=1),
            A.RandomGamma(gamma_limit=(100 / limits.gamma, 100 * limits.gamma), p=1),
        ],
        seed=seed,
    )
    return lambda images_BHW: np.stack([pipeline(image=image_HW)["image"] for image_HW in images_BHW])


def without_artefacts(limits: Limits) -> Callable[[np.ndarray], np.ndarray]:
    """Ours with the content of `compose`, drawn anew for each picture."""
    bare = replace(limits, clahe=0, sharpened=0, blurred=0, noisy=0, marked=0, bordered=0, inverted=0)
    epochs = itertools.count()

    def change(images_BHW: np.ndarray) -> np.ndarray:
        epoch = next(epochs)
        changes = [draw_change(bare, 0, case, epoch) for case in range(len(images_BHW))]
        pairs = zip(changes, images_BHW, strict=True)
        return np.stack([warp_on_host(item.paint(image_HW), item.pose) for item, image_HW in pairs])

    return change


def whole(augment: Augmentation) -> Callable[[np.ndarray], object]:
    """Everything, each batch in an epoch of its own."""
    epochs = itertools.count()
    return lambda images_BHW: augment(images_BHW, range(len(images_BHW)), next(epochs))


def rate(change: Callable[[np.ndarray], object], images_BHW: np.ndarray, num: int = 20) -> float:
    """Pictures per second."""
    start = time.perf_counter()
    for _ in range(num):
        change(images_BHW)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return num * len(images_BHW) / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augment", description=__doc__)
    parser.add_argument("--source", help="folder in the RSNA layout (default: drawn hands)")
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or str(Path(folder) / "hands")
        if not options.source:
            write_phantoms(Path(source), num_cases=BATCH, seed=0)
        pictures = {size: sample(source, BATCH, size)[0] for size in SIZES}
    rows = []
    header = f"{'size':>4s} {'strength':>8s} {'Compose':>9s} {'ours':>9s} {'ratio':>6s}"
    print(f"{header} {'all':>9s} {'all, as a batch':>15s}   images/s")
    for size, images_BHW in pictures.items():
        for strength in STRENGTHS:
            changes: list[Callable[[np.ndarray], object]] = [
                compose(limits(strength), 0),
                without_artefacts(limits(strength)),
                whole(Augmentation(strength, 0, device, "host")),
                whole(Augmentation(strength, 0, device, "device")),
            ]
            turns = [[rate(change, images_BHW) for change in changes] for _ in range(options.turns)]
            median = [statistics.median(column) for column in zip(*turns, strict=True)]
            ratio = statistics.median(turn[1] / turn[0] for turn in turns)
            rows.append({"size": size, "strength": strength, "ratio": ratio, "all": median[2], "device": median[3]})
            print(
                f"{size:4d} {strength:8.1f} {median[0]:9.0f} {median[1]:9.0f} {ratio:6.2f} "
                f"{median[2]:9.0f} {median[3]:15.0f}"
            )
    summary = {
        "name": "augment",
        "ratio": min(row["ratio"] for row in rows),
        "rows": rows,
        "n": {"turns": options.turns, "images": BATCH * 20},
        "machine": f"{platform.machine()}, 1 thread, {device}",
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
