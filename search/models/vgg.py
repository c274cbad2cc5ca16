"""VGG-16 without its dense layers: Chen's network, and the trunk of the residual and the attention VGG.

Sources: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015. Chen
fine-tunes it, or keeps it frozen, with a grey first layer that is made from the RGB weights. His dense layers are
described nowhere that we know of; here the last map is averaged, which works at any size and saves 120 of 135 million
weights. Layers bear the names of torchvision and timm (``features.0`` ...), so that their weights load unchanged.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 3 x 3 convolutions between max pools."""


def stage_layers(channels: tuple[int, ...], num_inputs: int, normalised: bool) -> list[nn.Module]:
    """Convolutions of one stage, each with batch normalisation where wanted and a ReLU; no pool."""
    layers: list[nn.Module] = []
    for num_outputs in channels:
        convolution = nn.Conv2d(num_inputs, num_outputs, 3, padding=1)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        layers += [convolution, *([nn.BatchNorm2d(num_outputs)] if normalised else []), nn.ReLU(inplace=True)]
        num_inputs = num_outputs
    return layers


class Vgg(nn.Module):
    """Five stages of convolutions and the mean of the last map.

    Args:
        in_chans: Channels of the picture.
        num_classes: 0; the age's head is not part of it.
        normalised: Batch normalisation after each convolution.
        width: Factor on all channels.
    """

    unused_weights = ("pre_logits.", "classifier.", "head.")
    """Beginnings of the names of published weights that have no place here."""

    def __init__(
        self, in_chans: int = 3, num_classes: int = 0, normalised: bool = False, width: float = 1.0, **unused: Any
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.stages: list[slice] = []
        """Where each stage's layers are, its pool excluded."""
        num_inputs = in_chans
        for stage in STAGES:
            channels = tuple(round(count * width) for count in stage)
            added = stage_layers(channels, num_inputs, normalised)
            self.stages.append(slice(len(layers), len(layers) + len(added)))
            layers += [*added, nn.MaxPool2d(2)]
            num_inputs = channels[-1]
        self.features = nn.Sequential(*layers)
        self.num_features = self.head_hidden_size = num_inputs
        self.num_classes = num_classes

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Run one stage, its pool excluded."""
        return self.features[self.stages[number]](x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Last map, ``(B, C, h, w)`` at a 32nd of the picture's side."""
        for number, layers in enumerate(self.stages):
            x = self.features[layers.stop](self.stage(number, x))
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean of the map, ``(B, C)``."""
        return torch.mean(x, dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C)`` of pictures ``(B, in_chans, H, W)``."""
        return self.forward_head(self.forward_features(x))


def published(hub_name: str) -> dict[str, Any]:
    """Where timm finds RGB weights for a VGG of ours, and which layer reads the colours."""
    return {"hf_hub_id": f"timm/{hub_name}", "first_conv": "features.0", "license": "bsd-3-clause"}


default_cfgs = generate_default_cfgs({"chen_vgg16.tv_in1k": published("vgg16.tv_in1k")})


@register_model
def chen_vgg16(pretrained: bool = False, **options: Any) -> Vgg:
    """The convolutions of VGG-16, 14.7 million weights."""
    return build_model_with_cfg(Vgg, "chen_vgg16", pretrained, **options)
