"""How well near-duplicates are told from different children: ``python -m benchmarks.duplicates SOURCE``.

Every picture of a labelled folder is compared with every other one (different children, as far as ids tell), and a
part of them with changed copies of themselves. For each distance it prints which share of the copies would be missed
and how many pairs of different ids would be joined.
"""

import argparse
import json
import time
from collections.abc import Callable

import cv2
import numpy as np

from preprocessing.duplicates import MAX_DISTANCE, group_cases
from preprocessing.prepare import CHUNK, read_chunk, thread_map
from preprocessing.radiograph import decode
from preprocessing.recipe import Recipe
from preprocessing.sources import read_rsna
from preprocessing.standardize import Reader, Reading

DISTANCES = (16, 20, 24, 28, 32, 36, 40, 48)


def _levels(image_HW: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    return _encode(np.clip(np.rint(change(image_HW.astype(np.float32))), 0, 255).astype(np.uint8))


def _encode(image_HW: np.ndarray, quality: int | None = None) -> bytes:
    if quality is None:
        return cv2.imencode(".png", image_HW)[1].tobytes()
    return cv2.imencode(".jpg", image_HW, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _scale(image_HW: np.ndarray, factor: float) -> bytes:
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return _encode(cv2.resize(image_HW, None, fx=factor, fy=factor, interpolation=interpolation))


def _trim(image_HW: np.ndarray, share: float) -> bytes:
    rows, columns = (max(1, round(side * share)) for side in image_HW.shape)
    return _encode(image_HW[rows:-rows, columns:-columns])


def _mark(image_HW: np.ndarray) -> bytes:
    side = max(image_HW.shape)
    place = (side // 40, side // 8)
    return _encode(cv2.putText(image_HW.copy(), "L", place, cv2.FONT_HERSHEY_SIMPLEX, side / 250, 255, side // 120))


COPIES: dict[str, Callable[[np.ndarray], bytes]] = {
    "JPEG quality 50": lambda image: _encode(image, 50),
    "JPEG quality 20": lambda image: _encode(image, 20),
    "half the size": lambda image: _scale(image, 0.5),
    "1.5 times the size": lambda image: _scale(image, 1.5),
    "30 grey levels brighter": lambda image: _levels(image, lambda grey: grey + 30),
    "contrast x 0.7": lambda image: _levels(image, lambda grey: 0.7 * grey + 20),
    "gamma 0.7": lambda image: _levels(image, lambda grey: 255 * (grey / 255) ** 0.7),
    "noise of 5 grey levels": lambda image: _levels(
        image, lambda grey: grey + np.random.default_rng(0).normal(0, 5, grey.shape)
    ),
    "1 % trimmed each side": lambda image: _trim(image, 0.01),
    "2 % trimmed each side": lambda image: _trim(image, 0.02),
    "a marker drawn in": _mark,
}


def pair_counts(hashes: list[bytes]) -> np.ndarray:
    """``(257,)`` how many pairs lie at each distance in bits."""
    words = np.frombuffer(b"".join(hashes), np.uint64).reshape(len(hashes), 4)
    counts = np.zeros(257, np.int64)
    for row in range(len(words) - 1):
        distance = np.bitwise_count(words[row] ^ words[row + 1 :]).sum(axis=1, dtype=np.int64)
        counts += np.bincount(distance, minlength=257)
    return counts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duplicates", description=__doc__)
    parser.add_argument("source", help="labelled folder in the RSNA layout")
    parser.add_argument("--copies", type=int, default=200, help="pictures that copies are made of (default 200)")
    options = parser.parse_args()
    source, reader = read_rsna(options.source), Reader(Recipe())
    chunks = [source.paths[i : i + CHUNK] for i in range(0, len(source.paths), CHUNK)]
    hashes = [
        reading.fingerprint
        for results in thread_map(lambda chunk: read_chunk(chunk, folder=source.folder, reader=reader), chunks)
        for reading in results
        if isinstance(reading, Reading)
    ]
    joined = pair_counts(hashes).cumsum()
    begin = time.perf_counter()
    grouping = group_cases(hashes, [""] * len(hashes))
    seconds = time.perf_counter() - begin
    chosen = source.paths[:: max(1, len(source.paths) // options.copies)]
    distances: dict[str, list[int]] = {name: [] for name in COPIES}
    for file in chosen:
        image = decode((source.folder / file).read_bytes())
        original = np.frombuffer(reader.read(_encode(image)).fingerprint, np.uint8)
        for name, copy in COPIES.items():
            changed = np.frombuffer(reader.read(copy(image)).fingerprint, np.uint8)
            distances[name].append(int(np.bitwise_count(original ^ changed).sum()))
    print(f"{'bits that may differ':26s}" + "".join(f"{limit:9d}" for limit in DISTANCES))
    for name, found in distances.items():
        print(f"{name:26s}" + "".join(f"{100 * np.mean(np.array(found) > limit):7.1f} %" for limit in DISTANCES))
    print(f"{'pairs of other ids joined':26s}" + "".join(f"{joined[limit]:9d}" for limit in DISTANCES))
    summary = {
        "name": "duplicates",
        "max_distance": MAX_DISTANCE,
        "missed": {name: float(np.mean(np.array(found) > MAX_DISTANCE)) for name, found in distances.items()},
        "pairs_joined": int(joined[MAX_DISTANCE]),
        "pairs": int(joined[-1]),
        "groups": int(grouping.group.max() + 1),
        "seconds": seconds,
        "n": {"pictures": len(hashes), "copies": len(chosen)},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
