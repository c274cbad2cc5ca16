"""A contact sheet of the augmentation: one case a row, one strength a column, under each what was done to it."""

import cv2
import numpy as np

from preprocessing.augment import Change, draw_change
from preprocessing.cohort import MARKER, Cohort
from preprocessing.limits import read_limited
from preprocessing.radiograph import RadiographError
from preprocessing.recipe import Recipe
from preprocessing.source import SourceError
from preprocessing.sources import SourceOptions, read_source
from preprocessing.standardize import Reader
from preprocessing.storage import as_path
from preprocessing.strength import limits
from preprocessing.warp import warp_on_host

STRENGTHS = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
_LABEL_PX = 16
"""Height of a line of text."""
_GAP_PX = 4
_MIN_TILE_PX = 160
"""Smaller pictures are shown enlarged, pixel by pixel, so that a caption fits."""


def sample(
    source_or_cohort: str, num_cases: int, size: int, options: SourceOptions | None = None
) -> tuple[np.ndarray, list[str]]:
    """Take cases evenly spaced over a cohort, its locked test aside, or over labelled pictures.

    Args:
        source_or_cohort: Local or an fsspec URI.
        num_cases: At most so many.
        size: Side of the pictures in pixels where they are read from files; a cohort has its own.
        options: How labelled pictures are read.

    Returns:
        ``(N, S, S)`` uint8 and a label each.

    Raises:
        SourceError: It is neither, or none of the chosen files is a radiograph.
    """
    if (as_path(source_or_cohort) / MARKER).exists():
        cohort = Cohort.load(source_or_cohort)
        rows = _spread(np.flatnonzero(~cohort.cases["is_test"]), num_cases)
        images_NHW = cohort.view(cohort.recipe.views[0])[rows]
        cases = cohort.cases.iloc[rows]
    else:
        source, reader = read_source(source_or_cohort, options), Reader(Recipe(size=size))
        images, kept = [], []
        for row in _spread(np.arange(len(source.cases)), num_cases):
            try:
                images.append(reader.read(read_limited(source.folder / source.paths[row])).pixels[0])
            except RadiographError:  # refused cases never reach training
                continue
            kept.append(row)
        if not images:
            raise SourceError(f"None of {num_cases} files tried in {source_or_cohort} is a radiograph. Try more cases.")
        images_NHW, cases = np.stack(images), source.cases.iloc[kept]
    labels = [
        f"{case} {'m' if is_male else 'f'} {months:.0f} months"
        for case, is_male, months in zip(cases["case_id"], cases["is_male"], cases["bone_age_months"], strict=True)
    ]
    return images_NHW, labels


def contact_sheet(images_NHW: np.ndarray, labels: list[str], seed: int = 0) -> np.ndarray:
    """Draw the sheet.

    A row shows one drawn change growing with the strength, since stronger is the same change, further.

    Args:
        images_NHW: ``(N, S, S)`` uint8.
        labels: What each case is called.
        seed: Of the changes; row i shows case i in epoch 0.

    Returns:
        Grey levels, uint8.
    """
    factor = -(-_MIN_TILE_PX // images_NHW.shape[1])
    side = images_NHW.shape[1] * factor
    rows = [_line([f"strength {strength:g}" for strength in STRENGTHS], side)]
    for case, (image_HW, label) in enumerate(zip(images_NHW, labels, strict=True)):
        pictures, captions = [], []
        for strength in STRENGTHS:
            change = draw_change(limits(strength), seed, case, 0)
            changed_HW = warp_on_host(change.paint(image_HW), change.pose) if strength else image_HW
            shown_HW = changed_HW.repeat(factor, axis=0).repeat(factor, axis=1)
            pictures.append(np.pad(shown_HW, ((0, 0), (0, _GAP_PX)), constant_values=255))
            captions.append(describe(change) if strength else label)
        rows += [np.hstack(pictures), _line(captions, side)]
    return np.vstack(rows)


def describe(change: Change) -> str:
    """Say in a few words what a change does."""
    pose, marker = change.pose, change.marker
    words = {
        f"{pose.rotation_deg:+.0f}deg x{pose.zoom:.2f}": True,
        "flip": pose.is_mirrored,
        "clahe": change.has_clahe,
        "sharp": change.is_sharpened and not change.blur_side,
        "blur": change.blur_side,
        "noise": change.noise_sd,
        "plate": marker and marker.is_plate,
        "mark": marker and not marker.is_plate,
        "frame": change.border,
        "INVERTED": change.is_inverted,
    }
    return " ".join(word for word, is_so in words.items() if is_so)


def _spread(rows: np.ndarray, num: int) -> np.ndarray:
    """At most `num` of the rows, evenly spaced."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, num).astype(int))]


def _line(texts: list[str], side: int) -> np.ndarray:
    """A line of captions, each cut to its column."""
    cells = []
    for text in texts:
        cell = np.full((_LABEL_PX, side), 255, np.uint8)
        cv2.putText(cell, text, (2, _LABEL_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.32, 0, 1, cv2.LINE_AA)
        cells.append(np.pad(cell, ((0, 0), (0, _GAP_PX)), constant_values=255))
    return np.hstack(cells)
