"""Residual VGG: a VGG-16 with a shortcut inside each stage.

Source: Nguyen and Kim, arXiv 1901.10237: "a modified VGGNet with residual connections between layers", which on
whole-body X-rays learnt better than VGG. Where the shortcuts lie is our choice: the activation of a stage's first
convolution is added to its last convolution, before the last ReLU and the pool. A shortcut joins equal channels and
has no weights, so that the weights of VGG-16 with batch normalisation load unchanged.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor

from search.models.vgg import Vgg, published

FIRST = 3
"""Layers of a stage's first convolution: itself, its normalisation, its ReLU."""


class ResidualVgg(Vgg):
    """`Vgg` with batch normalisation and shortcuts; same arguments, but for ``normalised``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(normalised=True, **options)

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Run one stage with its shortcut, its pool excluded."""
        layers = self.features[self.stages[number]]
        first = layers[:FIRST](x)
        # the ReLU at the end works in place, on the sum
        return layers[-1](layers[FIRST:-1](first) + first)


default_cfgs = generate_default_cfgs(
    {
        "residual_vgg16.tv_in1k": published("vgg16_bn.tv_in1k"),
        "slim_residual_vgg16": {"first_conv": "features.0"},
    }
)


@register_model
def residual_vgg16(pretrained: bool = False, **options: Any) -> ResidualVgg:
    """Full width, 14.7 million weights."""
    return build_model_with_cfg(ResidualVgg, "residual_vgg16", pretrained, **options)


@register_model
def slim_residual_vgg16(pretrained: bool = False, **options: Any) -> ResidualVgg:
    """A quarter of the channels, 0.9 million weights: for a CPU and few cases."""
    return build_model_with_cfg(ResidualVgg, "slim_residual_vgg16", pretrained, **{"width": 0.25, **options})
