"""The members of a bundle, run: their networks' answers to pixels, before anything is made of them.

Shape letters: B batch, V views, H height, W width, M monthly bins, E members, S sexes assumed.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble.bundle import Bundle
from ensemble.calibration import variance
from ensemble.robust import combine_members
from ensemble.views import see
from search.model import BoneAgeNet, load_model
from search.months import NUM_BINS


@dataclass(frozen=True)
class Network:
    """One network of a member."""

    member: int
    view: int
    """Which of the recipe's views it sees."""
    net: BoneAgeNet
    file: Path
    """Its weights."""


@dataclass(frozen=True)
class MemberAnswers:
    """What the members say of a batch."""

    distribution_SEBM: np.ndarray
    """``(S, E, B, 240)`` float64, 0 of members without weight."""
    variance_SB: np.ndarray
    """``(S, B)`` variance of the mixture of single models, one a member and all of one fold, on average over folds, in
    months squared: what out of fold is the variance of the ensemble. That of the means of models is less, and would
    narrow the intervals a second time (`ensemble.ambiguity`)."""
    male_B: np.ndarray | None
    """``(B,)`` guessed probability of male; None where no member guesses."""


def check_device(device: str) -> None:
    """Refuse a device that there is not, with a `ValueError`."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    known = ["cpu", *(["cuda", *gpus] if gpus else [])]
    if device not in known:
        raise ValueError(f"The device must be one that torch finds here, {' or '.join(known)}, got {device!r}.")


class Members:
    """All networks of a bundle on one device.

    On a CPU they run side by side, one thread each, on as many threads as torch was given when this was made: at these
    sizes that is faster than splitting one convolution, and it does not stall on a busy machine.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", lone_threads: int | None = None) -> None:
        """Load the weights; arguments and errors as in `ensemble.predictor.Predictor`."""
        check_device(device)
        self._device = torch.device(device)
        if self._device.type == "cuda":  # CUDA convolutions round to TF32 by default, which moves the answer
            torch.backends.cudnn.allow_tf32 = False
        self.networks = [
            Network(index, bundle.recipe.views.index(config.view), load_model(file, config, self._device), file)
            for index, (config, files) in enumerate((member.config, member.files) for member in bundle.members)
            for file in files
        ]
        self._views: list[str] = bundle.manifest["views"]
        self._rule: dict[str, Any] = bundle.manifest["combination"]
        threads = torch.get_num_threads() if self._device.type == "cpu" else 1
        self._pool = _pool(min(threads, len(self.networks)))
        lone = threads if lone_threads is None or self._device.type != "cpu" else lone_threads
        self._lone_pool = self._pool if lone == threads else _pool(min(lone, len(self.networks)))

    def run(self, pixels_BVHW: np.ndarray, sex_SB: np.ndarray, weights_E: np.ndarray) -> MemberAnswers:
        """Answers of the members that have a weight.

        Args:
            pixels_BVHW: ``(B, V, size, size)`` uint8.
            sex_SB: ``(S, B)`` float32 codes: what each case is taken for.
            weights_E: ``(E,)``.

        Raises:
            ValueError: A network gives no number.
        """
        images = torch.from_numpy(np.array(pixels_BVHW)).to(self._device)
        sexes = torch.from_numpy(sex_SB).to(self._device)
        kept_E = weights_E > 0
        networks = [network for network in self.networks if kept_E[network.member]]
        seen = {index: [see(images[:, index], view) for view in self._views] for index in {n.view for n in networks}}
        pool = self._lone_pool if len(pixels_BVHW) == 1 else self._pool
        mapped = pool.map if pool else map
        outputs = list(mapped(lambda network: _probabilities(network.net, seen[network.view], sexes), networks))
        for network, (distribution_SBM, _) in zip(networks, outputs, strict=True):
            if not np.isfinite(distribution_SBM).all():
                raise ValueError(
                    f"{network.file} answers a radiograph with no number: its sums leave the range of a float32. "
                    "Restore it, or train the trial again."
                )
        members_SEBM = np.zeros((len(sex_SB), len(weights_E), *outputs[0][0].shape[1:]))
        guesses, shares, models = [], [], []
        for index in np.flatnonzero(kept_E):
            own = [output for network, output in zip(networks, outputs, strict=True) if network.member == index]
            members_SEBM[:, index] = np.mean([distribution for distribution, _ in own], axis=0)
            models.append([distribution for distribution, _ in own])
            if guessed := [guess for _, guess in own if guess is not None]:
                guesses.append(np.mean(guessed, axis=0))
                shares.append(weights_E[index])
        num_models = min(map(len, models))  # members of one cohort have as many each
        folds = np.array([of_member[:num_models] for of_member in models]).reshape(len(models), -1, NUM_BINS)
        mixtures, _, _ = combine_members(folds, weights_E[kept_E], self._rule)
        variance_SB = variance(mixtures).reshape(num_models, len(sex_SB), -1).mean(axis=0)
        male_B = np.average(guesses, axis=0, weights=shares) if guesses else None
        return MemberAnswers(members_SEBM, variance_SB, male_B)


@torch.inference_mode()
def _probabilities(
    net: BoneAgeNet, views: Sequence[torch.Tensor], sex_SB: torch.Tensor
) -> tuple[np.ndarray, np.ndarray | None]:
    """Distributions ``(S, B, 240)`` float64 and ``(B,)`` the probability of male, on average over the views."""
    shapes, guesses = [], []
    for images in views:
        maps = net.maps(images)
        shapes.append([net.from_maps(maps, sex_B).softmax(dim=1).double().cpu().numpy() for sex_B in sex_SB])
        guesses.append(net.male_probability(maps))
    known = [guess.double().cpu().numpy() for guess in guesses if guess is not None]
    return np.mean(shapes, axis=0), np.mean(known, axis=0) if known else None


def _pool(num_threads: int) -> ThreadPoolExecutor | None:
    if num_threads < 2:
        return None
    return ThreadPoolExecutor(num_threads, "members", initializer=torch.set_num_threads, initargs=(1,))
