"""One heat map to an answer, small and quick enough for a service: months by place, as a picture to lay over another.

The map is `ensemble.maps.integrated_gradients`, as fine as the picture, of the members that answered, weighted as their
answers are. Of a member with several fold models it asks the first, which costs a k-th and shows much the same
(correlation with the map of all three 0.93, six radiographs). Where the sex is unknown the answer is a mean of two,
weighted by how probable each sex is, and so is the map.

Shape letters: V views, S side of the model input.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ensemble.explain import average, first_folds, weights_of
from ensemble.predictor import Predictor

METHOD = "integrated_gradients"
UNIT = "months for each 64th of the view"
OLDER, YOUNGER = (255, 59, 48), (47, 139, 255)
"""Red adds months to the answer, blue takes months away."""
OPAQUE = 0.7
"""Opacity of the strongest place; at 0 months the radiograph shows through."""
_GAMMA = 0.8


@dataclass(frozen=True)
class HeatMap:
    """Where in one view of a radiograph an answer comes from."""

    months_SS: np.ndarray
    """``(S, S)`` float32, months for each 64th of the view."""
    view: str
    """Of the recipe's views the one that carries most of the answer."""
    share: float
    """Of the answer, that comes from members which see this view."""

    @property
    def reach_months(self) -> float:
        """The strongest place's months, either way; it is the end of the scale."""
        return float(np.abs(self.months_SS).max())

    def about(self) -> dict[str, Any]:
        """What the picture shows, as plain JSON values."""
        return {
            "method": METHOD,
            "unit": UNIT,
            "reach_months": round(self.reach_months, 4),
            "view": self.view,
            "share": round(self.share, 4),
            "side": len(self.months_SS),
        }

    def png(self) -> bytes:
        """``(S, S)`` RGBA: the hue says which way, the opacity how much; nothing of the radiograph is in it."""
        shaded_SS4 = np.rint(255 * shaded(self.months_SS, self.reach_months or 1.0)).astype(np.uint8)
        return cv2.imencode(".png", shaded_SS4[..., [2, 1, 0, 3]])[1].tobytes()


def heat_map(predictor: Predictor, pixels_VSS: np.ndarray, male_probability: float, profile: str = "full") -> HeatMap:
    """Ask the members that answered where their answer comes from.

    Args:
        predictor: With the bundle.
        pixels_VSS: ``(V, S, S)`` uint8, as a `Reader` of the bundle's recipe gives it.
        male_probability: 1 for a boy, 0 for a girl; between them where the sex is unknown.
        profile: Which members answered.
    """
    weights_E, networks = predictor.weights_of(profile), predictor.networks_of(profile)
    of_view = [0.0] * len(pixels_VSS)
    for member, view in {(network.member, network.view) for network in networks}:
        of_view[view] += float(weights_E[member])
    view = int(np.argmax(of_view))
    seeing = first_folds([network for network in networks if network.view == view])
    seeing_P = weights_of(predictor, seeing, profile)
    months_SS = np.zeros(pixels_VSS.shape[1:], np.float32)
    for sex, probability in (("male", male_probability), ("female", 1 - male_probability)):
        if probability > 0:
            members = average(predictor, seeing, pixels_VSS[view], sex, METHOD)
            months_SS += np.float32(probability) * np.tensordot(seeing_P, members, axes=1)
    return HeatMap(months_SS, predictor.bundle.recipe.views[view], of_view[view] / sum(of_view))


def shaded(map_SS: np.ndarray, reach: float) -> np.ndarray:
    """``(S, S, 4)`` float64 red, green, blue and opacity within 0..1: one hue a sign, and only its strength tells.

    Args:
        map_SS: ``(S, S)``, signed.
        reach: Where the strongest shade lies.
    """
    colour_SS4 = np.empty((*map_SS.shape, 4))
    colour_SS4[..., :3] = np.where(map_SS[..., None] < 0, YOUNGER, OLDER) / np.float64(255)
    colour_SS4[..., 3] = OPAQUE * np.minimum(np.abs(map_SS) / reach, 1) ** _GAMMA
    return colour_SS4
