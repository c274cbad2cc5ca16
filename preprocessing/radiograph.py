"""From a file's bytes to grey levels at their full depth, or a reason why not."""

import io

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_BYTES = 32 * 1024 * 1024
"""Largest file that is read. A 2,000 x 2,600 radiograph at 16 bit without compression has 10 MB."""
MAX_PIXELS = 50_000_000
"""Largest picture that is decoded; checked in the header, before memory is taken for it."""
MIN_SIDE = 32
"""Smallest height or width, in pixels, in which a hand could still be read."""

_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}


class RadiographError(ValueError):
    """The bytes are no radiograph that can be read.

    Attributes:
        code: Stable word: ``empty``, ``too_large``, ``unsupported_format``, ``unreadable``,
            ``too_many_pixels``, ``too_small`` or ``blank``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # crosses process borders with its code
        return type(self), (self.code, str(self))


def decode(data: bytes) -> np.ndarray:
    """Decode a PNG or JPEG to grey levels without losing depth.

    Colour becomes luminance, transparency is laid over black and an EXIF orientation is applied.

    Args:
        data: The whole file.

    Returns:
        ``(H, W)`` uint8 or uint16, as deep as the file stores it; bone is bright as in the challenge's files.

    Raises:
        RadiographError: See its codes. Size limits are checked before memory is taken.
    """
    if not data:
        raise RadiographError("empty", "An image is needed, got no bytes. Send the file's content.")
    if len(data) > MAX_BYTES:
        raise RadiographError(
            "too_large",
            f"A file may have {MAX_BYTES:,} bytes, got {len(data):,}. Store it compressed or smaller.",
        )
    kind = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if kind is None:
        raise RadiographError("unsupported_format", "The file must be a PNG or a JPEG; these bytes are neither.")
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as file:
            picture: Image.Image = file
            _check_size(*picture.size)
            if picture.mode in ("RGB", "RGBA") and _is_16_bit_png(kind, data):
                return _grey(_decode_deep_colour(data))
            picture.load()  # raises on truncated or damaged data, where OpenCV returns a grey half
            if picture.mode not in ("L", "I;16", "I;16B", "I"):
                picture = picture.convert("RGBA" if _has_alpha(picture) else "RGB")
            image = np.asarray(ImageOps.exif_transpose(picture))
    except RadiographError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow reports damaged files with these five; its wording is not passed on, it may quote the content.
        raise RadiographError(
            "unreadable", f"The {kind} is damaged or cut short ({type(error).__name__}). Export it again."
        ) from error
    except Image.DecompressionBombError as error:
        raise RadiographError("too_many_pixels", f"A picture may have {MAX_PIXELS:,} pixels.") from error
    return _grey(image)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise RadiographError(
            "too_many_pixels",
            f"A picture may have {MAX_PIXELS:,} pixels, the header says {width:,} x {height:,}. Reduce it first.",
        )
    if min(width, height) < MIN_SIDE:
        raise RadiographError(
            "too_small",
            f"Each side must have {MIN_SIDE} pixels or more, got {width} x {height}. Send the original.",
        )


def _is_16_bit_png(kind: str, data: bytes) -> bool:
    return kind == "PNG" and len(data) > 24 and data[24] == 16


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def _decode_deep_colour(data: bytes) -> np.ndarray:
    """16-bit colour: Pillow would keep 8 bits of it."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise RadiographError("unreadable", "The PNG is damaged or cut short. Export it again.")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _grey(image: np.ndarray) -> np.ndarray:
    """``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` of any integer type to ``(H, W)`` uint8 or uint16."""
    if image.ndim == 3:
        full = np.iinfo(image.dtype).max
        grey = image[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        if image.shape[2] == 4:
            grey *= image[..., 3].astype(np.float32) / full
        image = np.rint(grey).astype(image.dtype)
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    return np.ascontiguousarray(np.clip(image, 0, 65535), dtype=np.uint16)
