"""Drawn left-hand radiographs with a known bone age, sex, mask and pose: data for demonstrations and tests
without patients.

Bone age can be learnt only from the bones. Size, pose, soft tissue, exposure, noise, frame and markers are
drawn before bone age is looked at, from the same random numbers, so two phantoms of one seed and different
bone ages differ in their bones alone.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocessing.drawing.bones import VISIBLE, draw_bones
from preprocessing.drawing.exposure import ByteArray, expose
from preprocessing.drawing.ossification import CENTRES, Sex, draw_tempo, maturity, shaft_growth
from preprocessing.drawing.placement import Placement, place
from preprocessing.drawing.skeleton import FloatArray, Hand, draw_hand
from preprocessing.drawing.soft_tissue import draw_soft_tissue

YOUNGEST, OLDEST = 6, 228
"""Bone ages that can be drawn, in months; the ends of the RSNA range."""
_FINER = 2  # bones are drawn on a grid this much finer than the picture: a dot of 1 mm keeps its shape
_FOLDER = "boneage-training-dataset"


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """One drawn radiograph and what is true of it."""

    image: ByteArray
    """(H, W) uint8, grey, bone bright."""
    mask: ByteArray
    """(H, W) uint8: 255 on hand and forearm with their soft tissue, else 0."""
    bones: ByteArray
    """(H, W) uint8: 255 where ossified bone is drawn, else 0; inside `mask`."""
    pose: dict[str, Any]
    """height, width, rotation_deg (clockwise), pixels_per_mm, and landmarks {name: [x, y]} in pixels."""


def draw_phantom(
    bone_age_months: float,
    sex: Sex,
    rng: np.random.Generator,
    *,
    height: int = 320,
    bones_visible: bool = True,
) -> Phantom:
    """Draws one left hand, fingers up and thumb on the right.

    Args:
        bone_age_months: 6 to 228.
        sex: "female" or "male"; girls are ahead by the timetables of `ossification`.
        rng: Source of everything else; it is drawn from equally often at every bone age and sex.
        height: Pixels; the width is 0.70 to 0.92 of it.
        bones_visible: False leaves the bones out of the image: a control, since nothing else tells bone age.

    Raises:
        ValueError: A bone age, sex or height that cannot be drawn.
    """
    if not YOUNGEST <= bone_age_months <= OLDEST:
        raise ValueError(f"bone age must be {YOUNGEST} to {OLDEST} months, got {bone_age_months}. Give it in months.")
    if sex not in ("female", "male"):
        raise ValueError(f'sex must be "female" or "male", got {sex!r}. Write the word out in lower case.')
    if height < 64:
        raise ValueError(f"height must be at least 64 pixels, got {height}. Draw it larger, then shrink it.")

    width = round(height * rng.uniform(0.70, 0.92))
    tempo = draw_tempo(rng)
    hand = draw_hand(rng)
    placement = place(hand, height, width, rng)
    fine, fine_HW = placement.enlarged(_FINER), (height * _FINER, width * _FINER)
    tissue = draw_soft_tissue(hand, placement, (height, width), rng)
    texture_HW = _trabeculae(height, width, placement.scale, rng)
    mineral = rng.uniform(0.68, 1.25)

    states = {centre: maturity(centre, sex, bone_age_months, tempo[centre]) for centre in CENTRES}
    bone_fine_HW = draw_bones(hand, fine, fine_HW, states, shaft_growth(sex, bone_age_months), texture_HW)

    bone_HW = _shrink(bone_fine_HW, width, height)
    ossified = _shrink((bone_fine_HW > VISIBLE).astype(np.float32), width, height)
    soft_HW, mask = tissue.attenuation_HW, tissue.outline_HW
    total_HW = soft_HW + np.float32(mineral) * bone_HW if bones_visible else soft_HW
    return Phantom(
        image=expose(total_HW, soft_HW, mask, rng),
        mask=mask,
        bones=np.where(ossified > 0.5, mask, np.uint8(0)),
        pose=_pose(hand, placement, height, width),
    )


def write_phantoms(
    out: Path,
    *,
    num_cases: int,
    seed: int,
    num_workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a labelled folder in the RSNA layout, with masks and poses beside it.

    ``out/boneage-training-dataset.csv`` (id, boneage, male),
    ``out/boneage-training-dataset/<id>.png`` (8-bit grey), ``out/masks/<id>.png`` and ``out/poses.json``.
    Case i depends on `seed` and i alone: the bytes are the same whatever `num_workers` and however many
    cases follow. The folder appears complete or not at all.

    Args:
        out: New or empty folder.
        num_cases: At least 1.
        seed: 0 or more.
        num_workers: Processes; 1 draws in this one.
        progress: Called with (cases done, cases in all) after each case.

    Raises:
        ValueError: A bad number, or a folder that is not empty.
    """
    for name, value, least in (
        ("num_cases", num_cases, 1),
        ("seed", seed, 0),
        ("num_workers", num_workers, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}. Give a larger one.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"Phantoms are written to a new or empty folder, but {out} is not. Remove it or name another one."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_cases(staging, num_cases, seed, num_workers, progress)
        staging.chmod(0o755)
        if out.exists():
            out.rmdir()  # empty, checked before; a file that came in the meantime makes this fail
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_cases(
    out: Path, num_cases: int, seed: int, num_workers: int, progress: Callable[[int, int], None] | None
) -> None:
    for folder in (out / _FOLDER, out / "masks"):
        folder.mkdir(parents=True)
    rows: list[tuple[str, int, bool]] = []
    poses: dict[str, Any] = {}
    draw = partial(_draw_case, seed)
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
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("id", "boneage", "male"))
    writer.writerows(rows)
    (out / f"{_FOLDER}.csv").write_text(table.getvalue())


