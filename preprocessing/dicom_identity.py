"""What tells DICOM files and patients apart: read to find a file's label, held in memory, and written nowhere."""

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import date

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial

from preprocessing.dicom import DEFLATED, Bounded, inflated, is_dicom
from preprocessing.header import KEYWORDS, Header, read_header
from preprocessing.limits import MAX_BYTES, RadiographError, unreadable
from preprocessing.quiet import quiet
from preprocessing.storage import AnyPath

HEAD_BYTES = 1 << 18
"""Read at first: the elements before the pixels nearly always fit, and a radiograph has megabytes."""
_PIXEL_DATA = 0x7FE00010
_IDENTITY = (
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "AccessionNumber",
    "StudyID",
    "PatientName",
    "OtherPatientIDs",
    "OtherPatientNames",
)


@dataclass(frozen=True)
class Identity:
    """The identifiers of one file; they have no printed form."""

    sop: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    accession: str = field(default="", repr=False)
    patient: str = field(default="", repr=False)
    telling: tuple[str, ...] = field(default=(), repr=False)
    """Everything that would tell whose file it is, in lower case and without accents."""

    def told_by(self, text: str) -> bool:
        """Whether a name gives an identifier away, in whatever case, accents and characters around it.

        Short ones, which would be found everywhere, count only as a word.
        """
        text = _plain(text)
        words = set(re.findall(r"[a-z]+|[0-9]+", text))
        return any(part in words if _is_short(part) else part in text for part in self.telling)


def read_identity(path: AnyPath, salt: bytes) -> tuple[Header, Identity]:
    """Read a file's header without its pixels.

    Raises:
        RadiographError: It is no DICOM, or damaged before its pixels; the message quotes nothing of it.
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file, quiet():
        data = file.read(HEAD_BYTES)
        if not is_dicom(data):
            raise RadiographError("unsupported_format", "The file must be a DICOM; it is not. Take it out.")
        dataset, whole = (Dataset(), False) if DEFLATED in data[:2048] else _parse(data)
        if not whole:  # deflated, or with a long element before the pixels
            dataset, whole = _parse(inflated(data + file.read(MAX_BYTES - len(data))))
        if not whole:  # what is missing may have named the patient
            raise unreadable("DICOM", "it holds no pixel data")
        return read_header(dataset, salt, display="stored"), _identity(dataset)


def _parse(data: bytes) -> tuple[Dataset, bool]:
    """The elements that matter, and whether the pixels were reached."""
    reached = False

    def stop(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal reached
        reached = reached or tag >= _PIXEL_DATA
        return reached

    wanted = [tag for word in (*KEYWORDS, *_IDENTITY) if (tag := tag_for_keyword(word)) is not None]
    try:
        return read_partial(Bounded(data), stop_when=stop, force=True, specific_tags=sorted(wanted)), reached
    except Exception as error:  # a parser of hostile bytes: its message may quote them and is dropped
        if len(data) == HEAD_BYTES and not reached:
            return Dataset(), False  # cut by us: the whole file is read next
        raise unreadable("DICOM", type(error).__name__) from None


def _identity(dataset: Dataset) -> Identity:
    def text(keyword: str) -> str:
        try:
            return str(dataset.get(keyword) or "").strip(" \0")
        except Exception:  # pydicom converts on access, and a malformed value is as good as none
            return ""

    telling = {_plain(text(word)) for word in ("PatientID", *_IDENTITY)} - {""}
    for word in ("PatientName", "OtherPatientNames"):
        telling |= {part for part in re.split(r"[\^=,\s\[\]'_.-]+", _plain(text(word))) if part}
    telling |= _dates(text("PatientBirthDate"))
    return Identity(
        text("SOPInstanceUID"),
        text("StudyInstanceUID"),
        text("AccessionNumber"),
        text("PatientID"),
        tuple(sorted(telling)),
    )


def _plain(text: str) -> str:
    """Lower case without accents: a Mac writes them into file names as characters of their own."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()


def _is_short(part: str) -> bool:
    return part.isascii() and len(part) < (4 if part.isdigit() else 3)


def _dates(text: str) -> set[str]:
    digits = re.sub(r"\D", "", text)
    try:
        born = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return set()
    return {born.strftime(form) for form in ("%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%d-%m-%Y", "%Y_%m_%d")}
