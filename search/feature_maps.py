"""The last feature map of any timm network, and the features of a picture that are pooled from it.

Most networks end in a map, which their own head pools. Transformers end in tokens: the mean of their patches is taken,
and the class token left out. Some end in several branches, in a class token alone, or in tokens that lie in an order of
their own; of these timm's ``forward_intermediates`` gives the last map, which is pooled by its mean.

Shape letters: B batch, H height, W width, C channels, h and w sides of the last map, L tokens, F features.
"""

from typing import Any

from timm.models.levit import Levit
from timm.models.mlp_mixer import MlpMixer
from torch import Tensor, nn

BY_INTERMEDIATES = {
    *("CoaT", "CrossVit", "EfficientFormer", "EfficientViM", "PoolingVisionTransformer", "Twins"),
    "VOLO",  # its class token is joined to the patches after the last stage
}
"""Classes of timm, by name since older releases lack some: what they end in is no map of the picture."""
UNORDERED = "Hiera"
"""Ends in tokens that are out of order, and normalises them after pooling."""


def num_features(backbone: Any) -> int:
    """How many features `pooled` gives of this network."""
    if _is_any_of(backbone, BY_INTERMEDIATES):
        return int(backbone.feature_info[-1]["num_chs"])
    return int(getattr(backbone, "head_hidden_size", backbone.num_features))


def last_map(backbone: Any, image_BCHW: Tensor) -> Tensor:
    """The last feature map, ``(B, C, h, w)``; of a transformer these are its patches."""
    if (is_unordered := _is_any_of(backbone, {UNORDERED})) or _is_any_of(backbone, BY_INTERMEDIATES):
        options = {"indices": 1, "norm": not is_unordered, "intermediates_only": True}
        (maps,) = backbone.forward_intermediates(image_BCHW, **options)
        return maps
    maps = backbone.forward_features(image_BCHW)
    if maps.ndim == 3:
        patches_BLC = maps[:, getattr(backbone, "num_prefix_tokens", 0) :]
        height = max(1, round((patches_BLC.shape[1] * image_BCHW.shape[2] / image_BCHW.shape[3]) ** 0.5))
        return patches_BLC.transpose(1, 2).unflatten(2, (height, -1))
    return maps.permute(0, 3, 1, 2) if _is_channels_last(backbone) else maps


def pooled(backbone: Any, maps_BChw: Tensor) -> Tensor:
    """Image features, ``(B, F)``, of what `last_map` gave."""
    if _is_any_of(backbone, BY_INTERMEDIATES):
        return maps_BChw.mean(dim=(2, 3))
    if _is_any_of(backbone, {UNORDERED}):
        return backbone.forward_head(maps_BChw.flatten(2).transpose(1, 2), pre_logits=True)
    if hasattr(backbone, "num_prefix_tokens") or isinstance(backbone, Levit | MlpMixer):
        return getattr(backbone, "fc_norm", nn.Identity())(maps_BChw.mean(dim=(2, 3)))
    return backbone.forward_head(
        maps_BChw.permute(0, 2, 3, 1) if _is_channels_last(backbone) else maps_BChw, pre_logits=True
    )


def _is_channels_last(backbone: Any) -> bool:
    return getattr(backbone, "output_fmt", "NCHW") == "NHWC"


def _is_any_of(backbone: Any, names: set[str]) -> bool:
    return any(each.__name__ in names for each in type(backbone).__mro__)
