"""Drawn hand radiographs with a known bone age, sex, mask and pose: data for demonstrations and tests without
patients. Plain ones are left hands, fingers up; variants are what else comes to a clinic's door.

Bone age can be learnt only from the bones. Size, pose, soft tissue, exposure, noise, frame and markers are
drawn before bone age is looked at, from the same random numbers, so two phantoms of one seed and different
bone ages differ in their bones alone.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.drawing.exposure import ByteArray, expose
from preprocessing.drawing.ossification import Sex
from preprocessing.drawing.plate import Points, draw_plate
from preprocessing.drawing.variants import PLAIN, check, choose, draw_varied, measured, shares, visible
from preprocessing.phantom_files import encode_png, write_table, write_wrong_inputs

YOUNGEST, OLDEST = 6, 228
"""Bone ages that can be drawn, in months; the ends of the RSNA range."""
_FOLDER = "boneage-training-dataset"
_TRUTH = ("variants", "side", "hands", "inverted", "rotation_deg", "cut", "bits", "height", "width")


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """One drawn radiograph and what is true of it."""

    image: npt.NDArray[np.uint8 | np.uint16]
    """(H, W), grey; bone bright unless inverted. uint16 for the variant "deep", else uint8."""
    mask: ByteArray
    """(H, W) uint8: 255 on hand and forearm with their soft tissue, else 0."""
    bones: ByteArray
    """(H, W) uint8: 255 where ossified bone is drawn, else 0; inside `mask`."""
    pose: dict[str, Any]
    """height, width, rotation_deg (clockwise), pixels_per_mm, and landmarks {name: [x, y]} in pixels; with variants
    also variants (one string), side ("left", "right" or "both"), hands, inverted, bits, cut ("", "fingers",
    "wrist" or "side"), and of two hands the right one's landmarks as `second_<name>`. What was cut off has its
    landmarks outside the picture."""


def draw_phantom(
    bone_age_months: float,
    sex: Sex,
    rng: np.random.Generator,
    *,
    height: int = 320,
    bones_visible: bool = True,
    variants: Collection[str] = (),
) -> Phantom:
    """Draws one hand: without `variants` a left one, fingers up and thumb on the right.

    Args:
        bone_age_months: 6 to 228.
        sex: "female" or "male"; girls are ahead by the timetables of `ossification`.
        rng: Source of everything else; it is drawn from equally often at every bone age and sex.
        height: Pixels, or less where a variant cuts; the width is 0.70 to 0.92 of it, and anything with variants.
        bones_visible: False leaves the bones out of the image: a control, since nothing else tells bone age.
        variants: Names from `drawing.variants.VARIANTS`; the picture gets every one.

    Raises:
        ValueError: A bone age, sex, height or variant that cannot be drawn.
    """
    if not YOUNGEST <= bone_age_months <= OLDEST:
        raise ValueError(f"bone age must be {YOUNGEST} to {OLDEST} months, got {bone_age_months}. Give it in months.")
    if sex not in ("female", "male"):
        raise ValueError(f'sex must be "female" or "male", got {sex!r}. Write the word out in lower case.')
    if height < 64:
        raise ValueError(f"height must be at least 64 pixels, got {height}. Draw it larger, then shrink it.")

    check(variants)
    if variants:
        image, sheet, truth = draw_varied(
            bone_age_months, sex, rng, variants, height=height, bones_visible=bones_visible
        )
        rotation, scale = measured(sheet.points)
        pose = _pose(visible(sheet.points), rotation, scale, sheet.shape) | truth
        return Phantom(image=image, mask=sheet.mask_HW, bones=sheet.bones_HW, pose=pose)

    width = round(height * rng.uniform(0.70, 0.92))
    plate = draw_plate(bone_age_months, sex, rng, (height, width), bones_visible=bones_visible)
    placement = plate.placement
    return Phantom(
        image=expose(plate.total_HW, plate.soft_HW, plate.outline_HW, rng),
        mask=plate.outline_HW,
        bones=plate.bones_HW,
        pose=_pose(plate.points, float(np.degrees(placement.rotation)), placement.scale, (height, width)),
    )


def write_phantoms(
    out: Path,
    *,
    num_cases: int,
    seed: int,
    num_workers: int = 2,
    variants: Collection[str] = (),
    num_wrong: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a labelled folder in the RSNA layout, with masks and poses beside it.

    ``out/boneage-training-dataset.csv`` (id, boneage, male),
    ``out/boneage-training-dataset/<id>.png`` (grey, 8-bit or 16), ``out/masks/<id>.png`` and ``out/poses.json``;
    with variants also ``out/truth.csv``, one row a case; with wrong inputs ``out/wrong/<n>.png`` and
    ``out/wrong.csv`` (file, kind).
    Case i depends on `seed` and i alone: the bytes are the same whatever `num_workers` and however many
    cases follow. The folder appears complete or not at all.

    Args:
        out: New or empty folder.
        num_cases: At least 1.
        seed: 0 or more.
        num_workers: Processes; 1 draws in this one.
        variants: Which of `drawing.variants.VARIANTS` some of the cases have, each in its own share or in one that is
            given with it, ``atlas:1``.
        num_wrong: Pictures of no hand, every kind in turn.
        progress: Called with (cases done, cases in all) after each case.

    Raises:
        ValueError: A bad number, or a folder that is not empty.
    """
    for name, value, least in (
        ("num_cases", num_cases, 1),
        ("seed", seed, 0),
        ("num_workers", num_workers, 1),
        ("num_wrong", num_wrong, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}. Give a larger one.")
    wanted = shares(variants)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"Phantoms are written to a new or empty folder, but {out} is not. Remove it or name another one."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_cases(staging, num_cases, seed, num_workers, wanted, progress)
        write_wrong_inputs(staging, num_wrong, seed)
        staging.chmod(0o755)
        if out.exists():
            out.rmdir()  # empty, checked before; a file that came in the meantime makes this fail
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_cases(
    out: Path,
    num_cases: int,
    seed: int,
    num_workers: int,
    variants: dict[str, float],
    progress: Callable[[int, int], None] | None,
) -> None:
    for folder in (out / _FOLDER, out / "masks"):
        folder.mkdir(parents=True)
    rows: list[tuple[str, int, bool]] = []
    poses: dict[str, Any] = {}
    draw = partial(_draw_case, seed, variants)
    # Spawned, not forked: the caller may hold threads (PyTorch, Ray), whose locks can hang a forked process.
    pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) if num_workers > 1 else None
    try:
        results = pool.map(draw, range(num_cases), chunksize=4) if pool else map(draw, range(num_cases))
        for done, (case_id, months, is_male, image, mask, pose) in enumerate(results, start=1):
            (out / _FOLDER / f"{case_id}.png").write_bytes(image)
            (out / "masks" / f"{case_id}.png").write_bytes(mask)
            rows.append((case_id, months, is_male))
            poses[case_id] = pose
            if progress:
                progress(done, num_cases)
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)

    (out / "poses.json").write_text(json.dumps(poses, indent=1, sort_keys=True) + "\n")
    write_table(out / f"{_FOLDER}.csv", ("id", "boneage", "male"), rows)
    if variants:
        truths = [[case_id, *(poses[case_id][name] for name in _TRUTH)] for case_id, *_ in rows]
        write_table(out / "truth.csv", ("id", *_TRUTH), truths)


