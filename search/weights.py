"""Files that stand in for timm's hub where a machine has no network: ``--weights FOLDER``.

A file bears the name of timm's model, with or without the tag that timm takes by default: ``resnet50.safetensors``,
``resnet50.a1_in1k.pth``. A configuration that is drawn with ``hub`` then names the file by its whole path, so that what
is written down says what was trained; Optuna's parameters stay as they were drawn.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import timm

from preprocessing.storage import StorageError, as_path, is_local
from search.models import is_known
from search.space import WRAPPERS

SUFFIXES = (".safetensors", ".pth", ".pt")
NUM_DRAWS = 200
"""Configurations that `check_weights` draws: a network that is one of twenty is missed once in 28,000 times."""


class WeightsError(StorageError):
    """A folder of weights, or a file in it, is missing: no fault of the configuration that needs it."""


def network_of(backbone: str) -> str:
    """The network whose weights a backbone takes: the one that a wrapper of ours is put on, or itself."""
    wrapper, _, of = backbone.partition(":")
    return (of or "slim_resnet18") if wrapper in WRAPPERS else backbone


def file_names(network: str) -> list[str]:
    """Names that a network's file may have, without suffix; the first is the one to recommend.

    A network of ours that takes the weights of a published one has its file under that one's name. Where a tag is
    named, a file without it will not do: it may hold the weights of another tag.
    """
    name, _, tag = network.partition(".")
    try:
        about = timm.get_pretrained_cfg(network)
    except RuntimeError:  # no such tag, as making the network will say
        about = None
    if about is None:
        return [network]
    tagged = f"{name}.{about.tag}" if about.tag else name
    published = [tagged] if tag else [name, tagged]
    if timm.models.model_entrypoint(name).__module__.startswith("search.models."):
        # timm's own may share a file's name and not its weights: clip's, with and without "quickgelu"
        theirs = about.hf_hub_id.removeprefix("timm/") if about.hf_hub_id else Path(about.url or name).stem
        short = theirs.partition("." if about.hf_hub_id else "-")[0]  # torchvision's end in the beginning of a hash
        published = [theirs, *published] if tag else [short, theirs, *published]
    return list(dict.fromkeys(published))


def local_file(backbone: str, folder: str) -> str:
    """The file in a folder that a backbone is filled from in place of the hub.

    Returns:
        Its absolute path; ``hub`` where timm does not know the network, as making it will say.

    Raises:
        WeightsError: There is none.
    """
    network = network_of(backbone)
    if not is_known(network):
        return "hub"
    place, names = as_path(folder), file_names(network)
    for name in names:
        for suffix in SUFFIXES:
            if (file := place / f"{name}{suffix}").is_file():
                return str(file)
    raise WeightsError(
        f"--weights {place} holds no weights of {backbone}: {_expected(names)} is missing. Put it there."
    )


def check_weights(folder: str, settings_of: Callable[[Any], dict[str, Any]]) -> None:
    """Look whether a folder has what a space needs, before anything is trained; the draw itself looks again.

    Args:
        folder: As given to ``--weights``.
        settings_of: The space, with the view: takes a trial, returns the settings of a `TrialConfig`.

    Raises:
        WeightsError: It is no folder on a disk, or lacks files.
        ValueError: The space takes no weights from the hub.
    """
    place = as_path(folder)
    if not is_local(place) or not place.is_dir():
        raise WeightsError(
            f"--weights must be a folder on a disk that every node reaches, and {place} is none. "
            f"Make it, with files named by timm model, such as resnet50{SUFFIXES[0]}."
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [settings_of(study.ask()) for _ in range(NUM_DRAWS)]
    wanted = sorted({settings["backbone"] for settings in drawn if settings.get("pretrained") == "hub"})
    if not wanted:
        raise ValueError(
            f"--weights stands in for timm's hub, and in {NUM_DRAWS} draws the space takes nothing from it. "
            "Leave it out, or draw pretrained='hub'."
        )
    missing: dict[str, str] = {}
    for backbone in wanted:
        try:
            local_file(backbone, folder)
        except WeightsError:
            missing[backbone] = _expected(file_names(network_of(backbone)))
    if missing:
        named = "; ".join(dict.fromkeys(missing.values()))
        raise WeightsError(
            f"--weights {place} lacks the weights of {len(missing)} of {len(wanted)} networks that the space draws "
            f"({', '.join(missing)}): {named}. Put them there; the ending may be {' or '.join(SUFFIXES[1:])} too."
        )


def _expected(names: list[str]) -> str:
    """The first two of a network's names, as a sentence about its missing file has them."""
    return " or ".join(f"{name}{SUFFIXES[0]}" for name in names[:2])
