"""The pictures made of one radiograph: the same from every format, at full depth, each step on or off."""

import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preprocessing.cohort import Cohort
from preprocessing.levels import sample
from preprocessing.prepare import prepare
from preprocessing.recipe import Recipe
from preprocessing.sources import read_source
from preprocessing.standardize import Reader, deepened
from preprocessing.views import contrast_limits
from tests.dicom_files import JPEG_2000_LOSSLESS, JPEG_LS, LOSSLESS, RLE, dicom
from tests.hands import hand, likeness, png, reader

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them


def saved(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


EIGHT = hand(4).image
SIXTEEN = EIGHT.astype(np.uint16) * 257
TWELVE = EIGHT.astype(np.uint16) * 16 + 7
COPIES = {
    "8.png": png(EIGHT),
    "16.png": png(SIXTEEN),
    "12 in 16.png": png(TWELVE),
    "8.tif": saved(EIGHT, "TIFF"),
    "16.tif": saved(SIXTEEN, "TIFF"),
    "8.bmp": saved(EIGHT, "BMP"),
    "12.dcm": dicom(TWELVE, bits=12),
    "dark bones.dcm": dicom(4095 - TWELVE, bits=12, PhotometricInterpretation="MONOCHROME1"),
    "8.dcm": dicom(EIGHT),
    "rle.dcm": dicom(TWELVE, RLE, bits=12),
    "lossless.dcm": dicom(TWELVE, LOSSLESS, bits=12),
    "jpeg-ls.dcm": dicom(TWELVE, JPEG_LS, bits=12),
    "jpeg-2000.dcm": dicom(TWELVE, JPEG_2000_LOSSLESS, bits=12),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_one_picture_standardise_within_one_grey_level(name: str) -> None:
    read = reader(views=("full", "crop", "masked"), align=True).read
    apart = read(COPIES[name]).pixels.astype(int) - read(COPIES["8.png"]).pixels
    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize(("view", "align"), [("full", False), ("full", True), ("crop", False), ("crop", True)])
def test_a_view_s_matrix_says_where_its_pixels_come_from(view: str, align: bool) -> None:
    reading = reader(views=(view,), align=align, clahe_clip=0.0).read(png(EIGHT))
    back = cv2.warpAffine(
        reading.pixels[0], reading.to_views[0], EIGHT.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    inside = cv2.warpAffine(
        np.ones((96, 96), np.uint8), reading.to_views[0], EIGHT.shape[::-1], flags=cv2.WARP_INVERSE_MAP
    )
    assert reading.shape_HW == EIGHT.shape
    blurred = cv2.GaussianBlur(EIGHT, (0, 0), 1.5)
    assert likeness(back[inside > 0], blurred[inside > 0]) > 0.97


def test_training_pixels_are_serving_pixels_on_every_format(tmp_path: Path) -> None:
    folder, recipe = tmp_path / "source", Recipe.standard(size=64, views=("full", "crop", "masked"))
    folder.mkdir()
    files = {name.replace(" ", "_"): data for name, data in (COPIES | {"8.jpg": saved(EIGHT, "JPEG")}).items()}
    for row, (name, data) in enumerate(files.items()):
        (folder / f"{row}_{name}").write_bytes(data)
    others = {f"other_{i}.png": png(hand(10 + i).image) for i in range(4)}  # copies of one picture share a fold
    for name, data in others.items():
        (folder / name).write_bytes(data)
    names = sorted(path.name for path in folder.iterdir())
    labels = {"id": names, "image": names, "bone_age_months": 120, "sex": "female"}
    pd.DataFrame(labels).to_csv(folder / "labels.csv", index=False)
    prepare(
        read_source(folder),
        tmp_path / "cohort",
        recipe,
        num_folds=2,
        test_fraction=0.0,
        seed=0,
        progress=lambda _: None,
    )
    cohort, serving = Cohort.load(tmp_path / "cohort"), Reader(recipe)
    assert len(cohort.cases) == len(names)
    for file, pixels in zip(cohort.cases["file"], cohort.pixels, strict=True):
        assert np.array_equal(serving.read((folder / file).read_bytes()).pixels, pixels), file


def test_a_12_bit_ramp_keeps_its_levels_until_contrast_begins() -> None:
    ramp = np.tile(np.arange(4096, dtype=np.uint16), (64, 1))
    assert len(np.unique(deepened(ramp))) == 4096
    low, high = contrast_limits(sample(deepened(ramp)), Recipe(clip_percentiles=(0, 100)), None)
    assert low < 20 < 4075 < high


def test_the_crop_shows_the_hand_upright_with_its_thumb_on_the_right() -> None:
    image = np.ascontiguousarray(np.rot90(hand(5).image))
    crop = reader(views=("crop",), align=True).read(png(image)).pixels[0]
    upper, lower = crop[: crop.shape[0] // 8], crop[-crop.shape[0] // 8 :]
    assert (lower > 60).sum() > (upper > 60).sum()  # the forearm is below


def test_the_masked_view_is_black_beside_the_hand() -> None:
    view = reader(views=("masked",), align=True).read(png(hand(5).image)).pixels[0]
    assert not view[:6, :6].any()
    assert (view == 0).mean() > 0.3


def test_white_padding_is_white() -> None:
    view = reader(views=("masked",), align=True, pad="white").read(png(hand(5).image)).pixels[0]
    assert (view[:6, :6] == 255).all()


def test_each_step_changes_the_picture() -> None:
    plain = reader(views=("crop",)).read(png(hand(5).image)).pixels
    for step in ({"clahe_clip": 0.0}, {"align": False}, {"subtract_mean": True}, {"clip_percentiles": (5.0, 95.0)}):
        assert not np.array_equal(reader(views=("crop",), **step).read(png(hand(5).image)).pixels, plain), step


def test_a_mean_subtracted_picture_has_its_mean_at_128() -> None:
    view = reader(views=("crop",), clahe_clip=0.0, subtract_mean=True).read(png(hand(5).image)).pixels[0]
    assert abs(float(view.mean()) - 128) < 12  # clipping at 0 and 255 moves it a little


@pytest.mark.parametrize("size", [64, 96, 512])
def test_a_reading_has_one_square_a_view(size: int) -> None:
    pixels = reader(size=size, views=("full", "crop", "masked")).read(png(hand(5).image)).pixels
    assert pixels.shape == (3, size, size)
    assert pixels.dtype == np.uint8


def test_views_that_need_a_hand_need_a_segmenter() -> None:
    with pytest.raises(ValueError, match="name a segmenter"):
        Recipe(views=("crop",))
