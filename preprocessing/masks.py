"""Masks and poses of a folder of radiographs, in the layout that `train-segmenter` learns from.

Correct the masks that are wrong, and the folder is a lesson for the next segmenter.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from preprocessing.hand import Hand
from preprocessing.limits import read_limited
from preprocessing.radiograph import RadiographError
from preprocessing.recipe import Recipe
from preprocessing.segmenter import Segmenter, stretched
from preprocessing.segmenter_pairs import name_in
from preprocessing.source import IMAGE_SUFFIXES
from preprocessing.standardize import Reader

_TILE, _COLUMNS, _ROWS = 150, 12, 10


def write_masks(
    images: Path, out: Path, weights: Path, *, progress: Callable[[int], Callable[[int], None]]
) -> tuple[int, int]:
    """Find the hand in every picture and write what was found.

    ``out/masks/<name>.png`` (255 on hand and forearm) in sub-folders as the pictures, ``out/poses.json`` (wrist and
    middle fingertip in pixels, side), ``out/scores.csv`` (every check's score, or why there is none) and
    ``out/sheet-1.png`` and on.

    Args:
        images: Folder of pictures, searched with its sub-folders.
        out: New or empty folder.
        weights: Of the segmenter.
        progress: Makes a reporter, given the number of pictures.

    Returns:
        How many hands were found, and how many pictures held none.

    Raises:
        ValueError: No picture is there, two differ in their suffix alone, or `out` is not empty.
        SegmenterError: `weights` are no segmenter.
    """
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{images} holds no picture ({', '.join(IMAGE_SUFFIXES)}). Name a folder that does.")
    names: dict[str, Path] = {}
    for path in files:
        other = names.setdefault(name_in(images, path), path)
        if other != path:
            raise ValueError(
                f"Masks are named as their pictures; {other.name} and {path.name} in {path.parent} would share one. "
                "Rename a picture, or move it into a folder of its own."
            )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty. Name a new folder.")
    # Masks are of the files as they are: nothing is turned round first.
    reader = Reader(Recipe.standard(segmenter=Segmenter(weights).sha256, repair_inversion=False), weights)
    report = progress(len(files))
    (out / "masks").mkdir(parents=True)
    poses: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    tiles: list[np.ndarray] = []
    for done, (name, path) in enumerate(names.items(), start=1):
        row: dict[str, Any] = {"file": str(path.relative_to(images)), "problem": ""}
        try:
            look = reader.look(read_limited(path))
        except (RadiographError, OSError) as error:
            row["problem"] = str(error)
        else:
            image, hand = look.image_HW, look.hand
            row |= look.scores
            tiles.append(_tile(image, hand))
            if hand is None:
                row["problem"] = "No part of the picture looks like a hand."
            else:
                mask = np.where(hand.mask(image.shape), np.uint8(255), np.uint8(0))
                file = out / "masks" / f"{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
                poses[name] = _pose(hand)
        rows.append(row)
        report(done)
    (out / "poses.json").write_text(json.dumps(poses, indent=1) + "\n")
    pd.DataFrame(rows).to_csv(out / "scores.csv", index=False)
    for page, first in enumerate(range(0, len(tiles), _COLUMNS * _ROWS), start=1):
        sheet = _sheet(tiles[first : first + _COLUMNS * _ROWS])
        (out / f"sheet-{page}.png").write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
    return len(poses), len(files) - len(poses)


def _pose(hand: Hand) -> dict[str, Any]:
    matrix = hand.pose.matrix()
    places = {"wrist": (0.0, 0.0, 1.0), "middle_fingertip": (0.0, 1.0, 1.0)}
    return {
        "side": "left" if hand.pose.is_left else "right",
        "rotation_deg": round(hand.pose.rotation, 2),
        "landmarks": {name: [round(float(x), 2) for x in matrix @ place] for name, place in places.items()},
    }


def _tile(image_HW: np.ndarray, hand: Hand | None) -> np.ndarray:
    """The picture with the mask's outline and the axis, small."""
    scale = _TILE / max(image_HW.shape)
    size = (max(1, int(image_HW.shape[1] * scale)), max(1, int(image_HW.shape[0] * scale)))
    small = cv2.cvtColor(stretched(cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA)), cv2.COLOR_GRAY2BGR)
    if hand is not None:
        mask = cv2.resize(hand.mask(image_HW.shape).astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
        outline, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(small, outline, -1, (0, 255, 255), 1)
        wrist, tip = (tuple(int(x * scale) for x in place) for place in _pose(hand)["landmarks"].values())
        cv2.line(small, wrist, tip, (60, 60, 255), 1, cv2.LINE_AA)
    tile = np.zeros((_TILE, _TILE, 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile


def _sheet(tiles: list[np.ndarray]) -> np.ndarray:
    blank = np.zeros((_TILE, _TILE, 3), np.uint8)
    filled = tiles + [blank] * (-len(tiles) % _COLUMNS)
    return np.vstack([np.hstack(filled[i : i + _COLUMNS]) for i in range(0, len(filled), _COLUMNS)])
