"""Wrong inputs: every kind can be drawn, reproducibly, in variety, and none is out of range."""

import numpy as np
import pytest

from preprocessing.drawing.wrong import KINDS, draw_wrong_input


def drawn(kind: str, seed: int, height: int = 96) -> np.ndarray:
    return draw_wrong_input(kind, np.random.default_rng(seed), height=height)


def test_there_are_many_kinds_and_no_name_twice() -> None:
    assert len(KINDS) == len(set(KINDS)) >= 25


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_grey_picture_of_the_height_asked_for(kind: str) -> None:
    for seed in range(8):
        image = drawn(kind, seed)
        assert image.dtype == np.uint8
        assert image.ndim == 2
        assert image.shape[0] == 96
        assert 0.5 * 96 < image.shape[1] < 1.6 * 96


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_draws_the_same_picture_and_another_seed_another(kind: str) -> None:
    np.testing.assert_array_equal(drawn(kind, 1), drawn(kind, 1))
    others = [drawn(kind, seed) for seed in range(2, 8)]
    assert len({(image.shape, image.tobytes()) for image in others}) == len(others)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "blank"])
def test_something_can_be_seen_on_most(kind: str) -> None:
    spreads = [float(np.subtract(*np.percentile(drawn(kind, seed), (99, 1)))) for seed in range(8)]
    assert np.median(spreads) > 8


def test_the_smallest_and_an_uncommon_height_can_be_drawn() -> None:
    for kind in KINDS:
        assert drawn(kind, 3, height=64).shape[0] == 64
        assert drawn(kind, 3, height=131).shape[0] == 131


def test_refuses_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of noise, .*; got 'hand'\. Name one"):
        drawn("hand", 0)


def test_refuses_a_height_that_is_too_small() -> None:
    with pytest.raises(ValueError, match=r"at least 64 pixels, got 63\."):
        drawn("noise", 0, height=63)
