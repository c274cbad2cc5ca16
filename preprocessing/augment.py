"""Random changes to training images, driven by one strength; strength.py says how far each goes.

What happens to a case depends on (seed, case, epoch) alone: not on the batch it comes in, the order, or who computes
it. One Philox counter stands for each such triple, and a change is always drawn from the same number of uniforms, so a
stronger setting is the same change, further. albumentations does the arithmetic, but not the drawing: its `Compose`
keeps streams of its own, which would have to be re-seeded for every picture, and cannot hand its pose to a device.

Shape letters: B batch, H height, W width.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # as in warp.py

import albumentations.augmentations.pixel.functional as pixelwise
import cv2
import numpy as np
import torch

from preprocessing.artefacts import TEXTS, Border, Marker
from preprocessing.strength import Limits, limits
from preprocessing.warp import Pose, warp_on_device, warp_on_host

_NUM_UNIFORMS = 40


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to one case in one epoch."""

    pose: Pose
    tones: np.ndarray
    """``(256,)`` uint8: the new grey level of each, from gamma, contrast and brightness."""
    has_clahe: bool
    is_sharpened: bool
    blur_side: float
    """Standard deviation of a Gaussian as a share of the side; 0 leaves the picture sharp."""
    noise_sd: float
    """Share of the grey level: quantum noise is strongest where bone lets few photons through."""
    noise_seed: tuple[int, int, int]
    marker: Marker | None
    border: Border | None
    is_inverted: bool

    def paint(self, image_HW: np.ndarray) -> np.ndarray:
        """Change grey levels and add artefacts, before the pose changes; ``(S, S)`` uint8 in and out."""
        if self.has_clahe:
            image_HW = pixelwise.clahe(image_HW, 3.0, (8, 8))
        image_HW = cv2.LUT(image_HW, self.tones)
        if self.blur_side:
            image_HW = cv2.GaussianBlur(image_HW, (0, 0), self.blur_side * image_HW.shape[0])
        elif self.is_sharpened:
            soft_HW = cv2.GaussianBlur(image_HW, (0, 0), 0.006 * image_HW.shape[0])
            image_HW = cv2.addWeighted(image_HW, 1.5, soft_HW, -0.5, 0)
        for artefact in (self.marker, self.border):
            if artefact:
                artefact.draw(image_HW)
        if self.is_inverted:
            image_HW = pixelwise.invert(image_HW)
        if self.noise_sd:
            random_HW = np.frombuffer(_generator(self.noise_seed, 1).bytes(image_HW.size), np.uint8)
            factor_HW = cv2.LUT(random_HW.reshape(image_HW.shape), 1 + np.float32(self.noise_sd) * _NORMAL)
            image_HW = cv2.multiply(image_HW, factor_HW, dtype=cv2.CV_8U)
        return image_HW


def draw_change(limits: Limits, seed: int, case: int, epoch: int) -> Change:
    """Draw what happens to a case in an epoch; the same four arguments give the same change anywhere."""
    uniforms = iter(_generator((seed, case, epoch), 0).random(_NUM_UNIFORMS).tolist())

    def happens(probability: float) -> bool:
        return next(uniforms) < probability

    def both_ways(limit: float) -> float:
        return limit * (2 * next(uniforms) - 1)

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(uniforms)

    pose = Pose(
        is_mirrored=happens(limits.mirrored),
        rotation_deg=both_ways(limits.rotation_deg),
        zoom=limits.zoom ** both_ways(1),
        shear_deg=both_ways(limits.shear_deg),
        shift_x=both_ways(limits.shift),
        shift_y=both_ways(limits.shift),
    )
    tones = _tones(limits.gamma ** both_ways(1), 1 + both_ways(limits.contrast), both_ways(limits.brightness))
    has_clahe, is_sharpened, is_inverted = (
        happens(limits.clahe),
        happens(limits.sharpened),
        happens(limits.inverted),
    )
    is_blurred, blur_side = happens(limits.blurred), between(0.3, 1) * limits.blur_side
    is_noisy, noise_sd = happens(limits.noisy), between(0.2, 1) * limits.noise_sd
    is_marked, is_plate = happens(limits.marked), happens(0.3)
    text = TEXTS[int(between(0, len(TEXTS)))]
    marker = Marker(
        text=text,
        places=tuple(_edge_place(next(uniforms), next(uniforms)) for _ in range(3)),
        height=between(0.05, 0.09) * (0.6 if is_plate or len(text) > 2 else 1),
        level=int(between(170, 256)),
        is_plate=is_plate,
        font=int(between(0, 3)),
    )
    is_bordered, is_white, is_turned = happens(limits.bordered), happens(0.4), happens(0.5)
    top, right, bottom, left = (max(0.0, between(-0.5, 1)) * limits.border_side for _ in range(4))
    border = Border(
        margins=(top, right, bottom, left),
        rotation_deg=both_ways(4) * is_turned,
        level=int(between(225, 256) if is_white else between(0, 25)),
    )
    return Change(
        pose=pose,
        tones=tones,
        has_clahe=has_clahe,
        is_sharpened=is_sharpened,
        blur_side=blur_side * is_blurred,
        noise_sd=noise_sd * is_noisy,
        noise_seed=(seed, case, epoch),
        marker=marker if is_marked else None,
        border=border if is_bordered else None,
        is_inverted=is_inverted,
    )


