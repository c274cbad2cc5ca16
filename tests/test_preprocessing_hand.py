"""Finding the hand with the shipped weights, on drawn hands whose place is known."""

import cv2
import numpy as np
import pytest
import torch

from preprocessing.hand import find, window_matrix
from preprocessing.phantom import Phantom
from preprocessing.recipe import SHIPPED
from preprocessing.segmenter import SIDE, Segmenter
from preprocessing.standardize import deepened
from tests.hands import hand, likeness, png, reader

SEEDS = range(6)


@pytest.fixture(scope="module")
def segment() -> Segmenter:
    return Segmenter(SHIPPED)


def true_axis(phantom: Phantom) -> float:
    (x, y), (tip_x, tip_y) = (phantom.pose["landmarks"][name] for name in ("wrist", "middle_fingertip"))
    return float(np.degrees(np.arctan2(tip_x - x, y - tip_y)))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_axis_of_a_turned_hand_is_found(segment: Segmenter, seed: int) -> None:
    phantom = hand(seed, "turned")
    found = find(deepened(phantom.image), segment)
    assert found is not None
    assert abs((found.pose.rotation - true_axis(phantom) + 180) % 360 - 180) < 6


@pytest.mark.parametrize("seed", SEEDS)
def test_the_side_is_told_whatever_the_rotation(segment: Segmenter, seed: int) -> None:
    phantom = hand(seed, "turned", "right")
    found = find(deepened(phantom.image), segment)
    assert found is not None
    assert not found.pose.is_left


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mask_lies_on_the_hand(segment: Segmenter, seed: int) -> None:
    phantom = hand(seed)
    found = find(deepened(phantom.image), segment)
    assert found is not None
    given = cv2.warpAffine(phantom.mask, window_matrix(found.pose, SIDE), (SIDE, SIDE)) > 127
    mask = found.window_mask > 0.5
    assert 2 * (given & mask).sum() / (given.sum() + mask.sum()) > 0.93


def test_turned_pictures_give_nearly_the_same_pixels() -> None:
    read, alike = reader(views=("crop",), align=True, clahe_clip=0.0).read, []
    for seed, degrees in ((0, 35), (1, 90), (2, 180), (4, 250), (5, 300)):
        image = hand(seed).image
        height, width = image.shape
        side = int(np.hypot(height, width)) + 2
        move = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        move[:, 2] += (side - width) / 2, (side - height) / 2
        upright, turned = (read(png(i)).pixels for i in (image, cv2.warpAffine(image, move, (side, side))))
        alike.append(likeness(upright, turned))
    assert np.median(alike) > 0.95
    assert min(alike) > 0.85


def test_the_number_of_threads_changes_no_pixel() -> None:
    before = torch.get_num_threads()
    try:
        pixels = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            pixels.append(reader().read(png(hand(1).image)).pixels)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*pixels)


def test_nothing_is_found_in_a_constant_picture(segment: Segmenter) -> None:
    assert find(np.zeros((200, 150), np.uint16), segment) is None
