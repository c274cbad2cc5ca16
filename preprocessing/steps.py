"""What happens to one file on its way to model input, step by step, for a person to look at.

Shape letters: H height, W width. Nothing here decides anything: pictures, scores and findings are those of
`preprocessing.standardize.Reader`, which prepares and serves.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from preprocessing.checks import CHECKS, Check
from preprocessing.dicom import is_dicom
from preprocessing.hand import Hand, compose, warp, window_matrix
from preprocessing.header import Header
from preprocessing.marks import canvas, draw_axes, draw_outline
from preprocessing.quality import Finding, header_findings
from preprocessing.radiograph import RadiographError
from preprocessing.raster import MAGIC
from preprocessing.recipe import VIEWS, Recipe
from preprocessing.segmenter import SIDE, Segmenter, letterbox, stretch, stretched
from preprocessing.standardize import QUANTUM, Look, Reader
from preprocessing.storage import sha256_file

SHOWN_PX = 480
"""Longer side of a picture as it is shown."""
VIEW_PX = 384
"""Side of the views where no recipe says it: large enough to be looked at."""

MEASURES = {
    "blank": "grey levels that the picture spans",
    "not_a_hand": "how unlike a hand it is, 0 to 1",
    "two_hands": "area of a second hand beside the first",
    "too_small": "pixels from wrist to middle fingertip",
    "cut_off": "picture's edge inside the hand, in hand lengths",
    "saturated": "share of the hand wholly black or white",
    "low_contrast": "grey levels that the hand spans",
    "inverted": "probability that bone is dark",
    "rotated": "degrees from upright",
    "right_hand": "1 where it looks like a right hand",
    "framed": "straight edges beside the hand, in long sides",
}
"""What each check of the gate measures."""


@dataclass(frozen=True)
class Panel:
    """One picture of the row."""

    title: str
    note: str
    picture: np.ndarray
    """``(H, W, 3)`` uint8, red first."""


@dataclass(frozen=True)
class Score:
    """One line of the gate's table."""

    check: Check
    value: float | None
    """None where the check was not made."""
    threshold: float
    outcome: str
    """``passed``, the action of its finding, ``beyond`` where a refusal came before, or ``not made``."""


@dataclass(frozen=True)
class Course:
    """All that is known about one file."""

    facts: tuple[tuple[str, str], ...]
    """Name and value, of the file and its header; no identifier."""
    panels: tuple[Panel, ...]
    """The steps that were reached, in order."""
    scores: tuple[Score, ...]
    findings: tuple[Finding, ...]
    """The gate's, then where the header contradicts what is expected."""
    refusal: RadiographError | None
    """Why there is no model input; None where there is."""
    recipe: Recipe


def own_reader(weights: Path | None = None) -> Reader:
    """A reader of the standard recipe with all views, at a size that can be looked at.

    Args:
        weights: Of the segmenter; None takes those that ship.
    """
    if weights is None:
        return Reader(Recipe.standard(size=VIEW_PX, views=VIEWS))
    Segmenter(weights)  # says best what is wrong with a file that holds no weights
    return Reader(Recipe.standard(size=VIEW_PX, views=VIEWS, segmenter=sha256_file(weights)), weights)


def follow(data: bytes, reader: Reader, name: str) -> Course:
    """Follow one file through every step.

    Args:
        data: The whole file.
        reader: Of the recipe.
        name: Of the file, kept unless it is a DICOM, which archives like to name by the patient.

    Returns:
        Also for a file that is refused: then the steps before that.
    """
    facts = _file_facts(data, name)
    try:
        look = reader.look(data)
    except RadiographError as error:
        scores = tuple(Score(check, None, getattr(reader.recipe.gate, check.code), "not made") for check in CHECKS)
        return Course(facts, (), scores, (), error, reader.recipe)
    refused = next((finding for finding in look.findings if finding.action == "refused"), None)
    panels = [_decoded(look), *_looks(look, reader)]
    if refused is None:
        pixels_VSS = reader.pictures(look)
        panels += [
            Panel(view, _view_note(view, reader.recipe), canvas(image_SS, image_SS.shape[0])[0])
            for view, image_SS in zip(reader.recipe.views, pixels_VSS, strict=True)
        ]
    return Course(
        facts + _picture_facts(look) + header_facts(look.header),
        tuple(panels),
        tuple(_score(check, look, reader.recipe) for check in CHECKS),
        look.findings + header_findings(look.header),
        None if refused is None else RadiographError(refused.code, refused.message),
        reader.recipe,
    )


