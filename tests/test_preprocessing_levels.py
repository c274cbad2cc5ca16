"""Percentiles are those of NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from preprocessing.levels import percentiles, sample

SHARES = st.lists(st.floats(0, 100), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    levels=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(max_dims=2, max_side=40))
    ),
    shares=SHARES,
)
def test_they_are_those_of_numpy(levels: np.ndarray, shares: list[float]) -> None:
    assert percentiles(levels, shares) == pytest.approx(np.percentile(levels, shares), rel=1e-9, abs=1e-6)


def test_every_second_pixel_of_a_picture_may_be_given() -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (60, 80)).astype(np.uint16)
    assert percentiles(picture[::2, ::3], (1, 99)) == pytest.approx(np.percentile(picture[::2, ::3], (1, 99)))


@pytest.mark.parametrize("levels", [np.zeros(3), np.zeros(0, np.uint8), np.zeros(3, np.int32)])
def test_levels_of_another_type_and_none_are_refused(levels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="of 8 or 16 bit"):
        percentiles(levels, (50,))


def test_counted_levels_are_those_that_sorting_gives() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (300, 384)).astype(np.uint16) * np.uint16(257)
    counted, ordered = sample(picture, quantum=257), sample(picture)
    assert np.array_equal(counted.ordered, ordered.ordered)
    assert counted.ordered.dtype == np.uint16
