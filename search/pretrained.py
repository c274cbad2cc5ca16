"""The network of a configuration, with random weights, timm's, or those of a local file.

Pretrained networks read colours and end in a classifier. The first layer's weights are summed over the colours, which
gives a grey picture the answer that its three equal channels had; the classifier's are left out.
"""

import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from timm.models import adapt_input_conv, load_state_dict
from torch import Tensor, nn

from preprocessing.storage import StorageError, as_path
from search.models import OWN, is_known  # makes timm know our own networks
from search.space import TrialConfig
from search.weights import WeightsError, file_names, network_of

CLASSIFIERS = ("fc.", "head.fc.", "head.weight", "head.bias", "head_dist.", "classifier.", "last_linear.")
"""Beginnings of the names of a classifier's weights in published files."""


def make_backbone(config: TrialConfig, *, fetch: bool = True) -> Any:
    """Make the network of a configuration: one grey channel, no classifier.

    Args:
        config: Names the network and where its weights come from.
        fetch: Whether to fetch pretrained weights; not needed where trained ones follow.

    Returns:
        An `nn.Module` with timm's further members, which no type describes.

    Raises:
        ValueError: timm has no model of that name, its weights cannot be had, or a file does not fit.
    """
    name, network, options = config.backbone, network_of(config.backbone), dict[str, Any](in_chans=1, num_classes=0)
    if network != name:
        name = name.partition(":")[0]
        options |= {"parts": config.parts, "of": network}
    if not is_known(network):
        raise ValueError(
            f"backbone must be the name of a timm model, got {config.backbone!r}: it knows none like it. "
            f"Where a module of your own registers it, name that module in the environment variable {OWN}."
        )
    from_hub = fetch and config.pretrained == "hub"
    try:
        if _has_fixed_size(network):
            options |= {"img_size": config.image_size} if config.image_size else {"dynamic_img_size": True}
        backbone = timm.create_model(name, pretrained=from_hub, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        raise ValueError(
            f"{config.backbone} is made for one size of picture, and the settings name none ({error}). Set image_size."
        ) from None
    except (RuntimeError, OSError) as error:
        if from_hub:
            sentence = (
                f"timm's weights of {config.backbone} cannot be fetched ({_first_line(error)}). Give a file of "
                f"them: {file_names(network)[0]}.safetensors, .pth or .pt in a folder that --weights of the search "
                "names, or, in a space of your own, its path as pretrained instead of 'hub'."
            )
            has_answered = getattr(error, "response", None) is not None or hasattr(error, "code")
            if isinstance(error, OSError) and not has_answered:  # the network is away: no fault of the configuration
                raise StorageError(sentence) from None
            raise ValueError(sentence) from None
        raise ValueError(f"timm cannot make the backbone {config.backbone!r}: {_first_line(error)}") from None
    if fetch and config.pretrained not in ("", "hub"):
        load_weights(trunk_of(backbone), Path(config.pretrained))
    return backbone


def located(pretrained: str) -> str:
    """Where weights come from, a relative path made absolute: from the folder that this process was started in.

    To be asked by the driver: Ray Tune changes the folder of a worker, which would look for the file elsewhere.

    Raises:
        StorageError: It is a URI whose driver is not installed.
    """
    return pretrained if pretrained in ("", "hub") else str(as_path(pretrained))


def trunk_of(backbone: nn.Module) -> nn.Module:
    """The part that pretrained weights fill and that can be frozen: all of it, where a network names no ``trunk``."""
    trunk: nn.Module = getattr(backbone, "trunk", backbone)
    return trunk


def grey_scale(backbone: nn.Module) -> tuple[float, float]:
    """Mean and standard deviation of the grey levels, 0 to 255, that pretrained weights of this network expect."""
    about = getattr(backbone, "pretrained_cfg", None) or {}
    mean, sd = about.get("mean") or (0.485, 0.456, 0.406), about.get("std") or (0.229, 0.224, 0.225)
    return 255 * sum(mean) / len(mean), 255 * sum(sd) / len(sd)


def load_weights(network: nn.Module, file: Path) -> None:
    """Fill a network from a local file; nothing in it is executed.

    Names of a checkpoint's wrapping (``state_dict``, ``model``, ``module.``) are taken off, and timm's own filter turns
    the original authors' names into its own, or positions into another grid.

    Args:
        network: A timm network without classifier.
        file: A .safetensors file, or a .pth or .pt file of tensors.

    Raises:
        WeightsError: There is no such file on this machine, which is no fault of the configuration.
        ValueError: It holds something else than tensors, or it belongs to another network.
    """
    if not file.is_file():
        raise WeightsError(
            f"pretrained must be 'hub' or the path of a weights file, and {file} is none. "
            "Put it there, on a disk that every node reaches."
        )
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file.name} is no file of tensors alone ({_what_else(error)}). Save a state dict by safetensors."
        ) from None
    wanted = network.state_dict()
    state = {name: value for name, value in _filtered(state, network).items() if not _is_surplus(name, network, wanted)}
    for name, value in state.items():
        target = wanted.get(name)
        if target is not None and value.ndim == 4 and (value.shape[1], target.shape[1]) == (3, 1):
            state[name] = adapt_input_conv(1, value)
    if said := misfit(state, wanted):
        raise ValueError(
            f"{file.name} does not fit {type(network).__name__}: {said}. Give the weights of the same network."
        )
    network.load_state_dict(state, strict=False)


def misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """How weights differ from those that a network has, in words that name one of them; empty where they fit."""
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in wanted]
    unlike = [name for name, value in state.items() if name in wanted and value.shape != wanted[name].shape]
    if not (missing or unknown or unlike):
        return ""
    return (
        f"of {len(wanted)} weights {len(missing)} are missing and {len(unlike)} have another shape, {len(unknown)} of "
        f"the file are unknown ({(missing or unknown or unlike)[0]} for one)"
    )


def _filtered(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """What timm would make of a published file: it names these functions so in each of its modules."""
    module = sys.modules[type(network).__module__]
    function = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if not module.__name__.startswith("timm.") or function is None:
        return state
    try:
        return function(state, network)
    except TypeError:  # some take the weights alone
        return function(state)


def _is_surplus(name: str, network: nn.Module, wanted: dict[str, Tensor]) -> bool:
    """Whether these weights belong to the classifier, or to what a network of ours left out on purpose."""
    return name not in wanted and name.startswith((*CLASSIFIERS, *getattr(network, "unused_weights", ())))


def _has_fixed_size(network: str) -> bool:
    """Whether timm makes it for one size of picture unless told otherwise, as transformers with learnt positions."""
    about = timm.get_pretrained_cfg(network) if timm.is_model(network.partition(".")[0]) else None
    return bool(about and about.fixed_input_size)


def _what_else(error: BaseException) -> str:
    """Why a file was refused, without torch's and timm's advice to load it by options that Carpal does not have."""
    if found := re.search(r"Unsupported globals?: (?:GLOBAL )?([\w.]+(?:, [\w.]+)*)", str(error)):
        return f"it asks for {found[1]}"
    return "its pickle is none of tensors" if "weights_only" in str(error) else _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
