"""Trainable attention on a VGG-16 with batch normalisation.

Source: Jetley et al., "Learn to pay attention", ICLR 2018, written anew from the paper. Three layers give local
features l_i; a global feature g scores each of them by <u, l_i + g>, u learnt; a softmax over the positions weighs
them. What comes after sees the three weighted sums alone, not g: all it knows passed through the attention.

Our choices for radiographs: the layers lie after the pools of stages 3, 4 and 5, at an 8th, 16th and 32nd of the
picture's side; g is two more convolutions on the last of them, its mean and a dense layer.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from search.models.vgg import Vgg, published, stage_layers

LAYERS = 3


class AttentionVgg(nn.Module):
    """The network; its map is the three local layers, one above the other at the resolution of the finest.

    A coarse layer is repeated to the finest grid. Repeating changes neither its softmax-weighted sum nor its mean, as
    long as the sides divide, and makes one map of everything that the head reads.
    """

    def __init__(self, trunk: Vgg) -> None:
        super().__init__()
        self.trunk = trunk
        self.pretrained_cfg = trunk.pretrained_cfg
        channels = trunk.num_features
        sources = [trunk.features[layers.stop - 2].num_features for layers in trunk.stages[-LAYERS:]]
        self.project = nn.ModuleList(nn.Conv2d(source, channels, 1) for source in sources)
        self.deepen = nn.Sequential(*stage_layers((channels, channels), channels, True))
        self.dense = nn.Linear(channels, channels)
        self.score = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in range(LAYERS))
        self.num_features = self.head_hidden_size = LAYERS * channels
        self.num_classes = 0

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, 3 C, h, w)`` at an 8th of the picture's side: the three layers, projected to the same C."""
        locals_: list[Tensor] = []
        for number, layers in enumerate(self.trunk.stages):
            x = self.trunk.features[layers.stop](self.trunk.stage(number, x))
            if number >= len(self.trunk.stages) - LAYERS:
                locals_.append(self.project[len(locals_)](x))
        return torch.cat([functional.interpolate(layer, size=locals_[0].shape[2:]) for layer in locals_], dim=1)

    def attention(self, maps: Tensor) -> Tensor:
        """Where it looks: ``(B, 3, h, w)``, each layer's weights summing to 1, of what `forward_features` gives."""
        layers = maps.chunk(LAYERS, dim=1)
        side = (max(1, maps.shape[2] // 4), max(1, maps.shape[3] // 4))
        coarse = functional.adaptive_avg_pool2d(layers[-1], side)
        g = self.dense(self.deepen(coarse).mean(dim=(2, 3)))[:, :, None, None]
        scores = torch.cat([score(layer + g) for score, layer in zip(self.score, layers, strict=True)], dim=1)
        return scores.flatten(2).softmax(dim=2).view_as(scores)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The three weighted sums, ``(B, 3 C)``."""
        weights = self.attention(x).unsqueeze(2)
        layers = torch.stack(x.chunk(LAYERS, dim=1), dim=1)
        return (layers * weights).sum(dim=(3, 4)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3 C)`` of pictures ``(B, in_chans, H, W)``."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        "attention_vgg16.tv_in1k": published("vgg16_bn.tv_in1k"),
        "slim_attention_vgg16": {"first_conv": "features.0"},
    }
)


@register_model
def attention_vgg16(pretrained: bool = False, **options: Any) -> AttentionVgg:
    """Full width, 20.4 million weights."""
    return AttentionVgg(build_model_with_cfg(Vgg, "attention_vgg16", pretrained, **{"normalised": True, **options}))


@register_model
def slim_attention_vgg16(pretrained: bool = False, **options: Any) -> AttentionVgg:
    """A quarter of the channels, 1.3 million weights: for a CPU and few cases."""
    settings = {"normalised": True, "width": 0.25, **options}
    return AttentionVgg(build_model_with_cfg(Vgg, "slim_attention_vgg16", pretrained, **settings))
