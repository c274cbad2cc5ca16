"""The stored pixel values of a DICOM: limits first, then the one codec that reads its transfer syntax."""

import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from preprocessing.codestream import check_frame
from preprocessing.limits import RadiographError, check_ratio, check_size, unreadable

KEYWORDS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "PixelData",
]

_JPEG = "1.2.840.10008.1.2.4."
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _BIG_ENDIAN)
_RLE = "1.2.840.10008.1.2.5"
_CODECS = {
    _JPEG + "50": "pillow",  # JPEG baseline
    _JPEG + "51": "pillow",  # JPEG extended, of 8 bits
    _JPEG + "57": "gdcm",  # JPEG lossless
    _JPEG + "70": "gdcm",  # JPEG lossless, first-order prediction
    _JPEG + "80": "pyjpegls",
    _JPEG + "81": "pyjpegls",
    _JPEG + "90": "pylibjpeg",  # JPEG 2000
    _JPEG + "91": "pylibjpeg",
    _JPEG + "201": "pylibjpeg",  # high-throughput JPEG 2000
    _JPEG + "202": "pylibjpeg",
    _JPEG + "203": "pylibjpeg",
    _RLE: "pydicom",  # as fast as the plug-in in Rust, whose panics are no exceptions
}
_PHOTOMETRIC = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}

gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()
gdcm.Trace.DebugOff()


def stored_values(dataset: Dataset, syntax: str) -> np.ndarray:
    """Decode the pixel data.

    Args:
        dataset: The elements named in `KEYWORDS`.
        syntax: UID of the transfer syntax.

    Returns:
        ``(H, W)`` int32 stored values, or ``(H, W, 3)`` uint8 or uint16 RGB.

    Raises:
        RadiographError: Damaged, cut short, unsupported or too large.
    """
    rows, columns = _number(dataset, "Rows"), _number(dataset, "Columns")
    samples, allocated = _number(dataset, "SamplesPerPixel", 1), _number(dataset, "BitsAllocated")
    bits, signed = _number(dataset, "BitsStored", allocated), _number(dataset, "PixelRepresentation", 0)
    high = _number(dataset, "HighBit", bits - 1)
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    check_size(columns, rows)
    if (
        _PHOTOMETRIC.get(photometric) != samples
        or allocated not in (8, 16)
        or syntax not in (*_PLAIN, *_CODECS)
        or (syntax == _JPEG + "51" and bits > 8)  # no codec with a free licence reads it
    ):
        raise RadiographError(
            "unsupported_format",
            "A DICOM must hold grey or RGB pixels of 8 or 16 bits, uncompressed or as JPEG, JPEG-LS, JPEG 2000 or RLE; "
            "this one does not. Export it uncompressed.",
        )
    if not 1 <= bits <= high + 1 <= allocated or signed not in (0, 1):
        raise unreadable("DICOM", "its bit depths contradict each other")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SamplesPerPixel, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        samples,
        bits,
        high,
        signed,
    )
    raw_bytes = rows * columns * samples * allocated // 8
    data = dataset["PixelData"].value
    if not isinstance(data, bytes):
        raise unreadable("DICOM", "it holds no pixel data")
    check_ratio(raw_bytes, len(data))
    try:
        if syntax in _CODECS:
            frame = get_frame(data, 0, number_of_frames=1)
            check_frame(frame, (rows, columns, samples), allocated, codec=_CODECS[syntax])
            dataset.PixelData = encapsulate([frame])
            dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB" if allocated == 8 or syntax in _CODECS else "OW"
        # Cells that no codec has unpacked hold the value below their high bit, and may hold overlays beside it: pydicom
        # drops what lies above, the shift what lies below.
        unused = high + 1 - bits if syntax in (*_PLAIN, _RLE) else 0
        image = pixel_array(dataset, decoding_plugin=_CODECS.get(syntax, ""), bits_stored=bits + unused) >> unused
        if photometric == "PALETTE COLOR":
            image, bits = _coloured(image, dataset, ">" if syntax == _BIG_ENDIAN else "<")
    except RadiographError:
        raise
    except Exception as error:  # whatever codecs raise on hostile bytes; the message may quote them and is dropped
        raise unreadable("DICOM", type(error).__name__) from None
    if image.shape[:2] != (rows, columns):
        raise unreadable("DICOM", "its size differs from its header")
    if image.ndim == 3:
        return _full_scale(image, bits)
    low = -(1 << (bits - 1)) if signed else 0
    return np.clip(image.astype(np.int32), low, low + (1 << bits) - 1)


def _number(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value = dataset.get(keyword)
    if value is None and default is not None:
        return default
    if not isinstance(value, int):
        raise unreadable("DICOM", f"{keyword} is missing or no number")
    return value


def _coloured(image: np.ndarray, dataset: Dataset, order: str) -> tuple[np.ndarray, int]:
    """RGB out of a palette, and the bits of its entries, which have nothing to do with those of the pixels."""
    entries, first, bits = dataset.RedPaletteColorLookupTableDescriptor
    entries = entries or 1 << 16  # which its 16 bits cannot say
    tables = [dataset[f"{colour}PaletteColorLookupTableData"].value for colour in ("Red", "Green", "Blue")]
    kind = np.dtype({1: "u1", 2: f"{order}u2"}[len(tables[0]) // entries])
    palette = np.stack([np.frombuffer(table, kind, entries) for table in tables], axis=-1).astype(kind.type)
    if not 1 <= bits <= 8 * kind.itemsize or palette.max() >= 1 << bits:  # some say 8 and fill 16
        bits = 8 * kind.itemsize
    return palette[np.clip(image.astype(np.int32) - first, 0, entries - 1)], bits


def _full_scale(image: np.ndarray, bits: int) -> np.ndarray:
    """RGB whose white is the largest value of its type."""
    if (image.dtype == np.uint8 and bits == 8) or (image.dtype == np.uint16 and bits == 16):
        return image
    full = np.iinfo(np.uint8 if image.dtype.itemsize == 1 else np.uint16)
    levels = np.clip(image.astype(np.float32), 0, (1 << bits) - 1) * (full.max / ((1 << bits) - 1))
    return np.rint(levels).astype(full.dtype)
