"""Whether a map tells the truth about the answer: checks that need no eye. Their marks: `ensemble.pass_marks`.

    inside      share of the map's heat on the hand: a marker or a border is no anatomy
    deletion    months that the answer moves while the hottest places lose their detail first;
    insertion   months that it is still off while they alone have detail; both averaged over the way, and against two
                orders that know no network: blobs by chance, and places by how much detail they have
    shuffled    correlation with the same map of the same networks, their weights shuffled: near 0, or the map shows the
                picture's edges whatever the network has learnt (Adebayo et al., "Sanity checks for saliency maps",
                NeurIPS 2018)
    agreement   mean correlation between the members' maps

Shape letters: S side, K steps, N pictures.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from ensemble.explain import Explanation, ViewExplanation, average, first_folds, weights_of
from ensemble.maps import PATCHES, SMOOTH, blurred, smoothed
from ensemble.predictor import Predictor
from search.metrics import rounded
from search.model import BoneAgeNet

NUM_STEPS = 8
NUM_RANDOM = 3
"""Orders by chance that a map's order is held against."""


@dataclass(frozen=True)
class Curves:
    """How far the answer lies from that of the whole picture, in months, after each step."""

    share_K: np.ndarray
    """Share of the picture that was taken away, or put back."""
    deletion_K: np.ndarray
    insertion_K: np.ndarray

    @property
    def deletion_months(self) -> float:
        """Averaged over the way; higher is better."""
        return float(self.deletion_K.mean())

    @property
    def insertion_months(self) -> float:
        """Averaged over the way; lower is better."""
        return float(self.insertion_K.mean())


@dataclass(frozen=True)
class Checks:
    """Of one case and one view."""

    view: str
    hand_share: float | None
    """Share of the picture that shows the hand: what `inside` would be if the heat lay anywhere."""
    inside: dict[str, float]
    """By method; empty where nobody looked for a hand."""
    curves: dict[str, Curves]
    """By method, and by `ensemble.pass_marks.CONTROLS`."""
    shuffled: dict[str, float]
    agreement: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "hand_share": None if self.hand_share is None else rounded(self.hand_share),
            "inside": {name: rounded(value) for name, value in self.inside.items()},
            "deletion_months": {name: rounded(curve.deletion_months) for name, curve in self.curves.items()},
            "insertion_months": {name: rounded(curve.insertion_months) for name, curve in self.curves.items()},
            "shuffled": {name: rounded(value) for name, value in self.shuffled.items()},
            "agreement": {name: rounded(value) for name, value in self.agreement.items()},
            "curves": {
                "share_of_picture": [rounded(share) for share in self.curves["chance"].share_K],
                "deletion_months": {name: _rounded(curve.deletion_K) for name, curve in self.curves.items()},
                "insertion_months": {name: _rounded(curve.insertion_K) for name, curve in self.curves.items()},
            },
        }


def check(predictor: Predictor, explanation: Explanation, *, seed: int = 0) -> tuple[Checks, ...]:
    """Check the maps of an explanation, view by view, in its order.

    Args:
        predictor: What made it.
        explanation: From `ensemble.explain.explain`.
        seed: Of the orders by chance and of the shuffled weights.
    """
    return tuple(_check(predictor, explanation, view, seed) for view in explanation.views)


def inside(map_SS: np.ndarray, hand_SS: np.ndarray) -> float:
    """Share of a map's heat, either sign, that lies on the hand."""
    heat_SS = np.abs(map_SS)
    return float(heat_SS[hand_SS].sum() / max(heat_SS.sum(), 1e-12))


