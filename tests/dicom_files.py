"""DICOM files of tests: one drawn picture in every transfer syntax, with a patient whose name must never come back."""

import io
import tempfile
from pathlib import Path
from typing import Any, Literal

import gdcm
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

NAME, PATIENT, BIRTH = "Quixotic^Zebedee", "MRN-4711-XYZ", "20100131"
JPEG_FAMILY = "1.2.840.10008.1.2.4."
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
BASELINE, EXTENDED, LOSSLESS_14, LOSSLESS = (JPEG_FAMILY + end for end in ("50", "51", "57", "70"))
JPEG_LS, JPEG_LS_NEAR, JPEG_2000_LOSSLESS, JPEG_2000 = (JPEG_FAMILY + end for end in ("80", "81", "90", "91"))

_GDCM = {
    LOSSLESS_14: gdcm.TransferSyntax.JPEGLosslessProcess14,
    LOSSLESS: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    EXTENDED: gdcm.TransferSyntax.JPEGExtendedProcess2_4,
}


def dicom(pixels: np.ndarray, syntax: str = EXPLICIT, *, bits: int | None = None, **elements: Any) -> bytes:
    """A file of one picture, ``(H, W)`` or ``(H, W, 3)``; `elements` are set last, None takes one away."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT if syntax in _GDCM else syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("1.2.3.4")
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, PATIENT, BIRTH
    dataset.PatientSex, dataset.StudyDate, dataset.Laterality = "F", "20200131", "L"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if syntax == BASELINE:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        if pixels.ndim == 3:
            dataset.PhotometricInterpretation = "YBR_FULL_422"
    elif syntax in (RLE, JPEG_LS, JPEG_LS_NEAR, JPEG_2000_LOSSLESS, JPEG_2000):
        choices: dict[str, dict[str, Any]] = {JPEG_LS_NEAR: {"jls_error": 1}, JPEG_2000: {"j2k_psnr": [80]}}
        options = choices.get(syntax, {})
        dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        _set_native(dataset, pixels, "<")
        dataset.compress(UID(syntax), generate_instance_uid=False, **options)
    else:
        _set_native(dataset, pixels, ">" if syntax == BIG_ENDIAN else "<")
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    data = _written(dataset)
    return _recompressed(data, _GDCM[syntax]) if syntax in _GDCM else data


def index() -> bytes:
    """A DICOMDIR: what media carry beside the pictures."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.3.10")
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    dataset.FileSetID, dataset.DirectoryRecordSequence = "MEDIUM", []
    return _written(dataset)


def palette(entries: np.ndarray | None = None, *, bits: int = 16, first: int = 0) -> dict[str, Any]:
    """Elements of a palette of greys; by default of 256, as 16-bit entries."""
    entries = np.arange(256, dtype="<u2") * 257 if entries is None else entries
    data = entries.tobytes()
    found: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        found[f"{colour}PaletteColorLookupTableDescriptor"] = [len(entries) % 65536, first, bits]
        found[f"{colour}PaletteColorLookupTableData"] = data
    return found


def voi_lut() -> dict[str, Any]:
    """Elements of a VOI look-up table that turns 4,096 stored values upside down."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 12])
    item.add_new("LUTData", "OW", np.arange(4095, -1, -1, dtype="<u2").tobytes())
    return {"VOILUTSequence": [item]}


def _set_native(dataset: Dataset, pixels: np.ndarray, order: Literal["<", ">"]) -> None:
    data = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated == 16 else "OB"


def _written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _recompressed(data: bytes, syntax: int) -> bytes:
    """By GDCM, which writes the processes of JPEG that Pillow does not."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder) / "a.dcm"), str(Path(folder) / "b.dcm")
        Path(source).write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(source)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return Path(target).read_bytes()
