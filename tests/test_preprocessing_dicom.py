"""DICOM: every transfer syntax, levels for display, what the header says, what is refused, and what never gets out."""

import io
import logging
import struct
import warnings

import cv2
import numpy as np
import pydicom
import pytest

from preprocessing.header import Header, contradictions
from preprocessing.radiograph import RadiographError, decode, decode_with_header
from preprocessing.recipe import Recipe
from preprocessing.standardize import Reader
from tests import dicom_files as dcm
from tests.dicom_files import dicom

RAMP_12 = np.tile(np.arange(4096, dtype=np.uint16), (40, 1))
_RNG = np.random.default_rng(0)
GREY = np.clip(np.add.outer(np.arange(80), np.arange(120)) + _RNG.integers(0, 9, (80, 120)), 0, 255).astype(np.uint8)
LOSSLESS_SYNTAXES = [
    dcm.IMPLICIT, dcm.EXPLICIT, dcm.BIG_ENDIAN, dcm.DEFLATED, dcm.RLE, dcm.LOSSLESS_14, dcm.LOSSLESS, dcm.JPEG_LS,
    dcm.JPEG_2000_LOSSLESS,
]  # fmt: skip
LOSSY_SYNTAXES = [dcm.BASELINE, dcm.EXTENDED, dcm.JPEG_LS_NEAR, dcm.JPEG_2000]


def code_of(data: bytes) -> str:
    with pytest.raises(RadiographError) as caught:
        decode(data)
    return caught.value.code


@pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES)
def test_lossless_syntaxes_give_the_stored_values_back(syntax: str) -> None:
    assert np.array_equal(decode(dicom(RAMP_12, syntax, bits=12)), RAMP_12)
    assert np.array_equal(decode(dicom(GREY, syntax)), GREY)


@pytest.mark.parametrize("syntax", LOSSY_SYNTAXES)
def test_lossy_syntaxes_come_close(syntax: str) -> None:
    assert np.abs(decode(dicom(GREY, syntax)).astype(int) - GREY).max() <= 8


@pytest.mark.parametrize("syntax", [*LOSSLESS_SYNTAXES, *LOSSY_SYNTAXES])
def test_a_cut_file_is_refused_or_lacks_no_pixel(syntax: str) -> None:
    data = dicom(GREY, syntax)
    whole = decode(data)
    for end in np.linspace(140, len(data) - 1, 40).astype(int):
        try:
            assert np.array_equal(decode(data[:end]), whole), end
        except RadiographError as error:
            assert error.code in ("unreadable", "unsupported_format")  # noqa: PT017


def test_a_12_bit_ramp_keeps_its_levels_through_a_window() -> None:
    image = decode(dicom(RAMP_12, bits=12, WindowCenter=2048, WindowWidth=4096))
    assert len(np.unique(image)) == 4096
    assert (image.min(), image.max()) == (0, 65535)


def test_a_window_clips_what_lies_outside() -> None:
    image = decode(dicom(RAMP_12, bits=12, WindowCenter=[1000, 9], WindowWidth=[201, 9]))
    assert (image[0, [0, 899, 900, 1000, 1100, 4095]] == [0, 0, 164, 32931, 65535, 65535]).all()


def test_a_window_acts_after_the_rescale() -> None:
    plain = decode(dicom(RAMP_12, bits=12, WindowCenter=1000, WindowWidth=400))
    moved = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 2 * 1000 - 1024, "WindowWidth": 800}
    exact = {"VOILUTFunction": "LINEAR_EXACT"}
    assert np.abs(decode(dicom(RAMP_12, bits=12, **moved, **exact)).astype(int) - plain).max() < 300


def test_a_sigmoid_window_rises_without_clipping() -> None:
    image = decode(dicom(RAMP_12, bits=12, WindowCenter=2048, WindowWidth=4096, VOILUTFunction="SIGMOID"))
    assert (np.diff(image[0].astype(int)) > 0).all()


def test_a_voi_table_comes_before_the_window() -> None:
    image = decode(dicom(RAMP_12, bits=12, WindowCenter=1, WindowWidth=2, **dcm.voi_lut()))
    assert len(np.unique(image)) == 4096
    assert image[0, 0] == 65535
    assert image[0, -1] == 0


