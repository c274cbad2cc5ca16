"""Requests that are wrong in some way, and the answer each must get; used with and without a real server."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tests.dicom_files import dicom

SCORE = "/v1/score?sex=male"
AGE = "&chronological_age_months="
BOUNDARY = "carpal-test-boundary"


@dataclass(frozen=True)
class Upload:
    """One request and its expected status and code; ``code=None`` means a reading is expected."""

    name: str
    status: int
    code: str | None
    content: bytes = b""
    path: str = SCORE
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def hand_png(height: int = 160, width: int = 120, depth: int = 8) -> bytes:
    """A readable picture, brighter towards the middle."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    bright = np.clip(1 - np.hypot(x, y), 0, 1)
    return _encode((bright * (2**depth - 1)).astype(np.uint16 if depth == 16 else np.uint8), "PNG")


def _encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_claims(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header says one size and whose data says whatever is given."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """A multipart body; each part is its disposition after ``form-data;`` and its content."""
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"
        for disposition, content in parts
    )
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hand.png", hand_png())
    return buffer.getvalue()


PNG = hand_png()
_PIXELS = np.asarray(Image.open(io.BytesIO(PNG)))
_SKIN = (_PIXELS[..., None] * np.array([1.0, 0.7, 0.5])).astype(np.uint8)
JPEG, TIFF, BMP = (_encode(_PIXELS, kind) for kind in ("JPEG", "TIFF", "BMP"))
DICOM = dicom(_PIXELS)
FILE = 'name="file"; filename="hand.png"'
_JSON = {"content-type": "application/json"}
_FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
_NO_CHARSET = {"content-type": f"{_FORM['content-type']}; charset=undefined"}
_NOISE = np.random.default_rng(0).bytes(4096)


def _image(name: str, status: int, code: str | None, content: bytes, content_type: str = "image/png") -> Upload:
    return Upload(name, status, code, content, headers={"content-type": content_type})


def _multipart(name: str, status: int, code: str | None, *parts: tuple[str, bytes], path: str = SCORE) -> Upload:
    return Upload(name, status, code, form(*parts), path, headers=_FORM)


UPLOADS = [
    # no image at all
    _image("empty body", 400, "empty", b""),
    _image("one zero byte", 415, "unsupported_format", b"\0"),
    _image("zeros", 415, "unsupported_format", bytes(100_000)),
    _image("noise", 415, "unsupported_format", _NOISE),
    _image("text", 415, "unsupported_format", b"this is a hand, trust me", "text/plain"),
    _image("JSON", 415, "unsupported_format", json.dumps({"image": "x"}).encode(), "application/json"),
    _image("HTML", 415, "unsupported_format", b"<!doctype html><img src=x>", "text/html"),
    _image("SVG", 415, "unsupported_format", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"),
    _image("XML bomb", 415, "unsupported_format", b'<!DOCTYPE x [<!ENTITY a "aa">]><x>&a;</x>'),
    _image("PDF", 415, "unsupported_format", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF", "application/pdf"),
    _image("zip", 415, "unsupported_format", _zip(), "application/zip"),
    _image("gzip of a PNG", 415, "unsupported_format", gzip.compress(PNG)),
    _image("GIF", 415, "unsupported_format", _encode(np.zeros((64, 64), np.uint8), "GIF"), "image/gif"),
    _image("WebP", 415, "unsupported_format", _encode(np.zeros((64, 64), np.uint8), "WEBP"), "image/webp"),
    _image("executable", 415, "unsupported_format", b"\x7fELF" + _NOISE, "application/octet-stream"),
    # an image that cannot be read
    _image("PNG signature only", 422, "unreadable", PNG[:8]),
    _image("PNG cut in the header", 422, "unreadable", PNG[:20]),
    _image("PNG cut in half", 422, "unreadable", PNG[: len(PNG) // 2]),
    _image("PNG with a damaged byte", 422, "unreadable", PNG[:200] + bytes([PNG[200] ^ 255]) + PNG[201:]),
    _image("PNG without data", 422, "unreadable", png_that_claims(100, 100)),
    _image("JPEG cut in half", 422, "unreadable", JPEG[: len(JPEG) // 2], "image/jpeg"),
    _image("JPEG signature only", 422, "unreadable", JPEG[:3], "image/jpeg"),
    _image("JPEG signature, then noise", 422, "unreadable", JPEG[:4] + _NOISE, "image/jpeg"),
    _image("PNG signature, then noise", 422, "unreadable", PNG[:8] + _NOISE),
    _image("1 x 1 pixel", 422, "too_small", _encode(np.zeros((1, 1), np.uint8), "PNG")),
    _image("2,000 x 4 pixels", 422, "too_small", _encode(np.zeros((4, 2000), np.uint8), "PNG")),
    _image("no width", 422, "unreadable", png_that_claims(0, 100)),
    _image("20,000 x 20,000 in the header", 413, "too_many_pixels", png_that_claims(20_000, 20_000)),
    _image("2^31 - 1 squared in the header", 413, "too_many_pixels", png_that_claims(2**31 - 1, 2**31 - 1)),
    _image("decompression bomb", 413, "too_many_pixels", png_that_claims(30_000, 30_000, bytes(30_000_000))),
    _image("one black square", 422, "blank", _encode(np.zeros((200, 200), np.uint8), "PNG")),
    _image("one white square", 422, "blank", _encode(np.full((200, 200), 255, np.uint8), "JPEG"), "image/jpeg"),
    _image("BMP cut in half", 422, "unreadable", BMP[: len(BMP) // 2], "image/bmp"),
    _image("TIFF cut in half", 422, "unreadable", TIFF[: len(TIFF) // 2], "image/tiff"),
    _image("DICOM cut in half", 422, "unreadable", DICOM[: len(DICOM) // 2], "application/dicom"),
    _image("DICOM preamble, then noise", 422, "unreadable", DICOM[:132] + _NOISE, "application/dicom"),
    _image("DICOM of two frames", 422, "multi_frame", dicom(_PIXELS, NumberOfFrames=2), "application/dicom"),
    _image(
        "DICOM of a PDF",
        415,
        "encapsulated_document",
        dicom(_PIXELS, EncapsulatedDocument=b"%PDF-1.7"),
        "application/dicom",
    ),
    _image("a colour photograph", 422, "colour_photograph", _encode(_SKIN, "PNG")),
    _image("a blank bomb", 413, "too_compressed", png_that_claims(7000, 7000, bytes(1000))),
    _image("33 MiB", 413, "too_large", PNG + bytes(33 * 1024 * 1024)),
    # the form
    Upload("form without boundary", 400, "bad_multipart", PNG, headers={"content-type": "multipart/form-data"}),
    Upload(
        "form with another boundary",
        400,
        "bad_multipart",
        form((FILE, PNG)).replace(b"carpal", b"other"),
        headers=_FORM,
    ),
    Upload("an image called a form", 400, "bad_multipart", PNG, headers=_FORM),
    Upload("form cut short", 400, "bad_multipart", form((FILE, PNG), end=False)[:-100], headers=_FORM),
    Upload("empty form body", 400, "bad_multipart", b"", headers=_FORM),
    Upload("form of no charset", 400, "bad_multipart", form((FILE, PNG)), headers=_NO_CHARSET),
    Upload("form part without a name", 400, "bad_multipart", form(("x=y", PNG)), headers=_FORM),
    Upload("form in JSON's clothes", 415, "unsupported_format", form((FILE, PNG)), headers=_JSON),
    _multipart("form without parts", 422, "file_missing"),
    _multipart("file under another name", 422, "file_missing", ('name="image"; filename="a.png"', PNG)),
    _multipart("file as text", 422, "file_missing", ('name="file"', b"hand")),
    _multipart("file as a long text", 400, "bad_multipart", ('name="file"', bytes(5000))),
    _multipart("empty file", 400, "empty", (FILE, b"")),
    _multipart("text file", 415, "unsupported_format", (FILE, b"hand")),
    _multipart("two files", 422, "too_many_files", (FILE, PNG), (FILE, PNG)),
    _multipart("twenty files", 400, "bad_multipart", *[(FILE, PNG)] * 20),
    _multipart("a thousand fields", 400, "bad_multipart", *[('name="sex"', b"male")] * 1000),
    _multipart("a huge field name", 400, "bad_multipart", (f'name="{"x" * 100_000}"', b""), (FILE, PNG)),
    _multipart("a field of its own", 422, "unknown_parameter", (FILE, PNG), ('name="use_mask"', b"1")),
    # the sex
    _multipart("sex against sex", 422, "sex_contradiction", (FILE, PNG), ('name="sex"', b"female")),
    _multipart("binary sex", 422, "sex_unknown_word", (FILE, PNG), ('name="sex"', b"\xff\xfe\0")),
    Upload("no sex", 422, "sex_missing", PNG, "/v1/score"),
    Upload("empty sex", 422, "sex_unknown_word", PNG, "/v1/score?sex="),
    Upload("unknown sex word", 422, "sex_unknown_word", PNG, "/v1/score?sex=boy"),
    Upload("sex by number", 422, "sex_unknown_word", PNG, "/v1/score?sex=1"),
    Upload("very long sex", 422, "sex_unknown_word", PNG, "/v1/score?sex=" + "male" * 1000),
    Upload("sex twice", 422, "sex_contradiction", PNG, "/v1/score?sex=male&sex=female"),
    Upload("sex that is no UTF-8", 422, "sex_unknown_word", PNG, "/v1/score?sex=%ff%fe%00"),
    Upload("sex against no sex", 422, "sex_contradiction", PNG, SCORE + "&sex=unknown"),
    # what else may be said
    Upload("an age in years", 422, "chronological_age_malformed", PNG, SCORE + AGE + "10y"),
    Upload("an age below zero", 422, "chronological_age_malformed", PNG, SCORE + AGE + "-1"),
    Upload("the age of a grown-up", 422, "chronological_age_malformed", PNG, SCORE + AGE + "400"),
    Upload("an endless age", 422, "chronological_age_malformed", PNG, SCORE + AGE + "inf"),
    Upload("an age that is no number", 422, "chronological_age_malformed", PNG, SCORE + AGE + "nan"),
    Upload("an age of a thousand digits", 422, "chronological_age_malformed", PNG, SCORE + AGE + "1" * 1000),
    Upload("an age in Arabic digits", 422, "chronological_age_malformed", PNG, SCORE + AGE + "%D9%A1"),
    Upload("an empty age", 422, "chronological_age_malformed", PNG, SCORE + AGE),
    Upload("two ages", 422, "chronological_age_malformed", PNG, SCORE + AGE + "100" + AGE + "101"),
    Upload("a profile of its own", 422, "profile_unknown", PNG, SCORE + "&profile=best"),
    Upload("two profiles", 422, "profile_unknown", PNG, SCORE + "&profile=fast&profile=full"),
    Upload("perhaps explained", 422, "explain_malformed", PNG, SCORE + "&explain=maybe"),
    Upload("a misspelt parameter", 422, "unknown_parameter", PNG, SCORE + "&Sex=female"),
    # the way
    Upload("GET on score", 405, "method_not_allowed", method="GET"),
    Upload("PUT on score", 405, "method_not_allowed", PNG, method="PUT"),
    Upload("DELETE on score", 405, "method_not_allowed", method="DELETE"),
    Upload("PUT on versions", 405, "method_not_allowed", PNG, "/v1/versions", method="PUT"),
    Upload("a method of other servers", 405, "method_not_allowed", method="PROPFIND"),
    Upload("no such page", 404, "not_found", path="/nothing", method="GET"),
    Upload("a slash too many", 404, "not_found", PNG, "/v1/score/?sex=male"),
    Upload("another version", 404, "not_found", PNG, "/v2/score?sex=male"),
    Upload("a path that climbs", 404, "not_found", path="/v1/%2e%2e/%2e%2e/etc/passwd", method="GET"),
    Upload("a very long path", 404, "not_found", path="/" + "a" * 8000, method="GET"),
    # strange, yet readable
    _image("PNG called text", 200, None, PNG, "text/plain"),
    _image("PNG called JPEG", 200, None, PNG, "image/jpeg"),
    _image("PNG as curl sends it", 200, None, PNG, "application/x-www-form-urlencoded"),
    Upload("PNG without a content type", 200, None, PNG),
    Upload("PNG with a broken content type", 200, None, PNG, headers={"content-type": ";;;=="}),
    _image("BMP", 200, None, BMP, "image/bmp"),
    _image("TIFF", 200, None, TIFF, "image/tiff"),
    _image("DICOM", 200, None, DICOM, "application/dicom"),
    _image("16-bit PNG", 200, None, hand_png(depth=16)),
    _multipart("form with the sex in it", 200, None, (FILE, PNG), ('name="sex"', b" Female "), path="/v1/score"),
    _multipart("form with a hostile file name", 200, None, ('name="file"; filename="../../x\\".png"', PNG)),
    Upload("capital letters", 200, None, PNG, "/v1/score?sex=FEMALE"),
    Upload("unknown sex", 200, None, PNG, "/v1/score?sex=Unknown"),
    Upload("an age in months", 200, None, PNG, SCORE + AGE + "126.5"),
    Upload("one letter", 200, None, PNG, "/v1/score?sex=f"),
    Upload("the same sex twice", 200, None, PNG, "/v1/score?sex=m&sex=male"),
    Upload(
        "headers for Serve itself",
        200,
        None,
        PNG,
        headers={"x-request-timeout-seconds": "0.000001", "x-session-id": "a"},
    ),
]
