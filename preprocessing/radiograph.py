"""From a file's bytes to grey levels at their full depth, or a reason why not."""

from dataclasses import dataclass

import numpy as np

from preprocessing.colour import to_grey
from preprocessing.dicom import decode_dicom, is_dicom
from preprocessing.header import Header, contradictions
from preprocessing.limits import MAX_BYTES, MAX_PIXELS, MIN_SIDE, RadiographError, check_file
from preprocessing.quiet import quiet
from preprocessing.raster import MAGIC, decode_raster

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "Decoded",
    "Header",
    "RadiographError",
    "contradictions",
    "decode",
    "decode_with_header",
]


@dataclass(frozen=True)
class Decoded:
    """A radiograph, and what its file says about it."""

    pixels: np.ndarray
    """``(H, W)`` uint8 or uint16, bone bright."""
    header: Header | None
    """Of a DICOM; None for the other formats, whose metadata are not read beyond the orientation."""


def decode(data: bytes) -> np.ndarray:
    """Decode a PNG, JPEG, TIFF, BMP or DICOM to grey levels without losing depth.

    Colour becomes luminance, transparency is laid over black and an EXIF orientation is applied. A DICOM is rescaled,
    windowed and inverted as its header says; see `preprocessing.dicom_levels`.

    Args:
        data: The whole file.

    Returns:
        ``(H, W)`` uint8 or uint16, as deep as the file stores it; bone is bright as in the challenge's files.

    Raises:
        RadiographError: See its codes. Size limits are checked before memory is taken.
    """
    return decode_with_header(data).pixels


def decode_with_header(data: bytes, *, salt: bytes = b"") -> Decoded:
    """Decode as `decode` does, and keep the few facts of a DICOM header that matter.

    Args:
        data: The whole file.
        salt: Secret of the site that goes into `Header.patient_hash`.

    Raises:
        RadiographError: As `decode`.
    """
    check_file(data)
    with quiet():
        if is_dicom(data):  # first, since its preamble may make it look like a TIFF
            return Decoded(*decode_dicom(data, salt))
        kind = next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)
        if kind is not None:
            return Decoded(to_grey(decode_raster(data, kind)), None)
    raise RadiographError(
        "unsupported_format", "The file must be a PNG, JPEG, TIFF, BMP or DICOM; these bytes are none of them."
    )
