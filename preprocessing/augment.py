"""Random changes to training images, driven by one strength."""

import os

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer release otherwise

import albumentations as A
import cv2


def augmentation(strength: float, seed: int) -> A.Compose | None:
    """Build the augmentation of one training run.

    The ends are the identity at 0 and, at 1, rotation by 20 degrees, shift by 10 %, zoom by 15 %, a mirrored hand
    every other time, a quarter of brightness and contrast, and a third of gamma.

    Args:
        strength: Within 0..1.
        seed: The same seed and order of images give the same changes.

    Returns:
        A transform ``(image=(H, W) uint8) -> {"image": (H, W) uint8}``, or None at strength 0.

    Raises:
        ValueError: The strength is out of range.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"Augmentation strength must lie within 0..1, got {strength}.")
    if strength == 0:
        return None
    cv2.setNumThreads(1)  # trials run side by side; OpenCV's own threads would fight over the cores
    gamma = 1 + 0.35 * strength
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5 * min(1.0, 2 * strength)),
            A.Affine(
                rotate=(-20 * strength, 20 * strength),
                translate_percent=(-0.1 * strength, 0.1 * strength),
                scale=(1 - 0.15 * strength, 1 + 0.15 * strength),
                border_mode=cv2.BORDER_CONSTANT,
                p=0.9,
            ),
            A.RandomBrightnessContrast(brightness_limit=0.25 * strength, contrast_limit=0.25 * strength, p=0.5),
            A.RandomGamma(gamma_limit=(100 / gamma, 100 * gamma), p=0.5),
        ],
        seed=seed,
    )


def apply(transform: A.Compose | None, images_BHW: np.ndarray) -> np.ndarray:
    """Change a batch image by image, ``(B, H, W)`` uint8 in and out."""
    if transform is None:
        return images_BHW
    return np.stack([transform(image=image)["image"] for image in images_BHW])
