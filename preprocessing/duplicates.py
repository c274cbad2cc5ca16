"""Cases that belong together: the same patient's, and radiographs that are nearly the same picture.

Shape letters: N cases, S side.
"""

from dataclasses import dataclass

import cv2
import numpy as np

MAX_DISTANCE = 36
"""Bits of 256 that may differ between two copies of one picture. How many copies that finds, and how many pairs of
distinct children it joins, is measured by ``python -m benchmarks.duplicates``."""

_BLOCK = 128
"""Rows compared with all others at a time, which keeps memory at some tens of megabytes for ten thousand cases."""


@dataclass(frozen=True)
class Grouping:
    """Which cases belong together."""

    group: np.ndarray
    """``(N,)`` int64, the same number for cases that belong together, counted in order of first appearance."""
    distance: np.ndarray
    """``(N,)`` int, bits between a picture and the nearest other one; above `MAX_DISTANCE` where none is near."""


def perceptual_hash(image_HW: np.ndarray) -> bytes:
    """Hash of 256 bits that copies of a picture nearly share, whatever their compression, size, noise or contrast.

    The bits say which of the lowest 16 x 16 spatial frequencies lie above their median. Source: the DCT hash of
    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, with more frequencies: at its
    64 bits, different children share all of them.

    Args:
        image_HW: ``(H, W)`` grey levels of any depth; the aspect does not matter, as copies share it.
    """
    step = max(1, min(image_HW.shape) // 128)  # averaging every pixel would cost more than reading the file
    small = cv2.resize(image_HW[::step, ::step], (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    levels = np.sort(small, axis=None)
    small = np.clip(small, levels[10], levels[-11])  # a percent each: a bright marker must not outweigh the hand
    frequencies = cv2.dct(small)[:16, :16].ravel()[1:]  # the first is the mean brightness
    return np.packbits(frequencies > np.partition(frequencies, 127)[127]).tobytes()  # the median of 255


def group_cases(hashes: list[bytes], patients: list[str], *, max_distance: int = MAX_DISTANCE) -> Grouping:
    """Join cases of one patient, and cases whose pictures are nearly the same, also in chains.

    Args:
        hashes: Of `perceptual_hash`, one a case.
        patients: One a case; an empty string says nothing.
        max_distance: Bits that may differ.
    """
    words = np.frombuffer(b"".join(hashes), np.uint64).reshape(len(hashes), 4)
    parents = np.arange(len(hashes))
    nearest = np.full(len(hashes), 257)
    for start in range(0, len(hashes), _BLOCK):
        block, rest = words[start : start + _BLOCK], words[start:]  # each pair is looked at once
        distance = sum(np.bitwise_count(block[:, None, i] ^ rest[None, :, i]).astype(np.uint16) for i in range(4))
        for row, other in np.argwhere(distance <= max_distance):
            if row < other:
                pair = [start + row, start + other]
                nearest[pair] = np.minimum(nearest[pair], distance[row, other])
                _join(parents, *pair)
    first: dict[str, int] = {}
    for row, patient in enumerate(patients):
        if patient:
            _join(parents, first.setdefault(patient, row), row)
    numbers: dict[int, int] = {}
    group = [numbers.setdefault(_root(parents, row), len(numbers)) for row in range(len(hashes))]
    return Grouping(np.array(group, np.int64), nearest)


def _root(parents: np.ndarray, row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = int(parents[row])
    return int(row)


def _join(parents: np.ndarray, one: int, other: int) -> None:
    low, high = sorted((_root(parents, one), _root(parents, other)))
    parents[high] = low
