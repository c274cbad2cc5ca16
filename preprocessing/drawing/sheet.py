"""A developed picture with its truth, so that whatever moves the pixels moves mask, bones and landmarks too."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from preprocessing.drawing.exposure import ByteArray
from preprocessing.drawing.plate import Points
from preprocessing.drawing.skeleton import FloatArray


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Grey levels (0 black, 255 white, not yet cut to whole ones) and what is true of each pixel."""

    grey_HW: FloatArray
    mask_HW: ByteArray
    bones_HW: ByteArray
    points: Points

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.grey_HW.shape
        return height, width

    def moved(self, move: FloatArray, shape_HW: tuple[int, int], level: float) -> Sheet:
        """Pixels carried by a (2, 3) affine map into a picture of that shape; what is new gets `level`."""
        size = (shape_HW[1], shape_HW[0])
        return Sheet(
            grey_HW=np.asarray(cv2.warpAffine(self.grey_HW, move, size, borderValue=level), np.float32),
            mask_HW=np.asarray(cv2.warpAffine(self.mask_HW, move, size, flags=cv2.INTER_NEAREST), np.uint8),
            bones_HW=np.asarray(cv2.warpAffine(self.bones_HW, move, size, flags=cv2.INTER_NEAREST), np.uint8),
            points={
                name: (
                    float(move[0, 0] * x + move[0, 1] * y + move[0, 2]),
                    float(move[1, 0] * x + move[1, 1] * y + move[1, 2]),
                )
                for name, (x, y) in self.points.items()
            },
        )

    def cropped(self, left: int, top: int, right: int, bottom: int) -> Sheet:
        """The window [top, bottom) by [left, right); landmarks may then lie outside the picture."""
        window = (slice(top, bottom), slice(left, right))
        return Sheet(
            grey_HW=np.ascontiguousarray(self.grey_HW[window]),
            mask_HW=np.ascontiguousarray(self.mask_HW[window]),
            bones_HW=np.ascontiguousarray(self.bones_HW[window]),
            points={name: (x - left, y - top) for name, (x, y) in self.points.items()},
        )

    def flipped(self) -> Sheet:
        """Left and right exchanged, as when a film lies on its face."""
        width = self.shape[1]
        return Sheet(
            grey_HW=np.ascontiguousarray(self.grey_HW[:, ::-1]),
            mask_HW=np.ascontiguousarray(self.mask_HW[:, ::-1]),
            bones_HW=np.ascontiguousarray(self.bones_HW[:, ::-1]),
            points={name: (width - 1 - x, y) for name, (x, y) in self.points.items()},
        )

    def resized(self, height: int) -> Sheet:
        """The same at another height, aspect kept."""
        factor = height / self.shape[0]
        width = max(1, round(self.shape[1] * factor))
        factor_x = width / self.shape[1]
        mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR

        def scaled(mask_HW: ByteArray) -> ByteArray:
            larger = cv2.resize(mask_HW, (width, height), interpolation=mode)
            return np.where(larger > 127, np.uint8(255), np.uint8(0))

        return Sheet(
            grey_HW=np.asarray(cv2.resize(self.grey_HW, (width, height), interpolation=mode), np.float32),
            mask_HW=scaled(self.mask_HW),
            bones_HW=scaled(self.bones_HW),
            points={
                name: ((x + 0.5) * factor_x - 0.5, (y + 0.5) * factor - 0.5) for name, (x, y) in self.points.items()
            },
        )

    def shown(self, grey_HW: FloatArray) -> Sheet:
        """The same place with other grey levels."""
        return replace(self, grey_HW=np.asarray(grey_HW, np.float32))
