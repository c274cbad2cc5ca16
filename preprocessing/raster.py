"""PNG, JPEG, TIFF and BMP to arrays at their full depth.

Pillow reads them, since it refuses what is cut short where OpenCV returns a grey half; OpenCV reads colour of 16 bits,
of which Pillow keeps 8. What neither of them notices is checked here.
"""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from preprocessing import png
from preprocessing.limits import MAX_PIXELS, RadiographError, check_ratio, check_size, unreadable

MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}
MAX_SCANS = 64
"""Most passes over a progressive JPEG. Encoders write about ten; thousands of empty ones would take minutes."""

_END_OF_JPEG = b"\xff\xd9"
_GREY_MODES = ("L", "I;16", "I;16B", "I")
_ORIENTATION, _PHOTOMETRIC, _BITS, _SAMPLES, _SUBFILE, _TILE_WIDTH, _TILE_HEIGHT = 274, 262, 258, 277, 254, 322, 323
# What Pillow and NumPy raise on damaged bytes, found by fuzzing; their wording may quote the file and is dropped.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError)


def decode_raster(data: bytes, kind: str) -> np.ndarray:
    """Decode one picture and apply its orientation.

    Args:
        data: The whole file.
        kind: One of the values of `MAGIC`.

    Returns:
        ``(H, W)`` grey of any integer type, or ``(H, W, 3)`` or ``(H, W, 4)`` uint8 or uint16, red first.

    Raises:
        RadiographError: Damaged, cut short, too large, too small, or more than one picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as file:
            check_size(*file.size)
            return _READERS[kind](data, file)
    except RadiographError:
        raise
    except Image.DecompressionBombError:
        raise RadiographError("too_many_pixels", f"A picture may have {MAX_PIXELS:,} pixels.") from None
    except (*_DAMAGE, struct.error, zlib.error, cv2.error) as error:
        raise unreadable(kind, type(error).__name__) from None


def _read_png(data: bytes, file: Image.Image) -> np.ndarray:
    chunks = png.data_chunks(data)
    expected = png.decoded_bytes(data)
    check_ratio(expected, sum(map(len, chunks)))
    if png.is_deep_colour(data):
        png.check_complete(chunks, expected)
        return _orient(_decode_deep_colour(data), file)
    file.load()
    # A stream that ends early leaves the rest of Pillow's picture at 0, so only such a picture is worth a second look.
    last_row = file.crop((0, file.height - 1, file.width, file.height))
    if png.is_interlaced(data) or not np.asarray(last_row).any():
        png.check_complete(chunks, expected)
    return _to_array(file)


def _read_jpeg(data: bytes, file: Image.Image) -> np.ndarray:
    _check_single(file)
    check_ratio(file.width * file.height * len(file.getbands()), len(data))
    has_scans = file.mode != "L" or "progressive" in file.info  # of a plain grey picture only the first is read
    if has_scans and data.count(b"\xff\xda") > MAX_SCANS:
        raise unreadable("JPEG", f"it has more than {MAX_SCANS} scans")
    if file.mode == "L" and data.endswith(_END_OF_JPEG):  # whole, as far as can be told; OpenCV is a quarter faster
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if grey is None:
            raise unreadable("JPEG", "its data cannot be decoded")
        image = _orient(grey, file)
    else:
        file.load()
        grey = np.asarray(file)
        image = _to_array(file)
    # Where the data stop before an end mark, libjpeg goes on with mid-grey and nobody hears of it.
    if (grey[-1] == 128).all():
        raise unreadable("JPEG", "rows are missing")
    return image


def _read_tiff(data: bytes, file: Image.Image) -> np.ndarray:
    tags = file.tag_v2  # type: ignore[attr-defined]
    _check_single(file)
    bits, samples = max(tags.get(_BITS, (1,))), tags.get(_SAMPLES, 1)
    check_ratio(file.width * file.height * samples * bits // 8, len(data))
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)
    if tile > MAX_PIXELS or tile > 16 * (file.width + 1024) * (file.height + 1024):
        raise unreadable("TIFF", "a tile is larger than the picture")
    if bits > 8 and samples > 1:
        return _decode_deep_colour(data)  # OpenCV applies a TIFF's orientation itself
    negative = tags.get(_PHOTOMETRIC) == 0 and bits > 8  # Pillow inverts up to 8 bits
    file.load()
    image = _to_array(file)
    return (1 << bits) - 1 - image if negative else image


def _read_bmp(data: bytes, file: Image.Image) -> np.ndarray:
    check_ratio(file.width * file.height * len(file.getbands()), len(data))
    file.load()
    return _to_array(file)


_READERS = {"PNG": _read_png, "JPEG": _read_jpeg, "TIFF": _read_tiff, "BMP": _read_bmp}


def _check_single(file: Image.Image) -> None:
    """Refuse several pictures in one file; reduced copies beside the picture, as previews, are none of them."""
    for page in range(1, 8):
        try:
            file.seek(page)
        except EOFError:
            break
        tags = getattr(file, "tag_v2", {})
        if not int(tags.get(_SUBFILE, 0)) & 1:
            raise RadiographError("multi_frame", "A file holds one radiograph, this one has several pages. Send one.")
    file.seek(0)


def _to_array(file: Image.Image) -> np.ndarray:
    """The loaded picture, its orientation applied."""
    if file.mode == "F":
        raise RadiographError(
            "unsupported_format", "Grey levels must be integers, this file stores fractions. Export it with 16 bits."
        )
    picture: Image.Image = file
    if picture.mode not in _GREY_MODES:
        clear = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
        picture = picture.convert("RGBA" if clear else "RGB")
        picture.info.pop("transparency", None)
    return _orient(np.asarray(picture), file)


def _decode_deep_colour(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise unreadable("picture", "its colour cannot be decoded")
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _orient(image: np.ndarray, file: Image.Image) -> np.ndarray:
    """Apply the EXIF orientation, 1 to 8; a loaded TIFF has none left, Pillow has applied it."""
    orientation = file.getexif().get(_ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image
