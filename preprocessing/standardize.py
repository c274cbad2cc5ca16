"""From a file's bytes to model input: the one code path that training, batch scoring and the server share.

Shape letters: H height, W width, S side of the model input, V views.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from preprocessing.quality import Finding, header_findings
from preprocessing.radiograph import Header, RadiographError, decode_with_header
from preprocessing.recipe import Recipe, check_weights

_MAX_SAMPLES = 1 << 18
"""Percentiles are taken on at most this many evenly spaced pixels: the same to a grey level, and ten times faster."""


@dataclass(frozen=True)
class Reading:
    """One radiograph as the models see it, and what was noticed on the way."""

    pixels: np.ndarray
    """``(V, S, S)`` uint8, one picture a view, in the order of the recipe's views."""
    findings: tuple[Finding, ...]
    """Repaired or warned of; what is refused has no reading."""
    header: Header | None
    """Of a DICOM; None for the other formats."""

    def warnings(
        self,
        *,
        sex: str | None = None,
        chronological_age_months: float | None = None,
        laterality: str | None = "left",
        patient_hash: str | None = None,
    ) -> tuple[Finding, ...]:
        """The findings, and where the header contradicts what the caller states of the child.

        Arguments as in `preprocessing.header.contradictions`.
        """
        return self.findings + header_findings(
            self.header,
            sex=sex,
            chronological_age_months=chronological_age_months,
            laterality=laterality,
            patient_hash=patient_hash,
        )


class Reader:
    """Turns files into readings by one recipe; any number of threads may share it."""

    def __init__(self, recipe: Recipe, weights: Path | None = None) -> None:
        """Load what the recipe needs.

        Args:
            recipe: The settings.
            weights: File with the segmenter that the recipe names, on this machine; None where it names none.

        Raises:
            StorageError: The recipe names a segmenter, and the file is not that one.
        """
        self.recipe = recipe
        self.weights = check_weights(recipe, weights)

    def read(self, data: bytes) -> Reading:
        """Decode and standardise one file.

        Args:
            data: The whole file, in any format that `preprocessing.radiograph.decode` reads.

        Raises:
            RadiographError: The bytes hold no usable picture.
        """
        decoded = decode_with_header(data)
        return Reading(standardize(decoded.pixels, self.recipe)[None], (), decoded.header)


def standardize(image_HW: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Saturate, rescale to 0..255 and fit the radiograph into a black square.

    The arithmetic runs in float32, so that a 16-bit file loses nothing before the last rounding.

    Args:
        image_HW: ``(H, W)`` grey levels, uint8 or uint16, bone brighter than background.
        recipe: Output size and percentiles.

    Returns:
        ``(recipe.size, recipe.size)`` uint8; aspect ratio kept, padding is 0.

    Raises:
        RadiographError: Code ``blank``: the picture is constant, so it holds no radiograph.
    """
    step = int(np.ceil(np.sqrt(image_HW.size / _MAX_SAMPLES)))
    low, high = np.percentile(image_HW[::step, ::step], recipe.clip_percentiles)
    if high <= low:  # a mostly black or mostly white picture may still hold a small hand
        low, high = float(image_HW.min()), float(image_HW.max())
    if high <= low:
        raise RadiographError("blank", f"All pixels have the grey level {int(low)}: there is nothing to read.")
    height, width = image_HW.shape
    scale = recipe.size / max(height, width)
    new_height, new_width = (max(1, round(side * scale)) for side in (height, width))
    stretched = (np.clip(image_HW.astype(np.float32), low, high) - np.float32(low)) * np.float32(255 / (high - low))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(stretched, (new_width, new_height), interpolation=interpolation)
    square = np.zeros((recipe.size, recipe.size), np.uint8)
    top, left = (recipe.size - new_height) // 2, (recipe.size - new_width) // 2
    square[top : top + new_height, left : left + new_width] = np.rint(np.clip(resized, 0, 255))
    return square
