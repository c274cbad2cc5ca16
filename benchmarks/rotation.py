"""Does a turned picture give the same pixels? ``python -m benchmarks.rotation SOURCE``

Every radiograph is turned by twelve angles onto a larger black canvas and read again; the correlation of its crop with
that of the unturned picture says how alike they are. A refusal of either counts as a failure.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import torch

from preprocessing.progress import Progress
from preprocessing.radiograph import RadiographError, decode
from preprocessing.recipe import Recipe
from preprocessing.sources import read_source
from preprocessing.standardize import Reader

ANGLES = (17, *range(30, 360, 30))
_reader: list[Reader] = []


def turned(image_HW: np.ndarray, degrees: float) -> bytes:
    """The picture as a PNG, turned clockwise onto a black canvas that holds all of it."""
    height, width = image_HW.shape
    move = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
    cos, sin = abs(move[0, 0]), abs(move[0, 1])
    columns, rows = int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos))
    move[:, 2] += (columns - width) / 2, (rows - height) / 2
    canvas = cv2.warpAffine(image_HW, move, (columns, rows), flags=cv2.INTER_LINEAR)
    return cv2.imencode(".png", canvas)[1].tobytes()


def correlations(data: bytes) -> list[float]:
    """One radiograph's correlation for each of `ANGLES`; NaN where a reading was refused."""
    if not _reader:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        _reader.append(Reader(Recipe.standard(size=128, views=("crop",), align=True)))
    try:
        upright = _reader[0].read(data).pixels[0].ravel()
    except RadiographError:
        return [float("nan")] * len(ANGLES)
    found = []
    for degrees in ANGLES:
        try:
            pixels = _reader[0].read(turned(decode(data), degrees)).pixels[0].ravel()
            found.append(float(np.corrcoef(upright, pixels)[0, 1]))
        except RadiographError:
            found.append(float("nan"))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rotation", description=__doc__)
    parser.add_argument("source", help="labelled radiographs")
    parser.add_argument("--cases", type=int, default=200)
    options = parser.parse_args()
    source = read_source(options.source)
    chosen = np.random.default_rng(0).permutation(len(source.paths))[: options.cases]
    files = [(source.folder / source.paths[i]).read_bytes() for i in sorted(chosen)]
    progress = Progress("radiographs turned", len(files))
    rows = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for row in pool.map(correlations, files):
            rows.append(row)
            progress(len(rows))
    table = np.array(rows)
    missing, failed = np.isnan(table), ~(table >= 0.9)
    result = {
        "name": "rotation",
        "n": list(table.shape),
        "median_correlation": round(float(np.nanmedian(table)), 4),
        "lowest_median_of_an_angle": round(float(np.nanmedian(table, axis=0).min()), 4),
        "share_below_0.9": round(float(failed.mean()), 4),
        "share_refused": round(float(missing.mean()), 4),
        "radiographs_with_any_below_0.9": round(float(failed.any(axis=1).mean()), 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
