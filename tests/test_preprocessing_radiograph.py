"""Decoding: full depth, any common PNG, JPEG, TIFF or BMP, or a reason."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from benchmarks.mutation import mutated, seeds
from preprocessing.levels import sample
from preprocessing.radiograph import MAX_BYTES, RadiographError, decode
from preprocessing.recipe import Recipe
from preprocessing.standardize import Reader, deepened
from preprocessing.views import make_view
from tests.hostile_uploads import png_that_claims

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


FILES = seeds()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_damaged_files_of_every_format_give_an_image_or_a_radiograph_error(seed: int, case: int) -> None:
    try:
        image = decode(mutated(FILES, seed, case))
    except RadiographError:
        return
    assert image.ndim == 2
    assert image.dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_of_any_format_is_refused_or_lacks_no_pixel(name: str) -> None:
    whole = decode(FILES[name])
    for end in range(1, len(FILES[name]), 7):
        try:
            assert np.array_equal(decode(FILES[name][:end]), whole), end
        except RadiographError as error:
            assert error.code in ("unreadable", "unsupported_format")  # noqa: PT017


def test_a_png_whose_data_end_early_is_refused() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in RAMP[:40])
    with pytest.raises(RadiographError, match="rows are missing"):
        decode(png_that_claims(RAMP.shape[1], RAMP.shape[0], rows))


def test_bytes_after_the_end_of_a_jpeg_change_no_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 70)).astype(np.uint8)
    data = cv2.imencode(".jpg", cv2.GaussianBlur(image, (0, 0), 3))[1].tobytes()
    assert np.array_equal(decode(data), decode(data + b"by a scanner"))


def test_a_jpeg_closed_too_early_is_refused() -> None:
    data = saved(Image.fromarray(RAMP), "JPEG")
    with pytest.raises(RadiographError, match="rows are missing"):
        decode(data[:-300] + b"\xff\xd9")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "16-bit grey PNG", "16-bit colour PNG", "16-bit colour TIFF"])
def test_orientation_is_applied_in_every_format(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(_with_exif(RAMP, exif)))
    if kind == "16-bit colour PNG":
        data = png(np.dstack([RAMP.astype(np.uint16) * 257] * 3))
        chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        data = data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    elif kind == "16-bit colour TIFF":
        data = cv2.imencode(".tiff", np.dstack([RAMP.astype(np.uint16) * 257] * 3))[1].tobytes()
        data = _with_tiff_tag(data, 274, orientation)
    elif kind == "16-bit grey PNG":
        data = saved(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG", exif=exif)
    else:
        data = saved(Image.fromarray(RAMP), kind, exif=exif)
    image = decode(data)
    image = image / 257 if image.dtype == np.uint16 else image
    assert image.shape == expected.shape
    assert np.abs(image - expected.astype(float)).max() <= 4


def _with_exif(image: np.ndarray, exif: Image.Exif) -> Image.Image:
    return Image.open(io.BytesIO(saved(Image.fromarray(image), "PNG", exif=exif)))


def _with_tiff_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with one more short tag, its directory rewritten at the end."""
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    entries = [entry for entry in entries if struct.unpack_from("<H", entry)[0] != tag]
    entries = sorted([*entries, struct.pack("<HHIHH", tag, 3, 1, value, 0)], key=lambda e: struct.unpack_from("<H", e))
    data += b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_in_a_tiff_that_says_so(bits: int) -> None:
    full = (1 << bits) - 1
    image = (RAMP.astype(np.uint16) * (full // 255)).astype(np.uint8 if bits == 8 else np.uint16)
    negative = _with_tiff_tag(saved(Image.fromarray((full - image).astype(image.dtype)), "TIFF"), 262, 0)
    assert np.array_equal(decode(negative), image)


def test_several_pages_are_refused() -> None:
    pages = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    for kind in ("TIFF", "PNG"):
        with pytest.raises(RadiographError) as caught:
            decode(saved(pages[0], kind, save_all=True, append_images=pages[1:]))
        assert caught.value.code == "multi_frame"


def test_a_colour_photograph_is_refused_and_a_coloured_marker_is_not() -> None:
    grey = np.dstack([RAMP] * 3)
    marked = grey.copy()
    marked[:10, :20] = (255, 200, 0)  # 2 % of the picture
    assert decode(png(marked)).shape == RAMP.shape
    assert np.array_equal(decode(png(grey)), RAMP)
    skin = (grey * np.array([0.5, 0.7, 1.0])).astype(np.uint8)
    for image in (skin, skin.astype(np.uint16) * 257):
        with pytest.raises(RadiographError) as caught:
            decode(png(image))
        assert caught.value.code == "colour_photograph"


def test_a_blank_bomb_is_refused_before_it_unpacks() -> None:
    with pytest.raises(RadiographError) as caught:
        decode(png_that_claims(7000, 7000, bytes(1000)))
    assert caught.value.code == "too_compressed"


def test_a_float_tiff_is_refused() -> None:
    with pytest.raises(RadiographError) as caught:
        decode(saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"))
    assert caught.value.code == "unsupported_format"


def test_a_constant_picture_is_blank() -> None:
    with pytest.raises(RadiographError) as caught:
        Reader(Recipe()).read(png(np.full((100, 100), 7, np.uint8)))
    assert caught.value.code == "blank"


def _whole(image_HW: np.ndarray, recipe: Recipe) -> np.ndarray:
    return make_view(image_HW, "full", recipe, None, sample(image_HW))


def test_aspect_is_kept_and_padding_is_black() -> None:
    square = _whole(deepened(np.tile(np.arange(100, dtype=np.uint8), (200, 1))), Recipe(size=96))
    assert square.shape == (96, 96)
    assert not square[:, :24].any()
    assert square[:, 70].all()


def test_8_and_16_bit_copies_standardise_alike() -> None:
    eight = np.random.default_rng(0).integers(0, 256, (150, 110)).astype(np.uint8)
    a, b = (_whole(deepened(image), Recipe()) for image in (eight, eight.astype(np.uint16) * 257))
    assert np.abs(a.astype(int) - b).max() <= 1


def test_a_small_hand_on_black_is_not_blank() -> None:
    image = np.zeros((400, 400), np.uint8)
    image[190:200, 190:200] = 200
    assert _whole(deepened(image), Recipe()).max() > 0
