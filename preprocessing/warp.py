"""Rotation, shift, zoom, shear and mirroring as one warp: on the host image by image, or batched on a device.

Both take the same map, so that they give the same picture to within a few grey levels at sharp edges: OpenCV places
its samples on a grid of 1/32 pixel, torch does not.

Shape letters: B batch, H height, W width.
"""

import math
import os
from dataclasses import dataclass

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer release otherwise

import albumentations.augmentations.geometric.functional as geometric
import cv2
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the hand goes: mirrored, sheared, zoomed and turned about the picture's centre, then shifted."""

    is_mirrored: bool = False
    rotation_deg: float = 0.0
    """Clockwise."""
    zoom: float = 1.0
    """Above 1 enlarges the hand."""
    shear_deg: float = 0.0
    shift_x: float = 0.0
    """To the right, as a share of the side."""
    shift_y: float = 0.0
    """Downwards, as a share of the side."""

    def sources(self) -> list[list[float]]:
        """The map from where a pixel lies to where its grey level comes from.

        Returns:
            2 × 3, row by row. Both ends are measured from the picture's centre in half sides, which is what torch's
            ``affine_grid`` wants without aligned corners, and is the same at every picture size.
        """
        turn, shear = math.radians(self.rotation_deg), math.tan(math.radians(self.shear_deg))
        cos, sin = math.cos(turn) / self.zoom, math.sin(turn) / self.zoom
        mirror = -1.0 if self.is_mirrored else 1.0
        xx, xy = mirror * (cos + shear * sin), mirror * (sin - shear * cos)
        yx, yy = -sin, cos
        dx, dy = 2 * self.shift_x, 2 * self.shift_y
        return [[xx, xy, -xx * dx - xy * dy], [yx, yy, -yx * dx - yy * dy]]


def warp_on_host(image_HW: np.ndarray, pose: Pose) -> np.ndarray:
    """Warp one square uint8 picture, bilinear; outside its edge the nearest pixel goes on."""
    side = image_HW.shape[0]
    centre = (side - 1) / 2
    (xx, xy, dx), (yx, yy, dy) = pose.sources()
    dx = dx * side / 2 + centre - (xx + xy) * centre
    dy = dy * side / 2 + centre - (yx + yy) * centre
    matrix = np.array([[xx, xy, dx], [yx, yy, dy]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return geometric.warp_affine_with_value_extension(image_HW, matrix, (side, side), flags, cv2.BORDER_REPLICATE, 0)


def warp_on_device(images_BHW: Tensor, poses: list[Pose]) -> Tensor:
    """Warp a batch where it lies, as `warp_on_host` does.

    Args:
        images_BHW: ``(B, S, S)`` uint8, on any device.
        poses: One a picture.

    Returns:
        ``(B, S, S)`` uint8 on the same device.
    """
    maps_B23 = torch.tensor([pose.sources() for pose in poses]).to(images_BHW.device, non_blocking=True)
    pictures_B1HW = images_BHW.unsqueeze(1).float()
    grid = torch.nn.functional.affine_grid(maps_B23, list(pictures_B1HW.shape), align_corners=False)
    warped = torch.nn.functional.grid_sample(pictures_B1HW, grid, padding_mode="border", align_corners=False)
    return warped.squeeze(1).round_().to(torch.uint8)
