"""Our own networks, one short module each; importing this package makes timm know their names.

A network is a timm model: ``forward_features`` gives its last map ``(B, C, h, w)``, ``forward_head(maps,
pre_logits=True)`` pools it to ``(B, head_hidden_size)``. Two more members are read where a network has them: ``trunk``,
the part that pretrained weights fill and that can be frozen; and ``features_and_loss(maps, sex, z)``, for what it
learns by itself beside the age.

A network of a user's own is registered with timm by any module; `OWN` names it to whoever loads such a network later.
"""

import importlib
import os

import timm

import search.models.attention_vgg
import search.models.googlenet
import search.models.memon_cuomo
import search.models.prs_r
import search.models.residual_vgg
import search.models.slim_resnet
import search.models.vgg  # noqa: F401

OWN = "CARPAL_MODELS"
"""Environment variable with the modules, separated by commas, that register models of a user's own. A bundle never
names code to be run, so the one who serves it does."""


def is_known(network: str) -> bool:
    """Whether timm knows a network, by its name with or without a tag, once `OWN` is imported if need be.

    Raises:
        ValueError: A module that `OWN` names cannot be imported.
    """
    name = network.partition(".")[0]
    if not timm.is_model(name):
        import_own()
    return timm.is_model(name)


def import_own() -> None:
    """Import the modules that `OWN` names.

    Raises:
        ValueError: One of them cannot be imported.
    """
    for name in filter(None, (name.strip() for name in os.environ.get(OWN, "").split(","))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"{OWN} must name modules that can be imported, and {name!r} cannot: {error}.") from None
