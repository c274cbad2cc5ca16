"""Adaptive equalisation: limited, continuous, and close to OpenCV's where that is meant to work."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.clahe import equalise
from tests.hands import hand

PICTURE = cv2.resize(hand(5).image, (256, 256), interpolation=cv2.INTER_AREA)


def test_it_agrees_with_opencv_on_whole_levels() -> None:
    ours, theirs = equalise(PICTURE, 2.0, 8), cv2.createCLAHE(2.0, (8, 8)).apply(PICTURE)
    assert np.abs(ours - theirs).mean() < 6


def test_a_rounding_of_the_input_stays_a_rounding() -> None:
    fine = PICTURE + np.random.default_rng(0).uniform(-0.05, 0.05, PICTURE.shape)
    assert np.abs(equalise(np.clip(fine, 0, 255), 2.0, 8) - equalise(PICTURE, 2.0, 8)).max() < 1


@given(st.integers(64, 130), st.integers(1, 12), st.floats(0.5, 40))
def test_levels_stay_levels(side: int, tiles: int, clip: float) -> None:
    picture = np.random.default_rng(side).uniform(0, 255, (side, side))
    equalised = equalise(picture, clip, tiles)
    assert equalised.shape == picture.shape
    assert np.isfinite(equalised).all()
    assert equalised.min() >= 0
    assert equalised.max() <= 255.001


@pytest.mark.parametrize("level", [0.0, 77.3, 255.0])
def test_a_flat_picture_stays_flat(level: float) -> None:
    equalised = equalise(np.full((96, 96), level), 2.0, 8)
    assert np.ptp(equalised) < 1e-3


def test_faint_structure_is_raised() -> None:
    faint = 100 + np.tile(np.arange(96) % 8, (96, 1)).astype(float)
    assert np.ptp(equalise(faint, 4.0, 8)) > 1.5 * np.ptp(faint)
