"""What a DICOM header says of the patient and the picture, without saying who the patient is."""

import hashlib
import hmac
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from pydicom.dataset import Dataset

from preprocessing.labels import MAX_CHRONOLOGICAL_AGE_MONTHS

KEYWORDS = (
    "PatientSex",
    "PatientAge",
    "PatientBirthDate",
    "StudyDate",
    "AcquisitionDate",
    "PatientID",
    "IssuerOfPatientID",
    "Laterality",
    "ImageLaterality",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
)

_SEXES = {"M": "male", "F": "female"}
_SIDES = {"L": "left", "R": "right"}
_MONTHS = {"Y": 12.0, "M": 1.0, "W": 12 * 7 / 365.25, "D": 12 / 365.25}


@dataclass(frozen=True, kw_only=True)
class Header:
    """The few facts of a header that matter; no name and no identifier is among them."""

    sex: str | None = None
    """``male`` or ``female``; None where the header gives neither."""
    chronological_age_months: float | None = None
    """At the study: from the dates where both are there, else from the age given; None where that cannot be."""
    age_precision_months: float = 0.0
    """The true age lies at most this much above `chronological_age_months`: 12 where whole years are given."""
    patient_hash: str | None = None
    """64 hex digits, HMAC-SHA256 of issuer and patient id under the caller's salt. Without a secret salt, whoever can
    list all ids of a hospital can find the one behind a hash."""
    laterality: str | None = None
    """``left`` or ``right``; None where the header gives neither."""
    spacing_mm: tuple[float, float] | None = None
    """Distance of neighbouring rows and of neighbouring columns; at the detector where it is not calibrated."""
    display: str = "stored"
    """What the grey levels were made with: ``voi_lut``, ``window``, ``stored`` or ``colour``."""


def read_header(dataset: Dataset, salt: bytes, *, display: str) -> Header:
    """Take the facts out of a dataset; what is malformed counts as not given."""
    age, precision = _age(dataset)
    return Header(
        sex=_SEXES.get(_text(dataset, "PatientSex").upper()),
        chronological_age_months=age,
        age_precision_months=precision,
        patient_hash=_patient(dataset, salt),
        laterality=_SIDES.get((_text(dataset, "ImageLaterality") or _text(dataset, "Laterality")).upper()),
        spacing_mm=_spacing(dataset),
        display=display,
    )


def contradictions(
    header: Header | None,
    *,
    sex: str | None = None,
    chronological_age_months: float | None = None,
    laterality: str | None = "left",
    patient_hash: str | None = None,
) -> tuple[str, ...]:
    """Say where a header contradicts what the caller states.

    What either side does not give contradicts nothing.

    Args:
        header: Of the file; None for a picture that has none.
        sex: ``male`` or ``female``.
        chronological_age_months: At the time of the radiograph. One month of difference is rounding.
        laterality: ``left`` or ``right``; bone age is read from the left hand.
        patient_hash: As in `Header`, under the same salt.

    Returns:
        One sentence for each contradiction; none holds an identifier.
    """
    if header is None:
        return ()
    found = []
    if sex and header.sex and sex != header.sex:
        found.append(f"The sex given is {sex}, the DICOM header says {header.sex}.")
    age, stated = header.chronological_age_months, chronological_age_months
    if age is not None and stated is not None and not age - 1 <= stated <= age + header.age_precision_months + 1:
        found.append(
            f"The chronological age given is {stated:.0f} months, the DICOM header says {age:.0f} months"
            f"{f' or up to {header.age_precision_months:.0f} more' if header.age_precision_months > 1 else ''}."
        )
    if laterality and header.laterality and laterality != header.laterality:
        found.append(f"A {laterality} hand is expected, the DICOM header says {header.laterality}.")
    if patient_hash and header.patient_hash and not hmac.compare_digest(patient_hash, header.patient_hash):
        found.append("The patient given is another one than that of the DICOM header.")
    return tuple(found)


def hash_patient(salt: bytes, patient: str, *, issuer: str = "") -> str:
    """The pseudonym of a patient under a site's salt, as in `Header.patient_hash`."""
    issued = f"{issuer}\0{patient}"
    return hmac.new(salt, issued.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _value(dataset: Dataset, keyword: str) -> object:
    try:
        return dataset.get(keyword)
    except Exception:  # pydicom converts on access, and a malformed value is as good as none
        return None


def _text(dataset: Dataset, keyword: str) -> str:
    value = _value(dataset, keyword)
    return "" if value is None else str(value).strip(" \0")


def _date(text: str) -> date | None:
    digits = re.fullmatch(r"(\d{4})\D?(\d{2})\D?(\d{2})", text)
    try:
        return date(*map(int, digits.groups())) if digits else None
    except ValueError:
        return None


def _age(dataset: Dataset) -> tuple[float | None, float]:
    born = _date(_text(dataset, "PatientBirthDate"))
    taken = _date(_text(dataset, "AcquisitionDate")) or _date(_text(dataset, "StudyDate"))
    if born and taken and _can_be(age := (taken - born).days * _MONTHS["D"]):
        return age, 0.0
    given = re.fullmatch(r"(\d{1,3})([DWMY])", _text(dataset, "PatientAge").upper())
    if given and _can_be(age := int(given[1]) * _MONTHS[given[2]]):
        return age, _MONTHS[given[2]]
    return None, 0.0


def _can_be(age_months: float) -> bool:
    """Whether anybody is that old; archives write birth dates such as 1900-01-01 where they know none."""
    return 0 <= age_months <= MAX_CHRONOLOGICAL_AGE_MONTHS


def _patient(dataset: Dataset, salt: bytes) -> str | None:
    patient = _text(dataset, "PatientID")
    if not patient:
        return None
    return hash_patient(salt, patient, issuer=_text(dataset, "IssuerOfPatientID"))


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        pair = _positive(_value(dataset, keyword))
        if len(pair) != 2:
            continue
        factor = _positive([_value(dataset, "EstimatedRadiographicMagnificationFactor")])
        if keyword == "ImagerPixelSpacing" and factor and factor[0] >= 1:
            return pair[0] / factor[0], pair[1] / factor[0]
        return pair[0], pair[1]
    return None


def _positive(values: object) -> list[float]:
    to_float: Callable[[object], float] = lambda value: float(value)  # type: ignore[arg-type]  # noqa: E731
    if isinstance(values, str) or not isinstance(values, Iterable):
        return []
    try:
        numbers = [to_float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return []
    return [number for number in numbers if math.isfinite(number) and number > 0]
