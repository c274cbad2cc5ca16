"""From a file's bytes to model input: the one code path that training, batch scoring and the server share.

Shape letters: H height, W width, S side of the model input, V views.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocessing.checks import judge, measure
from preprocessing.duplicates import perceptual_hash
from preprocessing.hand import Hand, find
from preprocessing.levels import Sample, sample
from preprocessing.quality import Finding, header_findings
from preprocessing.radiograph import Decoded, Header, RadiographError, decode_with_header
from preprocessing.recipe import Recipe, check_weights
from preprocessing.segmenter import Segmenter
from preprocessing.views import make_view, view_matrix


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
    fingerprint: bytes = b""
    """Perceptual hash of the whole picture; near-duplicates nearly share it."""
    shape_HW: tuple[int, int] = (0, 0)
    """Of the picture, upright as a viewer shows it."""
    to_views: tuple[np.ndarray, ...] = ()
    """For each view the ``(2, 3)`` affine matrix from the picture's pixels to the view's; none of prepared pixels."""

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


@dataclass(frozen=True)
class Look:
    """One radiograph decoded and judged, before any picture is made of it."""

    image_HW: np.ndarray
    """``(H, W)`` uint16; turned round where dark bones were repaired."""
    is_deep: bool
    """Whether the file holds more than 8 bits; else its levels were spread over 16."""
    hand: Hand | None
    """The best candidate; None where nothing looks like one, or nobody looked."""
    scores: Mapping[str, float]
    """As in `Reading`."""
    findings: tuple[Finding, ...]
    """The last one may be a refusal."""
    header: Header | None
    """As in `Reading`."""
    sample: Sample
    """Of `image_HW`."""


QUANTUM = 257
"""What levels of 8 bits are multiplied by to be levels of 16: 255 becomes 65535."""
INVERTED = np.uint16(65535)
"""Less a picture's levels, it is the picture with bright and dark exchanged."""


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
        self.segment = Segmenter(self.weights) if self.weights else None

    def read(self, data: bytes) -> Reading:
        """Decode, check and standardise one file.

        Args:
            data: The whole file, in any format that `preprocessing.radiograph.decode` reads.

        Raises:
            RadiographError: The bytes hold no picture, or the gate refuses it; the code says why.
        """
        return self.finish(decode_with_header(data))

    def finish(self, decoded: Decoded) -> Reading:
        """Check and standardise a decoded file: `read`, for those who time or keep what comes before.

        Raises:
            RadiographError: The gate refuses it; the code says why.
        """
        look = self._look(decoded)
        for finding in look.findings:
            if finding.action == "refused":
                raise RadiographError(finding.code, finding.message)
        if look.hand is None and self.segment:  # whatever the gate lets through, there is nothing to cut out
            raise RadiographError(
                "not_a_hand", "No part of the picture looks like a hand. Send one left hand with wrist."
            )
        height, width = look.image_HW.shape
        return Reading(
            self.pictures(look),
            look.findings,
            look.header,
            look.scores,
            # Of the whole picture, whatever the views: aligned hands all look alike.
            perceptual_hash(look.sample.levels_hw),
            (height, width),
            tuple(view_matrix((height, width), name, self.recipe, look.hand) for name in self.recipe.views),
        )

    def look(self, data: bytes) -> Look:
        """Decode one file, find the hand and judge; the first half of `read`, for those who want to see it.

        Raises:
            RadiographError: The bytes hold no picture.
        """
        return self._look(decode_with_header(data))

    def _look(self, decoded: Decoded) -> Look:
        image, is_deep = deepened(decoded.pixels), decoded.pixels.dtype == np.uint16
        quantum = 1 if is_deep else QUANTUM
        hand, taken = find(image, self.segment) if self.segment else None, sample(image, quantum=quantum)
        scores = measure(image, hand, taken, quantum=quantum)
        negative = None
        if self.segment is None:
            scores = {"blank": scores["blank"]}  # nobody looked for a hand
        elif scores.get("inverted", 0.0) > self.recipe.gate.inverted:
            # a faint hand may look inverted either way; dark bones are found well enough to be told, not to be cut out
            negative = find(INVERTED - image, self.segment)
            scores["inverted"] = min(scores["inverted"], 1 - negative.looks_inverted if negative else 0.0)
        findings = judge(scores, self.recipe)
        if negative and any(finding.code == "inverted" and finding.action == "repaired" for finding in findings):
            image, hand = INVERTED - image, negative
            taken = sample(image, quantum=quantum)
        return Look(image, is_deep, hand, scores, findings, decoded.header, taken)

    def pictures(self, look: Look) -> np.ndarray:
        """``(V, S, S)`` uint8: the recipe's views of a radiograph that was not refused; the second half of `read`."""
        views = (make_view(look.image_HW, name, self.recipe, look.hand, look.sample) for name in self.recipe.views)
        return np.stack(list(views))


def deepened(image_HW: np.ndarray) -> np.ndarray:
    """The same picture at 16 bit, so that an 8-bit and a 16-bit copy take the same path."""
    return image_HW if image_HW.dtype == np.uint16 else image_HW.astype(np.uint16) * np.uint16(QUANTUM)