def follow(months: Callable[[np.ndarray], np.ndarray], picture_SS: np.ndarray, heat_SS: np.ndarray) -> Curves:
    """Take the detail of a picture away, hottest places first, and put it back in the same order.

    Args:
        months: Answers to ``(N, S, S)`` uint8 pictures, ``(N,)``.
        picture_SS: ``(S, S)`` uint8.
        heat_SS: ``(S, S)``, what comes first.
    """
    without_SS = blurred(torch.from_numpy(np.array(picture_SS))[None])[0].numpy()
    without_SS = np.rint(without_SS).astype(np.uint8)
    rank_SS = np.empty(heat_SS.size, int)
    rank_SS[np.argsort(-heat_SS.ravel(), kind="stable")] = np.arange(heat_SS.size)
    share_K = np.arange(1, NUM_STEPS + 1) / NUM_STEPS
    hot_KSS = rank_SS.reshape(1, *heat_SS.shape) < (share_K * heat_SS.size)[:, None, None]
    deleted = np.where(hot_KSS, without_SS, picture_SS)
    inserted = np.where(hot_KSS, picture_SS, without_SS)
    found = months(np.concatenate([picture_SS[None], deleted, inserted]))
    away = np.abs(found[1:] - found[0])
    return Curves(share_K, away[:NUM_STEPS], away[NUM_STEPS:])


def detail(picture_SS: np.ndarray) -> np.ndarray:
    """``(S, S)`` float32: how much of a picture, ``(S, S)`` uint8, blurring takes away, place by place."""
    image_BSS = torch.from_numpy(np.array(picture_SS))[None]
    return smoothed((image_BSS - blurred(image_BSS)).abs(), SMOOTH)[0].numpy()


def shuffle(net: BoneAgeNet, seed: int) -> BoneAgeNet:
    """A copy whose weights are the same numbers in other places: it has learnt nothing, and its scale is kept."""
    other = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in other.parameters():
            if weights.ndim > 1:
                order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
                weights.copy_(weights.reshape(-1)[order].reshape(weights.shape))
    return other


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, 0 where one of them is flat."""
    one, other = one.ravel() - one.mean(), other.ravel() - other.mean()
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale > 1e-12 else 0.0


def agreement(maps_PSS: np.ndarray) -> float:
    """Mean correlation between pairs of maps; 1 of a single one."""
    pairs = [correlation(maps_PSS[i], maps_PSS[j]) for i in range(len(maps_PSS)) for j in range(i)]
    return float(np.mean(pairs)) if pairs else 1.0


def _check(predictor: Predictor, explanation: Explanation, view: ViewExplanation, seed: int) -> Checks:
    index = predictor.bundle.recipe.views.index(view.view)
    networks = [network for network in predictor.networks if network.view == index]
    weights, picture_SS, sex = weights_of(predictor, networks), view.picture_SS, explanation.sex

    def months(pictures_NSS: np.ndarray) -> np.ndarray:
        pixels_NVSS = np.repeat(explanation.pixels_VSS[None], len(pictures_NSS), axis=0)
        pixels_NVSS[:, index] = pictures_NSS
        answers = predictor.predict(pixels_NVSS, np.full(len(pictures_NSS), sex == "male"))
        return np.array([answer.bone_age_months for answer in answers])

    rng = np.random.default_rng(seed)
    curves = {name: follow(months, picture_SS, np.abs(found)) for name, found in view.maps.items()}
    curves["detail"] = follow(months, picture_SS, detail(picture_SS))
    chance = [follow(months, picture_SS, _blobs(len(picture_SS), rng)) for _ in range(NUM_RANDOM)]
    curves["chance"] = Curves(
        chance[0].share_K,
        np.mean([curve.deletion_K for curve in chance], axis=0),
        np.mean([curve.insertion_K for curve in chance], axis=0),
    )
    first = first_folds(networks)  # one a member will do
    shuffled = {}
    for name, found in view.maps.items():
        members = average(predictor, first, picture_SS, sex, name, change=lambda net: shuffle(net, seed))
        shuffled[name] = correlation(found, np.tensordot(weights, members, axes=1))
    return Checks(
        view.view,
        None if view.hand_SS is None else float(view.hand_SS.mean()),
        {} if view.hand_SS is None else {name: inside(found, view.hand_SS) for name, found in view.maps.items()},
        curves,
        shuffled,
        {name: agreement(found) for name, found in view.members.items()},
    )


def _blobs(side: int, rng: np.random.Generator) -> np.ndarray:
    """Places by chance, as large as those of a map: single pixels by chance would be another kind of damage."""
    cells = round(PATCHES**0.5)
    return cv2.resize(rng.random((cells, cells), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def _rounded(values: np.ndarray) -> list[float]:
    return [rounded(value) for value in values]
