"""Where an ensemble finds its answer: the maps of its networks, weighted and averaged, view by view.

A member sees one view of the radiograph; maps of different views show different pictures and are not mixed.

Shape letters: V views, S side, h and w sides of a map, P maps of networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ensemble import maps
from ensemble.maps import METHODS, resized
from ensemble.members import Network
from ensemble.prediction import Prediction
from ensemble.predictor import Predictor
from ensemble.views import put_back, see
from preprocessing.radiograph import RadiographError
from preprocessing.standardize import Look
from preprocessing.views import hand_in_view
from search.model import BoneAgeNet

Box = tuple[float, float, float, float, float]
"""x0, y0, x1, y1 as shares of the sides, and the weight that the network gives the part."""


@dataclass(frozen=True)
class ViewExplanation:
    """What the members that see one view of a radiograph point at."""

    view: str
    weight: float
    """Share of the answer that comes from members which see it."""
    seen_by: tuple[str, ...]
    """Those members: study and trial."""
    picture_SS: np.ndarray
    """``(S, S)`` uint8."""
    hand_SS: np.ndarray | None
    """``(S, S)`` bool, pixels that show the hand; None where nobody looked for one."""
    maps: dict[str, np.ndarray]
    """``(S, S)`` float32 by method, each network's map weighted as its answer is."""
    members: dict[str, np.ndarray]
    """``(members, S, S)`` by method, in the order of the bundle: to see whether they agree."""
    attention_SS: np.ndarray | None
    """``(S, S)`` its members' own attention, 1 on average; None where no member has attention."""
    parts: tuple[Box, ...]
    """Parts that members selected."""


@dataclass(frozen=True)
class Explanation:
    """Why a bundle answers a radiograph as it does."""

    prediction: Prediction
    sex: str
    pixels_VSS: np.ndarray
    """``(V, S, S)`` uint8, every view of the recipe."""
    views: tuple[ViewExplanation, ...]
    """The one of most weight first."""


def explain(
    predictor: Predictor,
    data: bytes,
    sex: str,
    *,
    methods: Sequence[str] = tuple(METHODS),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Explanation:
    """Explain the answer to one file.

    Args:
        predictor: With the bundle.
        data: The whole file.
        sex: ``male`` or ``female``: a map is that of one answer.
        methods: Some of `ensemble.maps.METHODS`.
        progress: Called with the number of networks done and of all.

    Raises:
        RadiographError: The bytes hold no usable picture.
        ValueError: Another word for the sex, or no such method.
    """
    if sex not in ("male", "female"):
        raise ValueError(f"An explanation needs the sex that the answer is for, male or female, got {sex!r}.")
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"The methods are {', '.join(METHODS)}, got {unknown[0]!r}.")
    recipe = predictor.bundle.recipe
    look = predictor.reader.look(data)
    for finding in look.findings:
        if finding.action == "refused":
            raise RadiographError(finding.code, finding.message)
    pixels_VSS = predictor.reader.pictures(look)
    (prediction,) = predictor.predict(pixels_VSS[None], np.array([sex == "male"]), [look.findings])
    views = []
    done = 0
    for index, name in enumerate(recipe.views):
        networks = [network for network in predictor.networks if network.view == index]
        if not networks:
            continue
        views.append(_view(predictor, networks, name, pixels_VSS[index], _hand(look, name, predictor), sex, methods))
        done += len(networks)
        progress(done, len(predictor.networks))
    return Explanation(prediction, sex, pixels_VSS, tuple(sorted(views, key=lambda view: -view.weight)))


def average(
    predictor: Predictor,
    networks: Sequence[Network],
    picture_SS: np.ndarray,
    sex: str,
    method: str,
    *,
    change: Callable[[BoneAgeNet], BoneAgeNet] = lambda net: net,
) -> np.ndarray:
    """Maps of some networks by member, ``(members, S, S)``; a member's is the mean of its networks'.

    A network's own is the mean over the bundle's test-time views, as its answer is, each put back to its place.

    Args:
        predictor: Whose networks they are.
        networks: All see the same view.
        picture_SS: ``(S, S)`` uint8.
        sex: ``male`` or ``female``.
        method: One of `ensemble.maps.METHODS`.
        change: What to do to a network first.
    """
    image_BSS, sex_B = _inputs(networks[0].net, picture_SS, sex)
    found: dict[int, list[np.ndarray]] = {}
    seen = {view: see(image_BSS, view) for view in predictor.bundle.manifest["views"]}
    for network in networks:
        net, of_views = change(network.net), []
        for view, images_BSS in seen.items():
            map_hw = METHODS[method](net, images_BSS, sex_B)[0].float().cpu().numpy()
            map_BSS = torch.from_numpy(resized(map_hw, len(picture_SS)))[None]
            of_views.append(put_back(map_BSS, view)[0].numpy())
        found.setdefault(network.member, []).append(np.mean(of_views, axis=0))
    return np.stack([np.mean(own, axis=0) for own in found.values()])


def weights_of(predictor: Predictor, networks: Sequence[Network], profile: str = "full") -> np.ndarray:
    """Of the networks' members in a profile, in order, summing to 1."""
    weights = predictor.weights_of(profile)[list(dict.fromkeys(network.member for network in networks))]
    return weights / weights.sum()


def first_folds(networks: Sequence[Network]) -> list[Network]:
    """One network of each member, in order."""
    return list({network.member: network for network in reversed(networks)}.values())[::-1]


def _view(
    predictor: Predictor,
    networks: list[Network],
    name: str,
    picture_SS: np.ndarray,
    hand_SS: np.ndarray | None,
    sex: str,
    methods: Sequence[str],
) -> ViewExplanation:
    weights = weights_of(predictor, networks)
    by_method = {method: average(predictor, networks, picture_SS, sex, method) for method in methods}
    image_BSS, _ = _inputs(networks[0].net, picture_SS, sex)
    looks = [look for network in networks if (look := maps.attention(network.net, image_BSS)) is not None]
    attention = [look[0].cpu().numpy() * look[0].numel() for look in looks]  # 1 where it looks as at any other place
    parts: list[Box] = []
    for network in networks:
        if (found := maps.parts(network.net, image_BSS)) is not None:
            boxes, shares = found[0][0].tolist(), found[1][0].tolist()
            parts += [(x0, y0, x1, y1, share) for (x0, y0, x1, y1), share in zip(boxes, shares, strict=True)]
    members = [predictor.bundle.members[number] for number in dict.fromkeys(network.member for network in networks)]
    return ViewExplanation(
        name,
        sum(member.weight for member in members),
        tuple(f"{member.study}/{member.trial}" for member in members),
        picture_SS,
        hand_SS,
        {method: np.tensordot(weights, found, axes=1) for method, found in by_method.items()},
        by_method,
        np.mean([resized(look, len(picture_SS)) for look in attention], axis=0) if attention else None,
        tuple(parts),
    )


def _inputs(net: BoneAgeNet, picture_SS: np.ndarray, sex: str) -> tuple[torch.Tensor, torch.Tensor]:
    device = net.head.weight.device
    image_BSS = torch.from_numpy(np.array(picture_SS)).unsqueeze(0).to(device)
    return image_BSS, torch.tensor([1.0 if sex == "male" else -1.0], device=device)


def _hand(look: Look, view: str, predictor: Predictor) -> np.ndarray | None:
    return None if look.hand is None else hand_in_view(look.image_HW, view, predictor.bundle.recipe, look.hand)
