"""The network of Memon and Cuomo: four convolutions.

Described: hands equalised by CLAHE and cut out by a U-Net, then four convolutional layers that regress the bone age
(their mean absolute difference is 46 months). Not described, and chosen here: 3 x 3 kernels, 32 to 256 channels, ReLU
and a 2 x 2 max pool after each, and the mean of the last map in place of dense layers, so that it takes any size. No
normalisation, as in small networks of that kind.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from search.models.vgg import stage_layers

CHANNELS = (32, 64, 128, 256)


class FourConvolutions(nn.Module):
    """Four times convolution, ReLU and max pool; then the mean of the map."""

    def __init__(self, in_chans: int = 3, num_classes: int = 0, **unused: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for num_inputs, num_outputs in zip((in_chans, *CHANNELS), CHANNELS, strict=False):
            layers += [*stage_layers((num_outputs,), num_inputs, False), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.num_features = self.head_hidden_size = CHANNELS[-1]
        self.num_classes = num_classes

    def forward_features(self, x: Tensor) -> Tensor:
        """Last map, ``(B, 256, h, w)`` at a 16th of the picture's side."""
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean of the map, ``(B, 256)``."""
        return torch.mean(x, dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 256)`` of pictures ``(B, in_chans, H, W)``."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs({"memon_cuomo": {"first_conv": "features.0"}})


@register_model
def memon_cuomo(pretrained: bool = False, **options: Any) -> FourConvolutions:
    """0.4 million weights."""
    return build_model_with_cfg(FourConvolutions, "memon_cuomo", pretrained, **options)
