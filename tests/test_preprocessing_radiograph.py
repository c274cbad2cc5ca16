"""Decoding: full depth, any common PNG or JPEG, or a reason."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocessing.radiograph import MAX_BYTES, RadiographError, decode
from preprocessing.recipe import Recipe
from preprocessing.standardize import read, standardize

RAMP = np.tile(np.linspace(0, 255, 120).astype(np.uint8), (80, 1))


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (header, data)
    )


def test_grey_png_comes_back_unchanged() -> None:
    assert np.array_equal(decode(png(RAMP)), RAMP)


def test_12_bit_ramp_in_a_16_bit_png_keeps_its_levels() -> None:
    ramp = np.tile(np.arange(4096, dtype=np.uint16), (40, 1))
    assert len(np.unique(decode(png(ramp)))) == 4096


def test_16_bit_colour_keeps_its_levels() -> None:
    ramp = np.tile(np.arange(4096, dtype=np.uint16)[:, None] * 16, (40, 1, 3))
    assert len(np.unique(decode(png(ramp)))) > 4000


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "CMYK"])
def test_every_colour_mode_becomes_grey(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = decode(saved(Image.fromarray(RAMP).convert("RGB").convert(mode), kind))
    assert image.shape == RAMP.shape
    assert image.dtype == np.uint8


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(saved(Image.fromarray(RAMP), "JPEG", exif=exif)).shape == RAMP.T.shape


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"not a picture", "unsupported_format"),
        (b"GIF89a" + bytes(100), "unsupported_format"),
        (b"%PDF-1.7", "unsupported_format"),
        (png(RAMP)[:-40], "unreadable"),
        (png(RAMP)[:20], "unreadable"),
        (saved(Image.fromarray(RAMP), "JPEG")[:-300], "unreadable"),
        (png(np.zeros((1, 1), np.uint8)), "too_small"),
        (png_header(20_000, 20_000), "too_many_pixels"),
        (b"\x89PNG\r\n\x1a\n" + bytes(MAX_BYTES), "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unusable_bytes_have_a_stable_code(data: bytes, code: str) -> None:
    with pytest.raises(RadiographError) as caught:
        decode(data)
    assert caught.value.code == code


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([png(RAMP), saved(Image.fromarray(RAMP), "JPEG")]),
    st.integers(0, 2000),
    st.binary(min_size=1, max_size=30),
)
def test_damaged_files_give_an_image_or_a_radiograph_error(data: bytes, place: int, junk: bytes) -> None:
    place %= len(data)
    try:
        image = decode(data[:place] + junk + data[place + len(junk) :])
    except RadiographError:
        return
    assert image.ndim == 2


def test_a_constant_picture_is_blank() -> None:
    with pytest.raises(RadiographError) as caught:
        read(png(np.full((100, 100), 7, np.uint8)), Recipe())
    assert caught.value.code == "blank"


def test_aspect_is_kept_and_padding_is_black() -> None:
    square = standardize(np.tile(np.arange(100, dtype=np.uint8), (200, 1)), Recipe(size=96))
    assert square.shape == (96, 96)
    assert not square[:, :24].any()
    assert square[:, 70].all()


def test_8_and_16_bit_copies_standardise_alike() -> None:
    eight = np.random.default_rng(0).integers(0, 256, (150, 110)).astype(np.uint8)
    a, b = (standardize(image, Recipe()) for image in (eight, eight.astype(np.uint16) * 257))
    assert np.abs(a.astype(int) - b).max() <= 1


def test_a_small_hand_on_black_is_not_blank() -> None:
    image = np.zeros((400, 400), np.uint8)
    image[190:200, 190:200] = 200
    assert standardize(image, Recipe()).max() > 0
