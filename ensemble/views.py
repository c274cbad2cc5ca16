"""Test-time views: the same radiograph turned, mirrored or cropped a little, each answered, the answers averaged.

A view costs as much as the picture itself, so that a bundle has only those that were seen to help it.

Shape letters: B batch, H height, W width.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IDENTITY = "identity"
CROP_SIDE = 7 / 8
"""Side of a crop, as a share of the picture's."""
_CORNERS = {
    "crop_top_left": (-1, -1),
    "crop_top_right": (1, -1),
    "crop_bottom_left": (-1, 1),
    "crop_bottom_right": (1, 1),
    "crop_centre": (0, 0),
}
_TURNS = {"rotate_left_10": 10.0, "rotate_left_5": 5.0, "rotate_right_5": -5.0, "rotate_right_10": -10.0}
GROUPS: dict[str, tuple[str, ...]] = {
    "flip": ("flip",),
    "crops": tuple(_CORNERS),
    "rotations": tuple(_TURNS),
}
"""Views that are tried together: the mirror image; the corners and the middle, which with the whole picture make six
(after Chen, who averaged six crops); turns by 5 and 10 degrees, as Deeplasia averaged."""
VIEWS = (IDENTITY, *(view for views in GROUPS.values() for view in views))
"""All that this release makes."""


def see(images_BHW: "Tensor", view: str) -> "Tensor":
    """Pictures as a view shows them.

    Args:
        images_BHW: ``(B, H, W)`` uint8 grey levels, 0 around the hand.
        view: One of `VIEWS`.

    Returns:
        ``(B, H, W)`` uint8; what lies outside of the picture is black. The identity gives the pictures themselves.

    Raises:
        ValueError: There is no such view.
    """
    if view == IDENTITY:
        return images_BHW
    if view == "flip":
        return images_BHW.flip(2)
    import torch

    return _sampled(images_BHW.float(), _affine(view)).round().clamp(0, 255).to(torch.uint8)


def put_back(maps_BHW: "Tensor", view: str) -> "Tensor":
    """Maps of what a view shows, at their places in the picture itself; the opposite of `see`.

    Args:
        maps_BHW: ``(B, H, W)`` float amounts by area.
        view: One of `VIEWS`.

    Returns:
        ``(B, H, W)`` float; 0 where the view does not reach. A crop's map is denser in the picture than in the crop:
        its total stays.

    Raises:
        ValueError: There is no such view.
    """
    if view == IDENTITY:
        return maps_BHW
    if view == "flip":
        return maps_BHW.flip(2)
    (a, b, x), (c, d, y) = _affine(view)
    area = a * d - b * c
    back = (d / area, -b / area, (b * y - d * x) / area), (-c / area, a / area, (c * x - a * y) / area)
    return _sampled(maps_BHW.float(), back) / area


def _affine(view: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Where each place of a view lies in the picture, in torch's coordinates of -1..1."""
    if view in _CORNERS:
        across, down = _CORNERS[view]
        rest = 1 - CROP_SIDE  # from the middle to the middle of a crop that touches the border
        return (CROP_SIDE, 0.0, across * rest), (0.0, CROP_SIDE, down * rest)
    if view in _TURNS:
        cosine, sine = math.cos(math.radians(_TURNS[view])), math.sin(math.radians(_TURNS[view]))
        return (cosine, -sine, 0.0), (sine, cosine, 0.0)
    raise ValueError(f"A view must be one of {', '.join(VIEWS)}, got {view!r}.")


def _sampled(images_BHW: "Tensor", affine: tuple[tuple[float, ...], ...]) -> "Tensor":
    """Bilinear samples, float, where `affine` maps each place of the result."""
    import torch
    from torch.nn import functional

    matrix_B23 = torch.tensor(affine, device=images_BHW.device).expand(len(images_BHW), 2, 3)
    grid = functional.affine_grid(matrix_B23, [len(images_BHW), 1, *images_BHW.shape[1:]], align_corners=False)
    return functional.grid_sample(images_BHW[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0]
