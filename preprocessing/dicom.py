"""DICOM: one radiograph out of a file, and what its header says, within bounds on time and memory."""

import io
import zlib

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_partial
from pydicom.uid import UID

from preprocessing.colour import to_grey
from preprocessing.dicom_levels import apply_levels
from preprocessing.dicom_pixels import KEYWORDS as PIXEL_KEYWORDS
from preprocessing.dicom_pixels import stored_values
from preprocessing.header import KEYWORDS as HEADER_KEYWORDS
from preprocessing.header import Header, read_header
from preprocessing.limits import MAX_BYTES, RadiographError, unreadable

MAX_READS = 400_000
"""Reads from the file while its elements are parsed, about four an element. A radiograph needs about a thousand; a file
of millions of nested items would take minutes and gigabytes."""
MAX_ELEMENT_BYTES = 1 << 20
"""Largest element that is kept beside the pixels. A look-up table of 65,536 entries has 131,072 bytes."""

_LEVEL_KEYWORDS = [
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
]
_PIXEL_DATA, _ENCAPSULATED_DOCUMENT, _UNDEFINED = 0x7FE00010, 0x00420011, 0xFFFFFFFF
_DOCUMENT_CLASSES = "1.2.840.10008.5.1.4.1.1.104."  # PDF, CDA and the printable models
_INDEX_CLASS = "1.2.840.10008.1.3.10"  # of a DICOMDIR
_VIDEO_SYNTAXES = "1.2.840.10008.1.2.4.10"  # MPEG-2, MPEG-4 and HEVC: .100 to .108
DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"


def is_dicom(data: bytes) -> bool:
    """Whether it is DICOM: with its preamble, or, as old archives write it, starting with the first elements."""
    if data[128:132] == b"DICM":
        return True
    if data[:2] not in (b"\x02\0", b"\x08\0") or data[3:4] != b"\0" or not 0 <= data[2] <= 0x18:
        return False
    return data[4:6].isupper() or data[5:8] == bytes(3)  # a value representation, or a short length


def decode_dicom(data: bytes, salt: bytes) -> tuple[np.ndarray, Header]:
    """Decode the radiograph and read its header.

    Args:
        data: The whole file.
        salt: Goes into the hash of the patient.

    Returns:
        ``(H, W)`` uint8 or uint16, bone bright (``MONOCHROME1`` is inverted), and the header.

    Raises:
        RadiographError: Damaged, unsupported, too large, several frames, a colour photograph or a document.
    """
    dataset = _parse(data)
    _check_kind(dataset)
    # The pixels are decoded from a dataset without the patient's elements: no codec can quote what it never sees.
    bare = Dataset()
    try:
        for keyword in (*PIXEL_KEYWORDS, *_LEVEL_KEYWORDS):
            if keyword in dataset:
                bare[keyword] = dataset[keyword]
    except Exception as error:  # pydicom converts values on access and raises whatever they make it raise
        raise unreadable("DICOM", type(error).__name__) from None
    stored = stored_values(bare, _syntax(dataset))
    if stored.ndim == 3:
        return to_grey(stored), read_header(dataset, salt, display="colour")
    pixels, display = apply_levels(stored, bare)
    return pixels, read_header(dataset, salt, display=display)


class Bounded(io.BytesIO):
    """A file that gives up on a reader who does not come to an end."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise RadiographError("unreadable", "The DICOM has more elements than any radiograph. Export it again.")
        return super().read(size)


def _parse(data: bytes) -> FileDataset:
    """The elements that matter, and no others."""

    def check(tag: int, _vr: str | None, length: int) -> bool:
        if tag == _ENCAPSULATED_DOCUMENT:
            raise _document()
        if tag != _PIXEL_DATA and tag in wanted and MAX_ELEMENT_BYTES < length != _UNDEFINED:
            raise unreadable("DICOM", "an element is too large")
        return False

    keywords = (*PIXEL_KEYWORDS, *_LEVEL_KEYWORDS, *HEADER_KEYWORDS, "SOPClassUID", "NumberOfFrames")
    wanted = {tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None}
    source = Bounded(inflated(data))
    try:
        return read_partial(source, stop_when=check, force=True, specific_tags=sorted(wanted))
    except RadiographError:
        raise
    except Exception as error:  # a parser of hostile bytes: its message may quote them and is dropped
        raise unreadable("DICOM", type(error).__name__) from None


def inflated(data: bytes) -> bytes:
    """A file in the deflated transfer syntax as one that is not; pydicom would inflate it without a bound."""
    place = data.find(DEFLATED, 132, 2048)
    if place < 0 or data[128:132] != b"DICM":
        return data
    start = 144 + int.from_bytes(data[140:144], "little")  # the group length stands first in the file meta information
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        rest = unpacker.decompress(data[start:], 4 * MAX_BYTES)
    except zlib.error:
        raise unreadable("DICOM", "its compression is broken") from None
    if unpacker.unconsumed_tail:
        raise RadiographError("too_compressed", f"A DICOM may unpack to {4 * MAX_BYTES:,} bytes. Export it again.")
    if not unpacker.eof:
        raise unreadable("DICOM", "its compression has no end")
    return data[:start].replace(DEFLATED, _EXPLICIT, 1) + rest


def _check_kind(dataset: FileDataset) -> None:
    if str(_get(dataset, "SOPClassUID", "")).startswith(_DOCUMENT_CLASSES):
        raise _document()
    if _syntax(dataset).startswith(_VIDEO_SYNTAXES) or _get(dataset, "NumberOfFrames", 1) not in (None, "", 1, 0):
        raise RadiographError("multi_frame", "A file holds one radiograph, this DICOM has several frames. Send one.")
    if _get(_meta(dataset), "MediaStorageSOPClassUID", None) == _INDEX_CLASS:
        raise RadiographError(
            "unsupported_format", "This DICOM is the index of a folder (a DICOMDIR), no picture. Send the radiograph."
        )
    if "PixelData" not in dataset:
        raise unreadable("DICOM", "it holds no pixel data")


def _document() -> RadiographError:
    return RadiographError(
        "encapsulated_document", "This DICOM is a document (a PDF or the like), no picture. Send the radiograph itself."
    )


def _meta(dataset: FileDataset) -> Dataset:
    """The file meta information; empty where there is none."""
    return getattr(dataset, "file_meta", Dataset())


def _get(dataset: Dataset, keyword: str, default: object) -> object:
    try:
        return dataset.get(keyword, default)
    except Exception as error:  # as in `decode_dicom`
        raise unreadable("DICOM", type(error).__name__) from None


def _syntax(dataset: FileDataset) -> str:
    syntax = _get(_meta(dataset), "TransferSyntaxUID", None)
    if syntax is None:  # without the file meta information nothing is compressed
        little, implicit = dataset.original_encoding[1], dataset.original_encoding[0]
        syntax = UID("1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2")
    return str(syntax)