def header_facts(header: Header | None) -> tuple[tuple[str, str], ...]:
    """What a DICOM header says, in words; the patient's pseudonym is left out, since it too follows a patient."""
    if header is None:
        return ()
    age, precision = header.chronological_age_months, header.age_precision_months
    spacing = header.spacing_mm
    return (
        ("sex", header.sex or "not given"),
        (
            "age at the study",
            "not given" if age is None else f"{age:.0f}{f' to {age + precision:.0f}' if precision > 1 else ''} months",
        ),
        ("side", header.laterality or "not given"),
        ("spacing", "not given" if spacing is None else f"{spacing[0]:.3f} × {spacing[1]:.3f} mm"),
        ("grey levels from", header.display.replace("_", " ")),
    )


def _file_facts(data: bytes, name: str) -> tuple[tuple[str, str], ...]:
    kind = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), "of no format that is read")
    named = () if is_dicom(data) else (("file", name),)
    return (*named, ("format", "DICOM" if is_dicom(data) else kind), ("size", f"{len(data):,} bytes"))


def _picture_facts(look: Look) -> tuple[tuple[str, str], ...]:
    height, width = look.image_HW.shape
    levels = np.count_nonzero(np.bincount(look.image_HW.ravel(), minlength=65536))
    least, most = int(look.image_HW.min()), int(look.image_HW.max())
    quantum = 1 if look.is_deep else QUANTUM
    return (
        ("picture", f"{width:,} × {height:,} pixels"),
        (
            "grey levels",
            f"{levels:,} of {'16' if look.is_deep else '8'} bit, {least // quantum:,} to {most // quantum:,}",
        ),
    )


def _score(check: Check, look: Look, recipe: Recipe) -> Score:
    value, threshold = look.scores.get(check.code), getattr(recipe.gate, check.code)
    finding = next((finding for finding in look.findings if finding.code == check.code), None)
    if value is None:
        return Score(check, None, threshold, "not made")
    if finding is not None:
        return Score(check, value, threshold, finding.action)
    is_beyond = value < threshold if check.is_low else value > threshold
    return Score(check, value, threshold, "beyond" if is_beyond else "passed")


def _decoded(look: Look) -> Panel:
    image = look.image_HW.astype(np.float32)
    low, high = float(image.min()), float(image.max())
    levels = np.rint((image - low) * np.float32(255 / max(high - low, 1))).astype(np.uint8)
    return Panel("as decoded", "shown from its darkest to its brightest level", canvas(levels, SHOWN_PX)[0])


def _looks(look: Look, reader: Reader) -> list[Panel]:
    """What the segmenter saw and said, and the hand on the picture."""
    if reader.segment is None:
        return []
    square, to_square = letterbox(look.image_HW)
    maps, hand = reader.segment(stretch(square)), look.hand
    first, to_shown = canvas(stretched(square), SHOWN_PX)
    draw_outline(first, maps.mask_HW, to_shown)
    words = f"hand {maps.hand:.2f}, dark bones {maps.inverted:.2f}"
    if hand is None:
        return [Panel("first look", f"{words}; nothing is shaped like a hand", first)]
    draw_axes(first, hand.first, compose(to_shown, to_square))
    window = window_matrix(hand.last, SIDE)
    second, to_shown = canvas(stretched(warp(look.image_HW, window, SIDE)), SHOWN_PX)
    _draw_hand(second, hand, compose(to_shown, window))
    whole, to_shown = canvas(stretched(look.image_HW), SHOWN_PX)
    _draw_hand(whole, hand, to_shown)
    side = "left hand" if hand.pose.is_left else "right hand, or mirrored"
    turned = f"{hand.pose.rotation:+.0f}°".replace("-", "\N{MINUS SIGN}")
    return [
        Panel("first look", words, first),
        Panel("second look", f"hand {hand.hand[1]:.2f}, dark bones {hand.inverted[1]:.2f}", second),
        Panel(
            "candidate" if _is_doubted(look) else "hand found", f"{side}, {turned}, {hand.pose.length:.0f} px", whole
        ),
    ]


def _draw_hand(picture_HW3: np.ndarray, hand: Hand, affine: np.ndarray) -> None:
    """Outline and axes of the hand; `affine` takes pixels of the radiograph to those of the picture."""
    from_window = cv2.invertAffineTransform(window_matrix(hand.pose, SIDE))
    draw_outline(picture_HW3, hand.window_mask, compose(affine, from_window))
    draw_axes(picture_HW3, hand.pose, affine)


def _is_doubted(look: Look) -> bool:
    return any(finding.code == "not_a_hand" for finding in look.findings)


def _view_note(view: str, recipe: Recipe) -> str:
    turned = "upright" if recipe.align else "as it lay"
    return {
        "full": f"the whole picture, {turned}",
        "crop": f"cut to the hand, {turned}",
        "masked": f"nothing but the hand, {turned}",
    }[view]
