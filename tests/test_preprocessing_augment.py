"""Augmentation: what a strength means, what a change depends on, and that both warps agree."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.__main__ import main
from preprocessing.artefacts import TEXTS, Border, Marker
from preprocessing.augment import Augmentation, Change, draw_change
from preprocessing.augment_sheet import STRENGTHS, contact_sheet
from preprocessing.strength import MILD, NONE, STRONG, limits
from preprocessing.warp import Pose, warp_on_device, warp_on_host

STRENGTH = st.floats(0, 1)
KEY = st.tuples(st.integers(0, 2**40), st.integers(0, 20_000), st.integers(0, 500))


def pictures(num: int, side: int = 64) -> np.ndarray:
    """Smooth pictures with a bright, one-sided shape, as a hand is one."""
    rng = np.random.default_rng(0)
    images = np.stack([cv2.GaussianBlur(rng.uniform(0, 120, (side, side)).astype(np.float32), (0, 0), 2)] * num)
    for i, image in enumerate(images):
        cv2.circle(image, (side // 3, side // 2 + i % 5), side // 5, 200, -1)
        cv2.rectangle(image, (side // 2, side // 8), (side // 2 + 4, side // 2), 230, -1)
    return images.astype(np.uint8)


def plain(strength: float = 0.0) -> Change:
    return draw_change(limits(strength), 0, 0, 0)


def test_zero_is_the_identity() -> None:
    images = pictures(3)
    assert np.array_equal(Augmentation(0.0, 1)(images, range(3), 0).numpy(), images)
    assert np.array_equal(warp_on_host(plain().paint(images[0]), plain().pose), images[0])


def test_a_half_is_the_mild_setting_and_one_the_strong_one() -> None:
    assert (limits(0), limits(0.5), limits(1)) == (NONE, MILD, STRONG)
    assert (MILD.rotation_deg, MILD.shift, MILD.zoom, MILD.gamma) == (7, 0.03, 1.05, 1.1)
    assert (STRONG.rotation_deg, STRONG.shift, STRONG.zoom, STRONG.shear_deg) == (30, 0.2, 1.25, 10)


@pytest.mark.parametrize("bad", [-0.1, 1.01, float("nan")])
def test_a_strength_out_of_range_is_a_sentence(bad: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1, got"):
        Augmentation(bad, 0)


@settings(max_examples=60, deadline=None)
@given(weaker=STRENGTH, stronger=STRENGTH, key=KEY)
def test_stronger_is_the_same_change_further(weaker: float, stronger: float, key: tuple[int, int, int]) -> None:
    weaker, stronger = sorted((weaker, stronger))
    weak, strong = (draw_change(limits(strength), *key) for strength in (weaker, stronger))
    for a, b in zip(astuple(weak.pose)[1:], astuple(strong.pose)[1:], strict=True):
        assert abs(a - (a == weak.pose.zoom)) <= abs(b - (b == strong.pose.zoom)) + 1e-9
    assert bool(weak.marker) <= bool(strong.marker)
    assert bool(weak.border) <= bool(strong.border)
    assert weak.is_inverted <= strong.is_inverted


@settings(max_examples=60, deadline=None)
@given(key=KEY)
def test_no_change_leaves_its_limits(key: tuple[int, int, int]) -> None:
    pose = draw_change(STRONG, *key).pose
    assert abs(pose.rotation_deg) <= 30
    assert abs(pose.shear_deg) <= 10
    assert max(abs(pose.shift_x), abs(pose.shift_y)) <= 0.2
    assert 0.8 <= pose.zoom <= 1.25


def test_artefacts_come_as_often_as_promised() -> None:
    changes = [draw_change(STRONG, 0, case, 0) for case in range(4000)]
    assert np.mean([bool(change.marker) for change in changes]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([bool(change.border) for change in changes]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([change.pose.is_mirrored for change in changes]) == pytest.approx(0.5, abs=0.03)
    assert 0.002 < np.mean([change.is_inverted for change in changes]) < 0.02


@pytest.mark.parametrize("warp_on", ["host", "device"])
def test_a_change_does_not_depend_on_batch_or_order(warp_on: str) -> None:
    images, augment = pictures(12), Augmentation(1.0, 7, warp_on=warp_on)
    together = augment(images, range(12), 3).numpy()
    order = np.random.default_rng(1).permutation(12)
    for batch in (order[:5], order[5:6], order[6:]):
        assert np.array_equal(augment(images[batch], batch, 3).numpy(), together[batch])


def _changed(case: int) -> np.ndarray:
    return Augmentation(1.0, 7)(pictures(12)[[case]], [case], 3).numpy()[0]


@pytest.mark.slow
def test_threads_and_processes_give_the_same_pixels() -> None:
    alone = np.stack([_changed(case) for case in range(12)])
    with ThreadPoolExecutor(4) as threads:
        assert np.array_equal(np.stack(list(threads.map(_changed, range(12)))), alone)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        assert np.array_equal(np.stack(list(processes.map(_changed, range(4), chunksize=2))), alone[:4])


def test_another_seed_case_or_epoch_is_another_change() -> None:
    poses = {draw_change(STRONG, *key).pose for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1)]}
    assert len(poses) == 5


def test_the_caller_s_pixels_stay_as_they_are() -> None:
    images = pictures(8)
    before = images.copy()
    for epoch in range(10):
        Augmentation(1.0, 0)(images, range(8), epoch)
    assert np.array_equal(images, before)


@settings(max_examples=60, deadline=None)
@given(key=KEY, strength=st.floats(0.05, 1), side=st.sampled_from([64, 97]))
def test_host_and_device_give_nearly_the_same_picture(key: tuple[int, int, int], strength: float, side: int) -> None:
    image, pose = pictures(1, side)[0], draw_change(limits(strength), *key).pose
    host = warp_on_host(image, pose).astype(float)
    device = warp_on_device(torch.from_numpy(image[None]), [pose])[0].numpy()
    difference = np.abs(host - device)
    assert difference.mean() < 0.5
    assert (difference > 8).mean() < 0.01


@pytest.mark.parametrize(
    "warp", [warp_on_host, lambda image, pose: warp_on_device(torch.from_numpy(image[None]), [pose])[0]]
)
@pytest.mark.parametrize(
    ("pose", "expected"),
    [
        (Pose(is_mirrored=True), lambda image: image[:, ::-1]),
        (Pose(rotation_deg=90), lambda image: np.rot90(image, -1)),
        (Pose(shift_x=0.25), lambda image: np.hstack([image[:, :1].repeat(16, axis=1), image[:, :-16]])),
        (Pose(shift_y=0.25), lambda image: np.vstack([image[:1].repeat(16, axis=0), image[:-16]])),
    ],
    ids=["mirrored", "clockwise", "to the right", "downwards"],
)
def test_a_pose_means_what_it_says(warp, pose, expected) -> None:
    image = pictures(1)[0]
    assert np.abs(np.asarray(warp(image, pose), float) - expected(image)).max() <= 1


@settings(max_examples=40, deadline=None)
@given(
    text=st.sampled_from(TEXTS),
    x=STRENGTH,
    y=STRENGTH,
    plate=st.booleans(),
    side=st.sampled_from([64, 96, 384]),
    font=st.integers(0, 2),
    height=st.floats(0.03, 0.09),
)
def test_a_marker_is_seen_and_lies_wholly_inside(
    text: str, x: float, y: float, plate: bool, side: int, font: int, height: float
) -> None:
    here, central = np.zeros((2, side, side), np.uint8)
    Marker(text, ((x, y),), height, 200, plate, font).draw(here)
    Marker(text, ((0.5, 0.5),), height, 200, plate, font).draw(central)
    assert here.max() >= 100
    assert here.sum() == central.sum()
    assert (here > 0).mean() < 0.3


def test_a_marker_goes_where_the_picture_is_darkest() -> None:
    image = np.full((96, 96), 100, np.uint8)
    image[:, :48] = 0
    Marker("L", ((0.9, 0.1), (0.1, 0.9)), 0.08, 255, False, 0).draw(image)
    assert (image[:, 48:] == 100).all()
    assert image[:, :48].max() > 200


def test_markers_lie_off_the_centre() -> None:
    for case in range(200):
        marker = draw_change(replace(STRONG, marked=1.0), 0, case, 0).marker
        assert marker
        assert all(max(abs(x - 0.5), abs(y - 0.5)) >= 0.3 for x, y in marker.places)


@pytest.mark.parametrize("rotation_deg", [0.0, 4.0])
def test_a_border_covers_its_margin_and_spares_the_middle(rotation_deg: float) -> None:
    image = np.full((100, 100), 100, np.uint8)
    Border((0.1, 0.0, 0.05, 0.0), rotation_deg, 240).draw(image)
    assert (image[15:90, 5:95] == 100).all()
    assert image[2, 50] == image[98, 50] == 240
    assert image[50, 0] == image[50, 99] == 100


def test_noise_leaves_black_alone_and_has_the_promised_spread() -> None:
    image = np.zeros((128, 256), np.uint8)
    image[:, 128:] = 100
    noisy = replace(plain(), noise_sd=0.08, noise_seed=(1, 2, 3)).paint(image)
    assert (noisy[:, :128] == 0).all()
    assert noisy[:, 128:].std() == pytest.approx(8, rel=0.05)
    assert noisy[:, 128:].mean() == pytest.approx(100, abs=0.3)


def test_an_inversion_is_one() -> None:
    image = pictures(1)[0]
    assert np.array_equal(replace(plain(), is_inverted=True).paint(image), 255 - image)


def test_the_sheet_shows_the_cases_enlarged_and_unchanged_at_zero() -> None:
    images = pictures(3)
    sheet = contact_sheet(images, ["1", "2", "3"])
    assert sheet.shape[1] == len(STRENGTHS) * (3 * 64 + 4)
    assert np.array_equal(sheet[16 : 16 + 192 : 3, : 3 * 64 : 3], images[0])


def test_the_command_draws_a_folder_and_a_cohort(source: Path, cohort_folder: Path, tmp_path: Path) -> None:
    for place in (source, cohort_folder):
        assert main(["augment-sheet", str(place), str(tmp_path / "sheet.png"), "--cases", "2", "--size", "64"]) == 0
        sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_GRAYSCALE)
        assert sheet.shape == (16 + 2 * (192 + 16), len(STRENGTHS) * 196)
