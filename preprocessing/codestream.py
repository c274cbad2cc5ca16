"""What a compressed frame of a DICOM says of itself, read before any codec may trust it."""

import math
import re
import struct
from itertools import pairwise

from preprocessing.limits import unreadable

_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG's start-of-frame markers, and that of JPEG-LS
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_MAX_RLE_BYTES = 1 << 28
"""Two bytes of RLE unpack to 128 at most; a frame that could exceed this is counted before it is unpacked."""


def check_frame(frame: bytes, shape: tuple[int, int, int], allocated: int, *, codec: str) -> None:
    """Refuse a compressed frame that is cut, or that would unpack to another size than the header's.

    Args:
        frame: JPEG, JPEG-LS, JPEG 2000, or RLE where `codec` is ``pydicom``.
        shape: Rows, columns and samples a pixel of the header.
        allocated: Bits of a sample in memory.
        codec: The plug-in that is going to decode it.

    Raises:
        RadiographError: ``unreadable``.
    """
    if codec == "pydicom":
        if len(frame) * 64 > _MAX_RLE_BYTES and _rle_bytes(frame) > math.prod(shape) * allocated // 4:
            raise unreadable("DICOM", "its RLE data are longer than the picture")
        return
    if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise unreadable("DICOM", "its compressed data have no end")
    if _frame_shape(frame) != shape:
        raise unreadable("DICOM", "its compressed size differs from its header")
    if codec == "gdcm" and not _is_plain_lossless(frame, allocated):
        raise unreadable("DICOM", "its JPEG is not one lossless scan")


def _is_plain_lossless(frame: bytes, allocated: int) -> bool:
    """Whether it is one sound header and one lossless scan up to the end, as every encoder writes it.

    GDCM ends the whole process where a second header or scan turns up in the middle, or over a depth of 110 bits:
    what it is given must be as ITU-T T.81, annex H, has it. Only the coded values remain for it to judge.
    """
    position, components, depth = 2, 0, 0
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4], "big")
        body = frame[position + 4 : position + 2 + length]
        if marker == 0xDA:
            end = len(frame.rstrip(b"\0")) - 2
            sound = components and len(body) == 4 + 2 * components and body[0] == components
            predictor, last, shift = body[-3:] if sound else (0, 0, 0)
            sound = sound and 1 <= predictor <= 7 and last == 0 and shift < depth
            return bool(sound) and not _MARKER_IN_SCAN.search(frame, position + 2 + length, end)
        if marker == 0xC3 and not components and len(body) >= 9 and len(body) == 6 + 3 * body[5]:
            depth, components = body[0], body[5]
            fits = 2 <= depth <= 8 if allocated == 8 else 9 <= depth <= 16
            if not fits or any(sampling != 0x11 for sampling in body[7::3]):
                return False
        elif not (marker in (0xC4, 0xDB, 0xDD, 0xFE) or 0xE0 <= marker <= 0xEF):
            return False
        position += 2 + length
    return False


def _rle_bytes(frame: bytes) -> int:
    """How many bytes an RLE frame unpacks to, without unpacking it (PS3.5 annex G)."""
    count, *offsets = struct.unpack_from("<16I", frame)
    bounds = [*offsets[: min(count, 15)], len(frame)]
    total = 0
    for start, stop in pairwise(bounds):
        while start < min(stop, len(frame)):
            run = frame[start]
            total += run + 1 if run < 128 else 257 - run if run > 128 else 0
            start += run + 2 if run < 128 else 2 if run > 128 else 1
    return total


def _frame_shape(frame: bytes) -> tuple[int, int, int] | None:
    """Height, width and components that a JPEG, JPEG-LS or JPEG 2000 stream says of itself."""
    if frame.startswith(b"\xff\x4f\xff\x51"):
        right, bottom, left, top = struct.unpack_from(">IIII", frame, 8)
        return bottom - top, right - left, struct.unpack_from(">H", frame, 40)[0]
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4], "big")
        if marker in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", frame, position + 5)
            return height, width, components
        position += 1 if marker == 0xFF else 2 + length
    return None