def _draw_case(seed: int, index: int) -> tuple[str, int, bool, bytes, bytes, dict[str, Any]]:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    is_male = index % 2 == 1
    months = _draw_bone_age(rng)
    phantom = draw_phantom(months, "male" if is_male else "female", rng, height=int(rng.integers(256, 401)))
    return str(10_001 + index), months, is_male, _png(phantom.image), _png(phantom.mask), phantom.pose


def _draw_bone_age(rng: np.random.Generator) -> int:
    """Whole months over 12 to 216, denser from 96 to 168 as in the RSNA data."""
    bulge = rng.uniform() < 0.45
    low, high = (96, 168) if bulge else (12, 216)
    return int(rng.integers(low, high + 1))


def _trabeculae(height: int, width: int, pixels_per_mm: float, rng: np.random.Generator) -> FloatArray:
    """Relative density of trabecular bone on the finer grid: an irregular mesh about 1."""
    noise = rng.standard_normal((height, width), dtype=np.float32)
    mesh = cv2.GaussianBlur(noise, (0, 0), 0.35 * pixels_per_mm) - cv2.GaussianBlur(noise, (0, 0), 1.0 * pixels_per_mm)
    mesh = np.clip(1 + np.float32(0.22 / max(float(mesh.std()), 1e-6)) * mesh, 0.3, 1.9)
    fine = cv2.resize(mesh, (width * _FINER, height * _FINER), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine, np.float32)


def _shrink(image_HW: FloatArray, width: int, height: int) -> FloatArray:
    return np.asarray(cv2.resize(image_HW, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _pose(hand: Hand, placement: Placement, height: int, width: int) -> dict[str, Any]:
    points = {"wrist": (0.0, 0.0), "middle_fingertip": hand.fingertips[2]}
    points |= {f"fingertip_{ray}": tip for ray, tip in enumerate(hand.fingertips, start=1)}
    points |= {
        bone.name: bone.origin for bone in hand.tubular if bone.name[0].isdigit()
    }  # proximal end of each short bone
    landmarks = {name: [round(value, 2) for value in placement.to_pixels(*point)] for name, point in points.items()}
    return {
        "height": height,
        "width": width,
        "rotation_deg": round(float(np.degrees(placement.rotation)), 3),
        "pixels_per_mm": round(placement.scale, 5),
        "landmarks": landmarks,
    }


def _png(image: ByteArray) -> bytes:
    # A fixed level and strategy: the bytes then depend on the pixels alone.
    done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, 1])
    assert done
    return encoded.tobytes()
