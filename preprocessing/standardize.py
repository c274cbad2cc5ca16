"""From a file's bytes to model input: the one code path that training, batch scoring and the server share.

Shape letters: H height, W width, S side of the model input, V views.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocessing.checks import judge, measure
from preprocessing.hand import find
from preprocessing.quality import Finding, header_findings
from preprocessing.radiograph import Header, RadiographError, decode_with_header
from preprocessing.recipe import Recipe, check_weights
from preprocessing.segmenter import Segmenter
from preprocessing.views import make_view


@dataclass(frozen=True)
class Reading:
    """One radiograph as the models see it, and what was noticed on the way."""

    pixels: np.ndarray
    """``(V, S, S)`` uint8, one picture a view, in the order of the recipe's views."""
    findings: tuple[Finding, ...]
    """Repaired or warned of; what is refused has no reading."""
    header: Header | None
    """Of a DICOM; None for the other formats."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of every check of the gate that was made; `preprocessing.gate.Gate` names their units."""

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
        self._segment = Segmenter(self.weights) if self.weights else None

    def read(self, data: bytes) -> Reading:
        """Decode, check and standardise one file.

        Args:
            data: The whole file, in any format that `preprocessing.radiograph.decode` reads.

        Raises:
            RadiographError: The bytes hold no picture, or the gate refuses it; the code says why.
        """
        decoded = decode_with_header(data)
        image = deepened(decoded.pixels)
        hand = find(image, self._segment) if self._segment else None
        scores = measure(image, hand, quantum=1 if image is decoded.pixels else 257)
        if self._segment is None:
            scores = {"blank": scores["blank"]}  # nobody looked for a hand
        findings = judge(scores, self.recipe)
        for finding in findings:
            if finding.action == "refused":
                raise RadiographError(finding.code, finding.message)
            if finding.code == "inverted" and finding.action == "repaired":
                image = 65535 - image
        views = [make_view(image, name, self.recipe, hand) for name in self.recipe.views]
        return Reading(np.stack(views), findings, decoded.header, scores)


def deepened(image_HW: np.ndarray) -> np.ndarray:
    """The same picture at 16 bit, so that an 8-bit and a 16-bit copy take the same path; 255 becomes 65535."""
    return image_HW if image_HW.dtype == np.uint16 else image_HW.astype(np.uint16) * np.uint16(257)
