"""What an examination is made of: the cases that are drawn, their pictures at full depth, a name for exactly them.

Shape letters: C cases, H height, W width.
"""

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd

from ensemble.chronology import OLDEST_MONTHS
from ensemble.measures import chronological_of
from preprocessing.radiograph import decode_with_header
from preprocessing.source import Source
from preprocessing.storage import sha256_file

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of a detector's levels."""


def drawn(source: Source, num_cases: int, seed: int) -> np.ndarray:
    """Row numbers of at most so many cases, ascending; of a larger draw with the same seed they are a part."""
    if num_cases < 1:
        raise ValueError(f"num_cases must be 1 or more, got {num_cases}.")
    return np.sort(np.random.default_rng(seed).permutation(len(source.cases))[:num_cases])


def ages(cases: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Chronological ages that are stated of cases to whoever is asked, though no answer may depend on them.

    Where the source says none of a child, the reference bone age stands in. A system that answers with the age that it
    is told then looks better than it is as long as the age is right, and falls when it is another's or absent.

    Args:
        cases: As `preprocessing.source.Source.cases` has them.

    Returns:
        ``(C,)`` months, and how many of them the source says.
    """
    said_C = chronological_of(cases)
    if said_C is None:
        said_C = np.full(len(cases), np.nan)
    is_said_C = (said_C >= 0) & (said_C <= OLDEST_MONTHS)
    return np.where(is_said_C, said_C, cases["bone_age_months"].to_numpy(float)), int(is_said_C.sum())


def permuted(age_C: np.ndarray, seed: int) -> np.ndarray:
    """``(C,)`` the ages, to each case another case's; of one case its own."""
    order_C = np.random.default_rng(seed).permutation(len(age_C))
    anothers_C = np.empty_like(age_C)
    anothers_C[order_C] = age_C[np.roll(order_C, 1)]  # along one ring
    return anothers_C


def levels(data: bytes) -> np.ndarray:
    """A picture by the range that it was taken in, so that one radiograph is the same whatever file holds it.

    A DICOM's window spans 16 bit, as `preprocessing.dicom_levels` makes it. A file of 16 bit mostly holds fewer, and
    only a DICOM would say how many: taken are the fewest of `DEPTHS` that hold its brightest pixel.

    Args:
        data: The whole file.

    Returns:
        ``(H, W)`` float32 within 0..1, bone bright; no two levels of the file become one.

    Raises:
        RadiographError: The bytes hold no picture.
    """
    decoded = decode_with_header(data)
    pixels_HW, header = decoded.pixels, decoded.header
    bits = 8 * pixels_HW.itemsize
    if bits == 16 and (header is None or header.display == "stored"):
        bits = next(depth for depth in DEPTHS if pixels_HW.max() < 1 << depth)
    return pixels_HW.astype(np.float32) / np.float32((1 << bits) - 1)


def material(source: Source, rows: np.ndarray) -> dict[str, Any]:
    """Name the data of an examination without holding them.

    Args:
        source: Labelled radiographs.
        rows: Of the cases that were drawn.

    Returns:
        ``name`` of the folder; ``num_cases``; and ``cases_sha256``, of each case's id, sex, bone age and the SHA-256 of
        its file (empty where it cannot be opened), by id.
    """
    cases, paths = source.cases.iloc[rows], source.paths
    named = [
        [str(case_id), str(sex), float(months), _sha256(source, paths[row])]
        for row, case_id, sex, months in zip(
            rows, cases["case_id"], cases["sex"], cases["bone_age_months"], strict=True
        )
    ]
    digest = hashlib.sha256(json.dumps(sorted(named)).encode()).hexdigest()
    return {"name": source.folder.name, "num_cases": len(rows), "cases_sha256": digest}


def _sha256(source: Source, path: str) -> str:
    try:
        return sha256_file(source.folder / path)
    except OSError:
        return ""
