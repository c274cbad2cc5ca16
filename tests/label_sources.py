"""Labelled folders of tests, as people have them: drawn pictures in the layouts that are read."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.dicom_files import dicom


def picture(seed: int = 0) -> np.ndarray:
    """A bright bar on noise, another one for each seed."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (64, 48)).astype(np.uint8)
    image[8 : 20 + seed % 40, 10 + seed % 7 : 34] += 150
    return image


def write_picture(path: Path, seed: int = 0) -> None:
    """As PNG or JPEG, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed))


def write_dicom(path: Path, seed: int = 0, **elements: Any) -> None:
    """As DICOM, with UIDs of its own unless told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"SOPInstanceUID": f"1.2.826.9.{seed}", "StudyInstanceUID": f"1.2.826.8.{seed}"} | elements
    path.write_bytes(dicom(picture(seed), **known))


ATLAS = {  # the archive's own names, picked from all eight groups
    "ASIF/ASIF05/5012": (5.5, 5.0),
    "ASIM/ASIM00/5604": (0.42, 0.5),
    "BLKF/BLKF18/4393": (18.0, 17.0),
    "BLKM/BLKM13/3174": (13.0, 13.25),
    "CAUF/CAUF09/3811": (8.83, 8.83),
    "CAUM/CAUM02/6120": (2.5, 2.0),
    "HISF/HISF11/3555": (11.5, 12.5),
    "HISM/HISM16/3900": (17.0, 16.5),
}


def write_atlas(root: Path, readings: str | None = None) -> Path:
    """The Digital Hand Atlas with eight hands; `readings` is the CSV, made from `ATLAS` where None."""
    for seed, name in enumerate(ATLAS):
        write_picture(root / "JPEGimages" / f"{name}.jpg", seed)
    if readings is None:
        rows = [f"{name.split('/')[-1]},{first},{second}" for name, (first, second) in ATLAS.items()]
        readings = "\n".join(["Image ID,Reading 1,Reading 2", *rows])
    (root / "readings.csv").write_text(readings)
    return root