class Augmentation:
    """Changes batches of training images and puts them on the training device."""

    def __init__(self, strength: float, seed: int, device: str = "cpu", warp_on: str = "auto") -> None:
        """Set it up for one training run.

        Args:
            strength: Within 0..1; 0 changes nothing.
            seed: 0 or more.
            device: Where the batches shall lie.
            warp_on: ``host`` warps image by image with OpenCV, ``device`` the whole batch with torch, ``auto`` on the
                device unless that is the CPU, where OpenCV is faster.

        Raises:
            ValueError: The strength is out of range.
        """
        cv2.setNumThreads(1)  # trials run side by side; OpenCV's own threads would fight over the cores
        self._limits = limits(strength) if strength else None
        self._seed, self._device = seed, device
        self._is_on_device = warp_on == "device" or (warp_on == "auto" and device != "cpu")

    def __call__(self, images_BHW: np.ndarray, cases_B: Sequence[int] | np.ndarray, epoch: int) -> torch.Tensor:
        """Change a batch.

        Args:
            images_BHW: ``(B, S, S)`` uint8; left as it is.
            cases_B: Row of each in the cohort.
            epoch: Which pass over the training cases it is.

        Returns:
            ``(B, S, S)`` uint8 on the device.
        """
        painted_BHW, poses = self.paint(images_BHW, cases_B, epoch)
        return self.place(torch.from_numpy(painted_BHW).to(self._device), poses)

    def paint(
        self, images_BHW: np.ndarray, cases_B: Sequence[int] | np.ndarray, epoch: int
    ) -> tuple[np.ndarray, list[Pose]]:
        """The part of a batch's change that the host makes, so that a thread can make it ahead of time.

        Args:
            images_BHW: As for a call.
            cases_B: As for a call.
            epoch: As for a call.

        Returns:
            ``(B, S, S)`` uint8, and the poses that are left to `place`.
        """
        if self._limits is None:
            return images_BHW, []
        changes = [draw_change(self._limits, self._seed, int(case), epoch) for case in cases_B]
        painted = [change.paint(image_HW) for change, image_HW in zip(changes, images_BHW, strict=True)]
        if self._is_on_device:
            return np.stack(painted), [change.pose for change in changes]
        warped = [warp_on_host(image_HW, change.pose) for change, image_HW in zip(changes, painted, strict=True)]
        return np.stack(warped), []

    def place(self, images_BHW: torch.Tensor, poses: list[Pose]) -> torch.Tensor:
        """What is left of it on the device: ``(B, S, S)`` uint8 that `paint` made, and its poses."""
        return warp_on_device(images_BHW, poses) if poses else images_BHW


def _generator(key: tuple[int, int, int], stream: int) -> np.random.Generator:
    """The random numbers of one (seed, case, epoch); Philox makes any of them without those before."""
    seed, case, epoch = key
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, stream, case, epoch]))


_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)
"""A normal deviate for each value of a random byte: fifteen times as fast as drawing it, and 256 levels suffice."""
_LEVELS = np.linspace(0, 1, 256, dtype=np.float32)


def _tones(gamma: float, contrast: float, brightness: float) -> np.ndarray:
    """Table of 256 grey levels; contrast stretches about black, so that the background stays black."""
    tones = _LEVELS ** np.float32(gamma)
    tones *= np.float32(255 * contrast)
    tones += np.float32(255 * brightness + 0.5)
    return np.clip(tones, 0, 255, out=tones).astype(np.uint8)


def _edge_place(along: float, depth: float) -> tuple[float, float]:
    """A point in the picture's outer band; `along` runs once around it."""
    inset = 0.06 + 0.12 * depth
    side, along = divmod(4 * along, 1)
    along = inset + (1 - 2 * inset) * along
    return {0: (along, inset), 1: (1 - inset, along), 2: (along, 1 - inset), 3: (inset, along)}[int(side)]