def _draw_case(
    seed: int, variants: dict[str, float], index: int
) -> tuple[str, int, bool, bytes, bytes, dict[str, Any]]:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    is_male = index % 2 == 1
    months = _draw_bone_age(rng)
    height = int(rng.integers(256, 401))
    chosen = choose(variants, rng) if variants else ()
    phantom = draw_phantom(months, "male" if is_male else "female", rng, height=height, variants=chosen)
    pose = PLAIN | phantom.pose if variants else phantom.pose
    return str(10_001 + index), months, is_male, encode_png(phantom.image), encode_png(phantom.mask), pose


def _draw_bone_age(rng: np.random.Generator) -> int:
    """Whole months over 12 to 216, denser from 96 to 168 as in the RSNA data."""
    bulge = rng.uniform() < 0.45
    low, high = (96, 168) if bulge else (12, 216)
    return int(rng.integers(low, high + 1))


def _pose(points: Points, rotation_deg: float, pixels_per_mm: float, shape_HW: tuple[int, int]) -> dict[str, Any]:
    return {
        "height": shape_HW[0],
        "width": shape_HW[1],
        "rotation_deg": round(rotation_deg, 3),
        "pixels_per_mm": round(pixels_per_mm, 5),
        "landmarks": {name: [round(value, 2) for value in point] for name, point in points.items()},
    }
