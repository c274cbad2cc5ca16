"""Narrow residual networks, for few cases and small pictures.

Bone age at 96 pixels is learnt from hundreds to thousands of cases, where a quarter of ResNet's channels learns as well
per epoch and four times as fast per second. The blocks are timm's; He et al., "Deep residual learning for image
recognition", CVPR 2016, with the stem and the down-sampling of He et al., "Bag of tricks", CVPR 2019.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet

default_cfgs = generate_default_cfgs(
    {name: {"first_conv": "conv1.0", "classifier": "fc"} for name in ("slim_resnet10", "slim_resnet18")}
)


def _slim(name: str, layers: tuple[int, ...], pretrained: bool, **options: Any) -> ResNet:
    fixed = {"channels": (32, 64, 128, 256), "stem_width": 16, "stem_type": "deep", "avg_down": True}
    settings = {"block": BasicBlock, "layers": layers, **fixed, **options}
    return build_model_with_cfg(ResNet, name, pretrained, **settings)


@register_model
def slim_resnet10(pretrained: bool = False, **options: Any) -> ResNet:
    """One block a stage, 32 to 256 channels, 1.2 million weights."""
    return _slim("slim_resnet10", (1, 1, 1, 1), pretrained, **options)


@register_model
def slim_resnet18(pretrained: bool = False, **options: Any) -> ResNet:
    """Two blocks a stage, 32 to 256 channels, 2.8 million weights."""
    return _slim("slim_resnet18", (2, 2, 2, 2), pretrained, **options)
