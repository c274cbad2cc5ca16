"""What a stress test does to a radiograph: the suite, by family, each alteration as a file that can be sent.

The families follow Santomartino et al., Radiology: Artificial Intelligence 2024 (rotation, flip, brightness, contrast,
inversion, laterality marker, resolution), so that results can be compared; compression, bit depth, borders, geometry,
noise, wrong inputs and metadata are added.

Shape letters: H height, W width. Pictures are float32 within 0..1, bone bright.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from preprocessing.drawing.wrong import KINDS, draw_wrong_input

Pixels = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Encode = Callable[[np.ndarray], bytes]
_DIGITAL_X_RAY = UID("1.2.840.10008.5.1.4.1.1.1.1")


def png8(image_HW: np.ndarray) -> bytes:
    """As PNG of 8 bit."""
    return cv2.imencode(".png", np.rint(255 * image_HW.clip(0, 1)).astype(np.uint8))[1].tobytes()


def png16(image_HW: np.ndarray, levels: int = 65535) -> bytes:
    """As PNG of 16 bit whose white is `levels`: 4095 is a detector's 12 bit."""
    return cv2.imencode(".png", np.rint(levels * image_HW.clip(0, 1)).astype(np.uint16))[1].tobytes()


def jpeg(image_HW: np.ndarray, quality: int) -> bytes:
    """As JPEG."""
    image = np.rint(255 * image_HW.clip(0, 1)).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def dicom(
    image_HW: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    invert: bool = False,
    spacing: float = 0.0,
    bits: int = 16,
) -> bytes:
    """As DICOM without any patient.

    Args:
        image_HW: Bone bright.
        photometric: What the header says of dark and bright.
        invert: Store dark bones.
        spacing: Millimetres a pixel that the header claims; 0 claims none.
        bits: Stored ones of 16; a detector has 10 to 16.
    """
    levels = np.rint(((1 << bits) - 1) * (1 - image_HW if invert else image_HW).clip(0, 1)).astype("<u2")
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = _DIGITAL_X_RAY
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=["stress"])
    data.Modality, data.Laterality = "DX", "L"
    data.Rows, data.Columns = image_HW.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, 0
    if spacing:
        data.PixelSpacing = data.ImagerPixelSpacing = [spacing, spacing]
    data.PixelData = levels.tobytes()
    data["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Alteration:
    """One thing that is done to every case."""

    family: str
    level: str
    pixels: Pixels | None = None
    """What happens to the picture; None leaves it."""
    encode: Encode | None = None
    """How it is then written; None loses no level: the file as it is, or a changed picture as PNG of 16 bit."""
    sex: str = "as it is"
    """``as it is``, ``swapped`` or ``missing``."""
    age: str = "as it is"
    """The stated chronological age: ``as it is``, ``another's`` or ``missing``. No answer may change with it."""
    is_wrong: bool = False
    """Whether the result is no radiograph that could be answered, so that the right answer is a refusal."""

    def file(self, original: bytes, image_HW: np.ndarray, rng: np.random.Generator) -> bytes:
        """The altered radiograph as a file.

        Args:
            original: The file as it is.
            image_HW: Its picture.
            rng: Of what is drawn.
        """
        if self.pixels is None and self.encode is None:
            return original
        return (self.encode or png16)(image_HW if self.pixels is None else self.pixels(image_HW, rng))

    def sex_of(self, sex: str) -> str | None:
        """The sex that the caller then states."""
        return {"as it is": sex, "swapped": "female" if sex == "male" else "male", "missing": None}[self.sex]

    def age_of(self, own: float | None, anothers: float | None) -> float | None:
        """The chronological age that the caller then states, of the case's own and another case's."""
        return {"as it is": own, "another's": anothers, "missing": None}[self.age]


def suite(wrong_kinds: tuple[str, ...] = KINDS) -> list[Alteration]:
    """All alterations, in the order of the report; `wrong_kinds` as in `preprocessing.drawing.wrong`."""
    made = [Alteration("rotation", f"{angle:+d}°", partial(_rotate, angle=angle)) for angle in _ANGLES]
    made += [Alteration("flip", name, partial(_flip, axis=axis)) for name, axis in _FLIPS]
    made += [
        Alteration("inversion", "pixels", lambda image, rng: 1 - image),
        Alteration("inversion", "MONOCHROME1, rightly", encode=partial(dicom, photometric="MONOCHROME1", invert=True)),
        Alteration("inversion", "MONOCHROME1, wrongly", encode=partial(dicom, photometric="MONOCHROME1")),
    ]
    made += [Alteration("brightness", f"× {gain}", partial(_power, gain=gain)) for gain in (0.5, 0.75, 1.25, 1.5)]
    made += [Alteration("gamma", str(gamma), partial(_power, gamma=gamma)) for gamma in (0.5, 0.7, 1.4, 2.0)]
    made += [Alteration("contrast", f"window {w:.0%}", partial(_window, width=w)) for w in (0.8, 0.6)]
    made += [Alteration("resolution", f"{side} pixels", partial(_resize, side=side)) for side in _SIDES]
    made += [Alteration("compression", f"JPEG {q}", encode=partial(jpeg, quality=q)) for q in (90, 50, 20, 10)]
    made += [
        Alteration("bit depth", "8 bit", encode=png8),
        Alteration("bit depth", "16 bit", encode=png16),
        Alteration("bit depth", "12 in 16 bit", encode=partial(png16, levels=4095)),
    ]
    made += [Alteration("marker", f"“{text}”", partial(_write, text=text)) for text in ("L", "R", "ANON 12345 10Y")]
    made += [Alteration("atlas plate", name, partial(_plate, paper=paper)) for name, paper in _PAPERS]
    made += [Alteration("border", f"white {share:.0%}", partial(_border, share=share)) for share in (0.02, 0.05, 0.1)]
    made += [Alteration("border", "collimation shadow", _shadow)]
    made += [Alteration("geometry", f"cropped {share:.0%}", partial(_crop, share=share)) for share in (0.05, 0.1, 0.2)]
    made += [Alteration("geometry", f"padded {share:.0%}", partial(_pad, share=share)) for share in (0.1, 0.5, 1.0)]
    made += [Alteration("geometry", f"aspect {ratio}", partial(_aspect, ratio=ratio)) for ratio in (0.8, 1.25)]
    made += [Alteration("noise", f"Gaussian {sd}", partial(_gaussian, sd=sd)) for sd in (0.01, 0.05, 0.1)]
    made += [Alteration("noise", f"Poisson {n} photons", partial(_poisson, photons=n)) for n in (1000, 100)]
    made += [Alteration("metadata", "sex swapped", sex="swapped"), Alteration("metadata", "sex missing", sex="missing")]
    made += [Alteration("metadata", f"spacing {mm} mm", encode=partial(dicom, spacing=mm)) for mm in (0.05, 1.0)]
    made += [
        Alteration("metadata", "chronological age permuted", age="another's"),
        Alteration("metadata", "chronological age absent", age="missing"),
    ]
    made += [Alteration("wrong input", kind, partial(_wrong, kind=kind), is_wrong=True) for kind in wrong_kinds]
    made += [
        Alteration("wrong input", "two films side by side", _two_films, is_wrong=True),
        Alteration("wrong input", "fingers cut off", _no_fingers, is_wrong=True),
        Alteration("wrong input", "not a picture", encode=lambda image: b"not a picture", is_wrong=True),
    ]
    return made


_ANGLES = (-45, -30, -20, -15, -10, -5, 5, 10, 15, 20, 30, 45, 90, 180, 270)
_FLIPS = (("left and right", 1), ("up and down", 0), ("both", -1))
_PAPERS = (("printed page", 0.94), ("slide", 0.02))
_SIDES = (1024, 512, 256, 128, 64)


def _rotate(image_HW: np.ndarray, rng: np.random.Generator, *, angle: int) -> np.ndarray:
    """Turned to the left about its middle; nothing is cut off, and the corners are dark as on film."""
    if angle % 90 == 0:
        return np.rot90(image_HW, angle // 90).copy()
    height, width = image_HW.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = int(height * sin + width * cos), int(height * cos + width * sin)
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return cv2.warpAffine(image_HW, turn, size, flags=cv2.INTER_LINEAR, borderValue=float(np.percentile(image_HW, 1)))


def _flip(image_HW: np.ndarray, rng: np.random.Generator, *, axis: int) -> np.ndarray:
    return cv2.flip(image_HW, axis)


def _power(image_HW: np.ndarray, rng: np.random.Generator, *, gain: float = 1.0, gamma: float = 1.0) -> np.ndarray:
    return (gain * image_HW**gamma).clip(0, 1)


def _window(image_HW: np.ndarray, rng: np.random.Generator, *, width: float) -> np.ndarray:
    """The middle part of the levels stretched to all of them; the rest is saturated."""
    low, high = np.percentile(image_HW, [0.5, 99.5])
    middle, reach = (low + high) / 2, max(1e-6, (high - low) * width / 2)
    return ((image_HW - middle + reach) / (2 * reach)).clip(0, 1)


def _resize(image_HW: np.ndarray, rng: np.random.Generator, *, side: int) -> np.ndarray:
    scale = side / max(image_HW.shape)
    size = max(1, round(image_HW.shape[1] * scale)), max(1, round(image_HW.shape[0] * scale))
    return cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC).clip(0, 1)


def _write(image_HW: np.ndarray, rng: np.random.Generator, *, text: str) -> np.ndarray:
    """White letters in an upper corner, as a marker of lead or burnt in."""
    letters, height = np.zeros(image_HW.shape, np.uint8), image_HW.shape[0]
    scale, thickness = height / 400, max(1, height // 150)
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    left = int(rng.choice([0.03, max(0.03, 0.97 - wide / image_HW.shape[1])]) * image_HW.shape[1])
    cv2.putText(letters, text, (left, int(0.03 * height) + high), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness)
    return np.maximum(image_HW, letters.astype(np.float32) / 255)


def _plate(image_HW: np.ndarray, rng: np.random.Generator, *, paper: float) -> np.ndarray:
    """As an atlas shows a film: on a page, in a frame, with a caption below, a number above and a letter of lead."""
    height, width = image_HW.shape
    margin, foot, line = round(0.07 * height), round(0.15 * height), max(1, height // 250)
    page = np.full((height + 2 * margin + foot, width + 2 * margin), paper, np.float32)
    ink = 0.05 if paper > 0.5 else 0.9
    page[margin : margin + height, margin : margin + width] = _write(image_HW, rng, text="L")
    drawn = np.zeros(page.shape, np.uint8)
    cv2.rectangle(drawn, (margin, margin), (margin + width, margin + height), 255, line)
    below = margin + height + foot // 2
    for text, size, at in (
        (f"STANDARD {rng.integers(1, 30)}", 1.0, (margin, below)),
        ("SKELETAL AGE, see the text opposite", 0.6, (margin, below + foot // 3)),
        (str(rng.integers(100, 300)), 0.6, (margin, 3 * margin // 4)),
    ):
        cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, size * width / 500, 255, line, cv2.LINE_AA)
    return np.where(drawn > 127, np.float32(ink), page)


def _border(image_HW: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    image, reach = image_HW.copy(), max(1, round(share * min(image_HW.shape)))
    image[:reach] = image[-reach:] = image[:, :reach] = image[:, -reach:] = 1
    return image


def _shadow(image_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What lies outside a slightly turned rectangle is nearly black, as where the beam was collimated."""
    height, width = image_HW.shape
    box = cv2.boxPoints(((width / 2, height / 2), (0.94 * width, 0.94 * height), float(rng.uniform(-4, 4))))
    lit = cv2.fillPoly(np.zeros_like(image_HW), [box.astype(np.int32)], 1.0)
    return image_HW * (0.05 + 0.95 * cv2.GaussianBlur(lit, (0, 0), 2))


def _crop(image_HW: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    down, right = (round(share * side) for side in image_HW.shape)
    return image_HW[down : image_HW.shape[0] - down, right : image_HW.shape[1] - right]


def _pad(image_HW: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    down, right = (round(share * side / 2) for side in image_HW.shape)
    return np.pad(image_HW, ((down, down), (right, right)))


def _aspect(image_HW: np.ndarray, rng: np.random.Generator, *, ratio: float) -> np.ndarray:
    return cv2.resize(image_HW, (max(1, round(image_HW.shape[1] * ratio)), image_HW.shape[0])).clip(0, 1)


def _gaussian(image_HW: np.ndarray, rng: np.random.Generator, *, sd: float) -> np.ndarray:
    return (image_HW + rng.normal(0, sd, image_HW.shape)).clip(0, 1).astype(np.float32)


def _poisson(image_HW: np.ndarray, rng: np.random.Generator, *, photons: int) -> np.ndarray:
    return (rng.poisson(photons * image_HW) / photons).clip(0, 1).astype(np.float32)


def _wrong(image_HW: np.ndarray, rng: np.random.Generator, *, kind: str) -> np.ndarray:
    return draw_wrong_input(kind, rng, height=384).astype(np.float32) / 255


def _two_films(image_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.hstack([image_HW, np.zeros((image_HW.shape[0], 8), np.float32), image_HW[:, ::-1]])


def _no_fingers(image_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image_HW[round(0.45 * image_HW.shape[0]) :]
