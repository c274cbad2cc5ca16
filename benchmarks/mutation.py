"""Small files of every format the decoder reads, and damage done to them."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from tests import dicom_files as dcm

_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> dict[str, bytes]:
    """Readable files by name, 0.5 to 25 KB each, the same ones every time."""
    rng = np.random.default_rng(0)
    ramp = np.clip(np.add.outer(np.arange(40) * 2, np.arange(48) * 3) + rng.integers(0, 9, (40, 48)), 0, 255)
    grey, deep = ramp.astype(np.uint8), (ramp * 257).astype(np.uint16)
    twelve = (ramp * 16).astype(np.uint16)
    found = {}
    for mode in ("L", "RGB", "RGBA", "LA", "P", "1"):
        found[f"png {mode}"] = _saved(Image.fromarray(grey).convert("RGB").convert(mode), "PNG")
    for name, image in (("16", deep), ("16 rgb", np.dstack([deep] * 3)), ("16 rgba", np.dstack([deep] * 4))):
        found[f"png {name}"] = cv2.imencode(".png", image)[1].tobytes()
        found[f"tiff {name}"] = cv2.imencode(".tiff", image)[1].tobytes()
    for name, options in {"baseline": {}, "progressive": {"progressive": True}}.items():
        exif = Image.Exif()
        exif[274] = 6
        found[f"jpeg {name}"] = _saved(Image.fromarray(grey), "JPEG", exif=exif, **options)
    found["jpeg cmyk"] = _saved(Image.fromarray(grey).convert("CMYK"), "JPEG")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        found[f"tiff {compression}"] = _saved(Image.fromarray(grey), "TIFF", compression=compression)
    for mode in ("L", "RGB", "1", "P"):
        found[f"bmp {mode}"] = _saved(Image.fromarray(grey).convert(mode), "BMP")
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "RescaleSlope": 1, "RescaleIntercept": -5}
    for syntax in (dcm.IMPLICIT, dcm.EXPLICIT, dcm.BIG_ENDIAN, dcm.DEFLATED, dcm.RLE, dcm.LOSSLESS_14, dcm.LOSSLESS,
                   dcm.JPEG_LS, dcm.JPEG_2000_LOSSLESS, dcm.JPEG_2000):  # fmt: skip
        found[f"dicom {syntax}"] = dcm.dicom(twelve, syntax, bits=12, **window)
    found["dicom extended"] = dcm.dicom(grey, dcm.EXTENDED)
    found["dicom palette"] = dcm.dicom(grey, **dcm.palette())
    found["dicom voi lut"] = dcm.dicom(twelve, bits=12, **dcm.voi_lut())
    found["dicom without a preamble"] = dcm.dicom(grey)[132:]
    found["dicom baseline"] = dcm.dicom(grey, dcm.BASELINE, PhotometricInterpretation="MONOCHROME1")
    found["dicom rgb"] = dcm.dicom(np.dstack([grey] * 3), dcm.RLE)
    return found


def mutated(corpus: dict[str, bytes], seed: int, case: int) -> bytes:
    """File number `case`: one of the corpus with one to eight wounds; half of the PNGs get fresh checksums."""
    rng = np.random.default_rng((seed, case))
    files = list(corpus.values())
    data = bytearray(files[case % len(files)])
    for _ in range(int(rng.integers(1, 9))):
        _wound(data, files, rng)
    if data[:4] == b"\x89PNG" and rng.random() < 0.5:
        _fix_checksums(data)
    return bytes(data)


def _wound(data: bytearray, files: list[bytes], rng: np.random.Generator) -> None:
    if not data:
        return
    # Most of what a parser trusts stands in front, and in a TIFF also at the end.
    reach = len(data) if rng.random() < 0.4 else min(len(data), 700)
    place = int(rng.integers(reach)) if rng.random() < 0.85 else max(0, len(data) - 1 - int(rng.integers(300)))
    match int(rng.integers(8)):
        case 0:
            data[place] ^= 1 << int(rng.integers(8))
        case 1:
            data[place] = int(rng.integers(256))
        case 2 | 3:
            size, order = (2, 4)[int(rng.integers(2))], ("little", "big")[int(rng.integers(2))]
            value = _EXTREMES[int(rng.integers(len(_EXTREMES)))] & ((1 << 8 * size) - 1)
            data[place : place + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
        case 4:
            del data[place : place + int(rng.integers(1, 64))]
        case 5:
            data[place:place] = rng.bytes(int(rng.integers(1, 64)))
        case 6:
            other = files[int(rng.integers(len(files)))]
            start = int(rng.integers(len(other)))
            piece = other[start : start + int(rng.integers(1, 256))]
            data[place : place + (len(piece) if rng.random() < 0.5 else 0)] = piece
        case _:
            if rng.random() < 0.3:
                del data[place:]
            else:
                data[place:place] = data[place : place + int(rng.integers(1, 256))] * int(rng.integers(1, 4))


def _fix_checksums(data: bytearray) -> None:
    position = 8
    while position + 12 <= len(data):
        end = position + 12 + struct.unpack_from(">I", data, position)[0]
        if end > len(data):
            return
        struct.pack_into(">I", data, end - 4, zlib.crc32(data[position + 4 : end - 4]))
        position = end


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
