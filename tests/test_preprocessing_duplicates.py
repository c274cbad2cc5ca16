"""Cases that belong together are found, and nothing else is joined."""

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.duplicates import MAX_DISTANCE, group_cases, perceptual_hash
from preprocessing.folds import assign


def bits_apart(one: bytes, other: bytes) -> int:
    return int(np.bitwise_count(np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)).sum())


def flipped(content: bytes, count: int) -> bytes:
    """The same 256 bits with the first `count` of them turned over."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    bits[:count] ^= 1
    return np.packbits(bits).tobytes()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (12, 12)).astype(np.uint8), (200, 200), interpolation=cv2.INTER_CUBIC)


def test_copies_share_nearly_all_bits_and_other_pictures_half_of_them(picture: np.ndarray) -> None:
    original = perceptual_hash(picture)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
    dark = (picture * 0.6).astype(np.uint8)
    small = cv2.resize(picture, (80, 80), interpolation=cv2.INTER_AREA)
    assert max(bits_apart(original, perceptual_hash(copy)) for copy in (jpeg, dark, small)) <= MAX_DISTANCE
    assert bits_apart(original, perceptual_hash(picture[:, ::-1])) > 2 * MAX_DISTANCE


def test_bits_are_counted_and_chains_joined() -> None:
    first = bytes(32)
    hashes = [
        first,
        flipped(first, MAX_DISTANCE),
        flipped(first, 2 * MAX_DISTANCE),
        flipped(first, 3 * MAX_DISTANCE + 1),
    ]
    grouping = group_cases(hashes, [""] * 4)
    assert grouping.group.tolist() == [0, 0, 0, 1]
    assert grouping.distance.tolist()[:3] == [MAX_DISTANCE] * 3
    assert grouping.distance[3] > MAX_DISTANCE


def test_patients_and_pictures_are_joined_across_each_other() -> None:
    rng = np.random.default_rng(0)
    a, b, c, d = (rng.bytes(32) for _ in range(4))
    assert group_cases([a, b, c, d, b], ["x", "x", "", "", "y"]).group.tolist() == [0, 0, 1, 2, 0]


def test_an_unknown_patient_is_nobody() -> None:
    hashes = [np.random.default_rng(i).bytes(32) for i in range(3)]
    assert group_cases(hashes, ["", "", ""]).group.tolist() == [0, 1, 2]


@settings(max_examples=30, deadline=None)
@given(num_cases=st.integers(130, 400), num_patients=st.integers(40, 120), seed=st.integers(0, 99))
def test_no_patient_is_in_two_folds_or_on_both_sides_of_the_locked_test(
    num_cases: int, num_patients: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    patients = [f"p{number}" if number else "" for number in rng.integers(0, num_patients, num_cases)]
    hashes = [rng.bytes(32) for _ in range(num_cases)]
    hashes[7] = flipped(hashes[300 % num_cases], 3)
    grouping = group_cases(hashes, patients)
    cases = pd.DataFrame({"is_male": rng.random(num_cases) < 0.5, "bone_age_months": rng.uniform(0, 228, num_cases)})
    fold, is_test = assign(cases, grouping.group, num_folds=3, test_fraction=0.1, seed=0)
    placed = pd.DataFrame({"patient": patients, "fold": fold, "is_test": is_test})
    known = placed[placed["patient"] != ""].groupby("patient")
    assert (known["fold"].nunique() == 1).all()
    assert (known["is_test"].nunique() == 1).all()
    assert fold[7] == fold[300 % num_cases]