def test_a_window_beside_the_picture_is_passed_over_and_said() -> None:
    decoded = decode_with_header(dicom(RAMP_12, bits=12, WindowCenter=60000, WindowWidth=10))
    assert decoded.header is not None
    assert decoded.header.display == "stored"
    assert np.array_equal(decoded.pixels, RAMP_12)


def test_a_negative_slope_inverts() -> None:
    assert np.array_equal(decode(dicom(RAMP_12, bits=12, RescaleSlope=-1, RescaleIntercept=4095)), 4095 - RAMP_12)


def test_monochrome1_is_inverted() -> None:
    data = dicom(4095 - RAMP_12, bits=12, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(decode(data), RAMP_12)


def test_signed_values_keep_their_order() -> None:
    signed = RAMP_12.astype(np.int16) - 2048
    assert np.array_equal(decode(dicom(signed, bits=12)), RAMP_12)


def test_overlays_in_unused_bits_are_dropped() -> None:
    assert np.array_equal(decode(dicom(RAMP_12 | np.uint16(0x8000), bits=12)), RAMP_12)


@pytest.mark.parametrize("syntax", [dcm.IMPLICIT, dcm.EXPLICIT, dcm.BIG_ENDIAN, dcm.RLE])
@pytest.mark.parametrize(
    ("bits", "high"), [(bits, high) for bits in (8, 10, 12, 14, 16) for high in range(bits - 1, 16)]
)
@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_stored_values_end_at_the_high_bit_whatever_lies_around_them(
    syntax: str, bits: int, high: int, kind: str
) -> None:
    counted = _RNG.integers(0, 1 << bits, (40, 40))
    values = counted - (1 << (bits - 1)) if kind == "i2" else counted
    below = high + 1 - bits
    used = ((1 << bits) - 1) << below
    overlays = _RNG.integers(0, 1 << 16, (40, 40)) & ~used
    for cells in (values << below, (values << below) & used | overlays):
        file = dicom(cells.astype(np.uint16).view(kind), syntax, BitsStored=bits, HighBit=high)
        assert np.array_equal(decode(file), counted)


def test_colours_end_at_the_high_bit_too() -> None:
    deep = np.dstack([GREY.astype(np.uint16) << 4] * 3)
    right = decode(dicom(deep, bits=12))
    assert np.ptp(right) > 50_000
    assert np.array_equal(decode(dicom(deep << 4, bits=12, HighBit=15)), right)


def test_padding_gets_the_darkest_level_of_the_picture() -> None:
    framed = RAMP_12 // 2 + 1000
    framed[:10] = 4095
    image = decode(dicom(framed, bits=12, PixelPaddingValue=4000, PixelPaddingRangeLimit=4095))
    assert (image[:10] == 1000).all()
    assert np.array_equal(image[10:], framed[10:])


def test_grey_in_colour_channels_is_grey_and_colour_is_refused() -> None:
    assert np.array_equal(decode(dicom(np.dstack([GREY] * 3), dcm.RLE)), GREY)
    assert np.abs(decode(dicom(np.dstack([GREY] * 3), dcm.BASELINE)).astype(int) - GREY).max() <= 8
    assert np.abs(decode(dicom(GREY, **dcm.palette())) - GREY * 257.0).max() <= 1
    assert code_of(dicom(np.dstack([GREY, GREY // 2, GREY // 4]))) == "colour_photograph"


@pytest.mark.parametrize("bits", [6, 8, 9, 12, 16])
@pytest.mark.parametrize(
    ("entries", "entry_bits"),
    [
        (np.arange(64, dtype="u1") * 4, 8),
        (np.arange(64, dtype="<u2") * 4, 8),  # in cells of 16 bits
        (np.arange(64, dtype="<u2") * 1028, 8),  # and filling them
        (np.arange(64, dtype="<u2") * 64, 12),
        (np.arange(64, dtype="<u2") * 1028, 16),
        (np.arange(64, dtype="<u2") * 1028, 0),
        (np.arange(64, dtype="<u2") * 1028, 65535),
    ],
)
def test_entries_of_a_palette_have_bits_of_their_own(bits: int, entries: np.ndarray, entry_bits: int) -> None:
    indices = (GREY // 4).astype(np.uint8 if bits <= 8 else np.uint16)
    image = decode(dicom(indices, bits=bits, **dcm.palette(entries, bits=entry_bits)))
    assert np.abs(image / np.iinfo(image.dtype).max - indices / 64).max() < 0.02


def test_indices_beside_a_palette_take_its_ends() -> None:
    greys = np.arange(256, dtype=np.uint8)
    decoded = decode(dicom(RAMP_12, bits=12, **dcm.palette(greys, bits=8, first=1000)))
    assert np.array_equal(decoded[0], np.clip(np.arange(4096) - 1000, 0, 255))
    many = dcm.palette((np.arange(4096) // 16).astype(np.uint8), bits=8)
    assert np.array_equal(decode(dicom(RAMP_12, bits=12, **many)), RAMP_12 // 16)


def test_a_palette_has_the_byte_order_of_its_file() -> None:
    swapped = dcm.palette((np.arange(256) * 200).astype(">u2"))
    assert np.array_equal(decode(dicom(GREY, dcm.BIG_ENDIAN, **swapped)), GREY * np.uint16(200))


def test_a_photograph_in_a_palette_is_refused_whatever_the_bits_of_its_pixels() -> None:
    red = {"RedPaletteColorLookupTableData": bytes([255] * 256)}
    file = dicom(GREY.astype(np.uint16), bits=16, **dcm.palette(np.arange(256, dtype=np.uint8), bits=8) | red)
    assert code_of(file) == "colour_photograph"


@pytest.mark.parametrize("entries", [np.arange(256, dtype="<u4"), np.array([], "<u2")])
def test_palettes_of_another_size_than_they_say_are_refused(entries: np.ndarray) -> None:
    assert code_of(dicom(GREY, **dcm.palette(entries))) == "unreadable"


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}])
def test_copies_of_one_picture_standardise_alike(photometric: str, window: dict[str, int]) -> None:
    deep = np.clip(np.add.outer(np.arange(300) * 4, np.arange(220) * 9), 0, 4080).astype(np.uint16)
    stored = 4095 - deep if photometric == "MONOCHROME1" else deep
    files = [
        cv2.imencode(".png", deep)[1].tobytes(),
        cv2.imencode(".png", deep * 16)[1].tobytes(),
        cv2.imencode(".png", (deep / 16).round().astype(np.uint8))[1].tobytes(),
        cv2.imencode(".tiff", deep)[1].tobytes(),
        dicom(stored, bits=12, PhotometricInterpretation=photometric, **window),
    ]
    images = [Reader(Recipe(size=128)).read(data).pixels.astype(int) for data in files]
    assert max(np.abs(image - images[0]).max() for image in images) <= 1


def test_the_header_gives_facts_and_no_identifier() -> None:
    data = dicom(GREY, ImagerPixelSpacing=[0.2, 0.2], EstimatedRadiographicMagnificationFactor=1.25)
    header = decode_with_header(data, salt=b"site").header
    assert header is not None
    assert (header.sex, header.laterality, header.spacing_mm) == ("female", "left", (0.16, 0.16))
    assert header.chronological_age_months == pytest.approx(120, abs=0.1)
    assert header.patient_hash != decode_with_header(data).header.patient_hash  # type: ignore[union-attr]
    assert not any(word in repr(header) for word in (dcm.NAME, dcm.PATIENT, dcm.BIRTH))


def test_an_age_in_years_is_known_to_a_year() -> None:
    header = decode_with_header(dicom(GREY, PatientBirthDate=None, PatientAge="010Y")).header
    assert header is not None
    assert (header.chronological_age_months, header.age_precision_months) == (120, 12)
    assert contradictions(header, chronological_age_months=131) == ()
    assert len(contradictions(header, chronological_age_months=140)) == 1


def test_malformed_facts_count_as_not_given() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dicom(GREY, PatientSex="?", PatientBirthDate="20509999", Laterality="B", PatientID="")
    assert decode_with_header(data).header == Header()


@pytest.mark.parametrize(
    ("birth", "given", "months"),
    [
        ("19000101", None, None),
        ("19000101", "010Y", 120),
        (None, "120Y", None),
        (None, "100Y", 1200),
        (None, "999M", 999),
    ],
)
def test_an_age_that_cannot_be_counts_as_not_given(birth: str | None, given: str | None, months: int | None) -> None:
    header = decode_with_header(dicom(GREY, PatientBirthDate=birth, PatientAge=given or "")).header
    assert header is not None
    assert header.chronological_age_months == months


def test_contradictions_are_told_and_name_nobody() -> None:
    header = decode_with_header(dicom(GREY, Laterality="R")).header
    told = contradictions(header, sex="male", chronological_age_months=60, patient_hash="0" * 64)
    assert len(told) == 4
    assert told[0] == "The sex given is male, the DICOM header says female."
    assert not any(word in " ".join(told) for word in (dcm.NAME, dcm.PATIENT, dcm.BIRTH))
    assert contradictions(header, sex="female", laterality="right") == ()
    assert contradictions(None, sex="male") == ()


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "encapsulated_document"),
        ({"EncapsulatedDocument": b"%PDF-1.7"}, "encapsulated_document"),
        ({"Rows": 65535, "Columns": 65535}, "too_many_pixels"),
        ({"Rows": 4000, "Columns": 8000}, "too_compressed"),
        ({"Rows": 81}, "unreadable"),
        ({"Rows": 3}, "too_small"),
        ({"PixelData": None}, "unreadable"),
        ({"PhotometricInterpretation": "HSV"}, "unsupported_format"),
        ({"BitsStored": 12}, "unreadable"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "unreadable"),
    ],
)
def test_other_files_are_refused_by_name(elements: dict[str, object], code: str) -> None:
    assert code_of(dicom(GREY, **elements)) == code


def test_the_index_of_a_medium_is_not_called_damaged() -> None:
    assert code_of(dcm.index()) == "unsupported_format"


def test_a_codestream_larger_than_its_header_is_refused_before_memory_is_taken() -> None:
    data = bytearray(dicom(GREY, dcm.JPEG_2000_LOSSLESS))
    place = data.find(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">II", data, place, 60_000, 60_000)
    assert code_of(bytes(data)) == "unreadable"


@pytest.mark.slow
def test_millions_of_elements_are_refused_soon() -> None:
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    sequence = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + item * 500_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    data = dicom(GREY)
    place = data.find(b"\x10\0\x10\0PN")
    assert code_of(data[:place] + sequence + data[place:]) == "unreadable"


@pytest.mark.parametrize("element", [b"\x02\0\x02\0UI", b"\x02\0\x10\0UI"], ids=["class", "syntax"])
def test_a_damaged_file_meta_information_is_refused(element: bytes) -> None:
    whole = dicom(GREY)
    assert element in whole
    assert code_of(whole.replace(element, element[:4] + b"U\x84", 1)) == "unreadable"


def test_an_unknown_syntax_is_refused_without_quoting_it() -> None:
    data = dicom(GREY).replace(b"1.2.840.10008.1.2.1\0", b"9.9.999.99999.9.9.9\0", 1)
    with pytest.raises(RadiographError) as caught:
        decode(data)
    assert "9.9.999" not in str(caught.value)


def test_nothing_of_a_patient_reaches_logs_warnings_errors_or_the_terminal(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = (dcm.NAME, dcm.PATIENT, dcm.BIRTH, "Zebedee")
    broken = dicom(GREY).replace(b"20200131", dcm.PATIENT[:8].encode()).replace(b"1.2.3.4\0", b"Zebedee\0")
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in (broken, broken.replace(b"MONOCHROME2", b"Zebedee    "), broken[:-500], broken[:700]):
            try:
                texts.append(repr(decode_with_header(data).header))
            except RadiographError as error:
                texts.append(str(error))
                assert error.__suppress_context__ or error.__context__ is None  # noqa: PT017
    texts += [str(item.message) for item in caught] + [caplog.text, *capfd.readouterr()]
    assert not [text for text in texts for secret in secrets if secret in text]


def test_a_file_without_preamble_is_read() -> None:
    assert np.array_equal(decode(dicom(GREY)[132:]), GREY)
    dataset = pydicom.dcmread(io.BytesIO(dicom(GREY, dcm.IMPLICIT)))
    buffer = io.BytesIO()
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(buffer, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert np.array_equal(decode(buffer.getvalue()), GREY)
