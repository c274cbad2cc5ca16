"""The hand segmenter: a small U-Net that says for every pixel whether it shows the hand, and which part of it.

Beside the mask it predicts two *hand coordinates* a pixel, in a frame that lies in the hand: the origin in the wrist,
one unit from there to the tip of the middle finger, u growing towards the thumb and v towards the fingers. A
similarity fitted to them gives position, size, rotation and side of the hand at once, and how badly it fits tells what
is no hand. Dense coordinates for pose: Taylor et al., The Vitruvian Manifold, CVPR 2012. U-Net: Ronneberger et al.,
MICCAI 2015.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.fx.experimental.optimization import fuse

from preprocessing.recipe import SHIPPED
from preprocessing.storage import sha256_file

SIDE = 192
"""Height and width that the network sees, in pixels."""
FORMAT = "carpal-segmenter-1"

_MASK, _COORDINATES = 0, slice(1, 3)
_HAND, _INVERTED = 0, 1


class SegmenterError(ValueError):
    """The weights are missing, damaged or of another network."""


@dataclass(frozen=True)
class Maps:
    """What the network says about one picture of `SIDE` x `SIDE` pixels."""

    mask_HW: np.ndarray
    """float32 probability that the pixel shows hand or forearm."""
    coordinates_HW2: np.ndarray
    """float32 (u, v) in lengths of the hand; meaningful where the mask is."""
    hand: float
    """Probability that the picture is a radiograph of a hand."""
    inverted: float
    """Probability that bone is darker than its surroundings."""


def build() -> nn.Module:
    """The untrained network: 1.5 million weights, ``(B, 1, S, S)`` float32 to ``((B, 3, S, S), (B, 2))``."""
    network: nn.Module = smp.Unet(
        "tu-resnet10t",
        encoder_weights=None,
        in_channels=1,
        classes=3,
        decoder_channels=(96, 64, 48, 24, 16),
        aux_params={"classes": 2, "pooling": "avg"},
        channels=(32, 64, 128, 192),
        stem_width=16,
    )
    return network


def network_input(square_BHW: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Turn pictures with levels of 0..255 into what the network reads: ``(B, 1, H, W)`` float32 about 0."""
    pixels = torch.as_tensor(square_BHW)[:, None].to(torch.float32)
    return (pixels - 96.0) / 64.0


class Segmenter:
    """The network, ready to be asked. Safe to share between threads."""

    def __init__(self, weights: Path = SHIPPED) -> None:
        """Load weights.

        Args:
            weights: A file that `save` wrote.

        Raises:
            SegmenterError: The file is missing or holds something else.
        """
        # Normalisations folded into convolutions, channels innermost: the same sums in 0.6 of the time on a CPU.
        self._network = fuse(load_network(weights)).to(memory_format=torch.channels_last)
        self.sha256 = sha256_file(weights)

    def __call__(self, square_HW: np.ndarray) -> Maps:
        """Ask about one picture.

        One picture at a time on purpose: the arithmetic of a batch may differ in the last bits from that of a single
        picture, and training and serving must see the same pixels.

        Args:
            square_HW: ``(SIDE, SIDE)``, as `stretch` returns it.
        """
        with torch.inference_mode():
            pixels = network_input(square_HW[None]).contiguous(memory_format=torch.channels_last)
            maps, scores = self._network(pixels)
        hand, inverted = torch.sigmoid(scores[0]).tolist()
        return Maps(
            torch.sigmoid(maps[0, _MASK]).numpy(),
            maps[0, _COORDINATES].permute(1, 2, 0).numpy(),
            hand,
            inverted,
        )


def stretch(image_HW: np.ndarray) -> np.ndarray:
    """Spread the grey levels of a picture between its 0.5 and 99.5 percentile over 0..255, as the network expects.

    They are not rounded: copies of a picture at another depth would then differ by whole levels here and there, and the
    hand would lie elsewhere by enough to show.

    Args:
        image_HW: ``(H, W)``, any depth; a constant picture becomes 0.

    Returns:
        ``(H, W)`` float32.
    """
    low, high = np.percentile(image_HW[::2, ::2], (0.5, 99.5))
    if high <= low:
        low, high = float(image_HW.min()), float(image_HW.max())
    scale = 255 / max(high - low, 1e-6)
    levels = (image_HW.astype(np.float32) - np.float32(low)) * np.float32(scale)
    return np.clip(levels, 0, 255)


def stretched(image_HW: np.ndarray) -> np.ndarray:
    """As `stretch`, rounded to uint8: to be looked at or kept."""
    return np.rint(stretch(image_HW)).astype(np.uint8)


def letterbox(image_HW: np.ndarray, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Fit a picture into the middle of a black square.

    Args:
        image_HW: ``(H, W)``, any depth.
        side: Of the square, in pixels.

    Returns:
        ``(side, side)`` float32 levels, padded with the picture's smallest; ``(2, 3)`` float64 affine matrix from
        pixels of the picture to pixels of the square.
    """
    height, width = image_HW.shape
    scale = side / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image_HW.astype(np.float32), (columns, rows), interpolation=interpolation)
    top, left = (side - rows) // 2, (side - columns) // 2
    square = np.full((side, side), small.min(), np.float32)
    square[top : top + rows, left : left + columns] = small
    # Pixel centres lie at whole numbers, so that scaling moves them by half a pixel.
    x, y = columns / width, rows / height
    return square, np.array([[x, 0, left + 0.5 * x - 0.5], [0, y, top + 0.5 * y - 0.5]])


def save(network: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write weights as half-precision safetensors.

    Args:
        network: From `build`.
        path: Of the new file.
        about: How they were made; JSON, kept in the file's header.
    """
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), {"format": FORMAT, "about": json.dumps(about, sort_keys=True)})


def load_network(path: Path) -> nn.Module:
    """The network with the weights that `save` wrote, in eval mode.

    Raises:
        SegmenterError: The file is missing or holds something else, or a number that is none.
    """
    try:
        with safe_open(str(path), "pt") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise SegmenterError(f"{path} holds no segmenter of format {FORMAT}. Name a file of train-segmenter.")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise SegmenterError(f"The segmenter's weights {path} cannot be read ({error}). Restore the file.") from None
    network = build().eval()
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        raise SegmenterError(f"{path} belongs to another network ({str(error)[:200]}). Train it again.") from None
    if spoilt := [name for name, value in network.state_dict().items() if not value.isfinite().all()]:
        raise SegmenterError(f"{path} must hold finite numbers, and {spoilt[0]} does not. Restore the file.")
    return network
