"""Maps over radiographs, as a radiologist reads them: the picture beside them, a scale in months, nothing hidden.

Red adds months to the answer, blue takes months away; where a map is near zero the radiograph shows through. Shape
letters: S side.
"""

from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ensemble.explain import Explanation, ViewExplanation
from ensemble.faithful import Checks
from ensemble.heatmap import OLDER, YOUNGER, shaded
from ensemble.maps import IN_MONTHS
from ensemble.prediction import in_words
from preprocessing.charts import ACCENT, GREY, INK, empty, plain

TITLES = {
    "occlusion": "what the detail here adds (red) or takes away (blue)",
    "relevance": "what the feature map adds",
    "cam": "class activation map",
    "grad_cam": "Grad-CAM",
    "saliency": "saliency, smoothed",
    "attention": "the networks' own attention",
}
UNITS = dict.fromkeys(IN_MONTHS, "months a 64th of the picture")
UNITS |= {"grad_cam": "months, relative", "saliency": "months a grey level", "attention": "times its mean"}
SIGNED = (*IN_MONTHS, "grad_cam")
SMOOTHED, SMOOTH = ("occlusion", "saliency"), 0.025
"""Maps of patches and pixels are smoothed for the eye alone, by this many sides (standard deviation)."""
_BLUE, _RED = ("#" + bytes(colour).hex() for colour in (YOUNGER, OLDER))
_NOTHING = "#3a3f46"
BOTH_WAYS = LinearSegmentedColormap.from_list("both ways", [_BLUE, _NOTHING, _RED])
ONE_WAY = LinearSegmentedColormap.from_list("one way", [_NOTHING, _RED])


def draw(explanation: Explanation, checks: Checks | None = None, *, reference_months: float | None = None) -> Figure:
    """One page: the radiograph beside its finest map, the other maps, and what the checks say of them.

    Args:
        explanation: From `ensemble.explain.explain`; its first view is drawn.
        checks: From `ensemble.faithful.check`.
        reference_months: Bone age that a reader gave.
    """
    view = explanation.views[0]
    maps = {name: view.maps[name] for name in TITLES if name in view.maps}
    if view.attention_SS is not None:
        maps["attention"] = view.attention_SS
    figure = empty(16.4, 4.9, dpi=110)
    figure.suptitle(_headline(explanation, reference_months), fontsize=11, color=INK)
    grid = figure.add_gridspec(2, 7)
    _radiograph(figure.add_subplot(grid[:, :2]), view)
    places = [grid[:, 2:4], grid[0, 4], grid[0, 5], grid[1, 4], grid[1, 5], grid[0, 6]]
    for place, (name, found) in zip(places, maps.items(), strict=False):
        over(figure.add_subplot(place), view, name, found, checks)
    if checks is not None:
        _curves(figure.add_subplot(grid[1, 6]), checks)
    return figure


def over(axes: Any, view: ViewExplanation, name: str, map_SS: np.ndarray, checks: Checks | None = None) -> None:
    """One map over its radiograph, with its scale."""
    if name in SMOOTHED:
        map_SS = cv2.GaussianBlur(map_SS, (0, 0), SMOOTH * len(map_SS))
    reach = float(np.abs(map_SS).max()) or 1.0
    is_signed = name in SIGNED
    norm, colours = Normalize(-reach if is_signed else 0.0, reach), BOTH_WAYS if is_signed else ONE_WAY
    axes.imshow(view.picture_SS, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    axes.imshow(shaded(map_SS, reach), interpolation="bilinear")
    if view.hand_SS is not None:
        axes.contour(view.hand_SS, levels=[0.5], colors=ACCENT, linewidths=0.6, alpha=0.8)
    title = TITLES[name]
    if checks is not None and name in checks.inside:
        title += f"\n{100 * checks.inside[name]:.0f} % of the heat on the hand"
    axes.set_title(title, fontsize=8.5, color=INK)
    axes.axis("off")
    scale = axes.inset_axes((1.02, 0.1, 0.03, 0.8))
    bar = axes.figure.colorbar(matplotlib.cm.ScalarMappable(norm, colours), cax=scale)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.set_label(UNITS[name], fontsize=7, color=INK)
    bar.outline.set_visible(False)


def _headline(explanation: Explanation, reference_months: float | None) -> str:
    prediction = explanation.prediction
    words = [f"{prediction.bone_age} ({explanation.sex})"]
    if 90 in prediction.intervals:
        low, high = prediction.intervals[90]
        words.append(f"90 % interval {in_words(low)} to {in_words(high)}")
    if reference_months is not None:
        words.append(f"reference {in_words(reference_months)}")
    return ", ".join(words) + f"   {prediction.version}"


def _radiograph(axes: Any, view: ViewExplanation) -> None:
    axes.imshow(view.picture_SS, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    side = len(view.picture_SS)
    for x0, y0, x1, y1, share in view.parts:
        corner, width, height = (x0 * side, y0 * side), (x1 - x0) * side, (y1 - y0) * side
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=ACCENT, linewidth=3 * share))
    title = f"as the models see it ({view.view})"
    axes.set_title(title + ("\nboxes: parts that members select" if view.parts else ""), fontsize=8.5, color=INK)
    axes.axis("off")


def _curves(axes: Any, checks: Checks) -> None:
    axes = plain(axes)
    for name in [name for name in TITLES if name in checks.curves]:
        axes.plot(100 * checks.curves[name].share_K, checks.curves[name].deletion_K, linewidth=1.4, label=name)
    chance = checks.curves["chance"]
    axes.plot(100 * chance.share_K, chance.deletion_K, linewidth=1.4, color=GREY, linestyle="--", label="chance")
    axes.set_xlabel("hottest blurred, %")
    axes.set_ylabel("answer moved, months")
    axes.tick_params(labelsize=7)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=6.5, labelcolor=INK, handlelength=1.2)
