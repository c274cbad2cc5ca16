"""GoogLeNet with a grey first layer, as Chen trains it beside VGG-16; the layers are torchvision's.

Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015; with batch normalisation and without the auxiliary
classifiers, as torchvision trains it.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d, GoogLeNet


class GreyGoogLeNet(GoogLeNet):
    """torchvision's network without classifier, for any number of channels."""

    unused_weights = ("aux1.", "aux2.", "fc.")
    """Beginnings of the names of published weights that have no place here."""

    def __init__(self, in_chans: int = 3, num_classes: int = 0, **unused: Any) -> None:
        super().__init__(aux_logits=False, init_weights=False)
        self.conv1 = BasicConv2d(in_chans, 64, kernel_size=7, stride=2, padding=3)
        self.fc = nn.Identity()  # type: ignore[assignment]
        self.num_features = self.head_hidden_size = 1024
        self.num_classes = num_classes

    def forward_features(self, x: Tensor) -> Tensor:
        """Last map, ``(B, 1024, h, w)`` at a 32nd of the picture's side."""
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        for block in (self.inception4a, self.inception4b, self.inception4c, self.inception4d, self.inception4e):
            x = block(x)
        return self.inception5b(self.inception5a(self.maxpool4(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean of the map, ``(B, 1024)``, with the paper's dropout (torchvision's 0.2)."""
        return self.dropout(torch.mean(x, dim=(2, 3)))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """``(B, 1024)`` of pictures ``(B, in_chans, H, W)``."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        "chen_googlenet.tv_in1k": {
            "url": "https://download.pytorch.org/models/googlenet-1378be20.pth",
            "first_conv": "conv1.conv",
            "classifier": "fc",
            # the published weights were trained on pictures scaled to -1..1
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "license": "bsd-3-clause",
        }
    }
)


@register_model
def chen_googlenet(pretrained: bool = False, **options: Any) -> GreyGoogLeNet:
    """5.6 million weights."""
    return build_model_with_cfg(GreyGoogLeNet, "chen_googlenet", pretrained, **options)
