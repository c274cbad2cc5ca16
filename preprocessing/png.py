"""What no decoder of PNG checks: a damaged or short file comes back from them as a picture with a black rest."""

import struct
import zlib
from collections.abc import Iterator

from preprocessing.limits import RadiographError, unreadable

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 1 << 16


def is_deep_colour(data: bytes) -> bool:
    """Whether it has 16 bits and more than one channel."""
    return data[24] == 16 and data[25] in (2, 4, 6)


def is_interlaced(data: bytes) -> bool:
    """Whether its rows come in seven passes."""
    return data[28] != 0


def data_chunks(data: bytes) -> list[memoryview]:
    """The compressed picture, after a walk over every chunk up to the end mark.

    Raises:
        RadiographError: A chunk is cut or damaged, there is no end, or the file is an animation.
    """
    found = []
    for kind, content in _chunks(data):
        if kind == b"IDAT":
            found.append(content)
        elif kind == b"acTL" and len(content) >= 4 and struct.unpack_from(">I", content)[0] > 1:
            raise RadiographError(
                "multi_frame", "A file holds one radiograph, this PNG is an animation. Send one frame."
            )
    return found


def decoded_bytes(data: bytes) -> int:
    """How many bytes the compressed picture must unpack to, filter bytes included."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS.get(colour, 4)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def check_complete(chunks: list[memoryview], expected: int) -> None:
    """Refuse a compressed stream that ends before the last row. Memory stays small whatever it unpacks to."""
    unpacker = zlib.decompressobj()
    total = 0
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            total += len(unpacker.decompress(chunk[start : start + _PIECE]))
            if total >= expected:
                return
    raise unreadable("PNG", "rows are missing")


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(data)
    position, kind = 8, b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise unreadable("PNG", "it has no end")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise unreadable("PNG", "a chunk is cut")
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise unreadable("PNG", "a checksum is wrong")
        yield kind, view[position + 8 : end - 4]
        position = end
