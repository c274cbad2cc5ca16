"""Maps over radiographs, as a radiologist reads them: the picture beside them, a scale in months, nothing hidden.

Red adds months to the answer, blue takes months away; where a map is near zero the radiograph shows through. Shape
letters: S side.
"""

from collections.abc import Sequence
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
from ensemble.pass_marks import RULES, judge
from ensemble.pass_marks import in_words as verdict_in_words
from ensemble.prediction import in_words
from preprocessing.charts import ACCENT, GREY, INK, MALE, WARM, empty, plain

TITLES = {
    "integrated_gradients": "integrated gradients: what the detail here adds (red) or takes away (blue)",
    "occlusion": "occlusion, patch by patch",
    "relevance": "relevance of the last feature map",
    "cam": "class activation map",
    "grad_cam": "Grad-CAM",
    "saliency": "saliency, smoothed",
    "attention": "the networks' own attention",
}
UNITS = dict.fromkeys(IN_MONTHS, "months a 64th of the picture")
UNITS |= {"grad_cam": "months, relative", "saliency": "months a grey level", "attention": "times its mean"}
SIGNED = (*IN_MONTHS, "grad_cam")
CURVES = {
    "integrated_gradients": (INK, "-"),
    "occlusion": (ACCENT, "-"),
    "relevance": (MALE, "-"),
    # these two are nearly relevance where the head is linear: dashes show what lies under
    "cam": ("#8e44ad", "--"),
    "grad_cam": ("#e0a100", ":"),
    "saliency": (WARM, "-"),
    "chance": (GREY, "--"),
    "detail": (GREY, ":"),
}
"""Colour and dashes of a map's curve."""
WHOLE = 0.9995
"""Share from which a view stands for all of the answer."""
SMOOTHED, FOR_THE_EYE = ("occlusion", "saliency"), 0.025
"""Maps of patches and pixels are smoothed for the eye alone, by this many sides (standard deviation)."""
_BLUE, _RED = ("#" + bytes(colour).hex() for colour in (YOUNGER, OLDER))
_NOTHING = "#3a3f46"
BOTH_WAYS = LinearSegmentedColormap.from_list("both ways", [_BLUE, _NOTHING, _RED])
ONE_WAY = LinearSegmentedColormap.from_list("one way", [_NOTHING, _RED])


def draw(explanation: Explanation, checks: Sequence[Checks] = (), *, reference_months: float | None = None) -> Figure:
    """One page, a row a view: the radiograph beside its finest map, the other maps, and what the checks say of them.

    Args:
        explanation: From `ensemble.explain.explain`.
        checks: From `ensemble.faithful.check`, a view each; none for maps alone.
        reference_months: Bone age that a reader gave.
    """
    num_members = sum(len(view.seen_by) for view in explanation.views)
    wide = 7
    num_columns = wide + 2 * bool(checks)
    figure = empty(2.35 * num_columns, 0.3 + 4.9 * len(explanation.views), dpi=110)
    figure.suptitle(_headline(explanation, reference_months), fontsize=11, color=INK)
    grid = figure.add_gridspec(2 * len(explanation.views), num_columns)
    for number, view in enumerate(explanation.views):
        rows, (top, bottom) = slice(2 * number, 2 * number + 2), (2 * number, 2 * number + 1)
        found = checks[number] if checks else None
        said = {} if found is None else _said(found)
        maps = {name: view.maps[name] for name in TITLES if name in view.maps}
        _radiograph(figure.add_subplot(grid[rows, :2]), view, num_members)
        if view.attention_SS is not None:
            maps["attention"] = view.attention_SS
        places = [grid[rows, 2:4], *(grid[row, column] for row in (top, bottom) for column in (4, 5, 6))]
        for place, (name, map_SS) in zip(places, maps.items(), strict=False):
            over(figure.add_subplot(place), view, name, map_SS, *said.get(name, ()))
        if found is not None:
            deletion = figure.add_subplot(grid[top, wide:])
            _curves(deletion, found, "deletion", "hottest places blurred")
            _curves(
                figure.add_subplot(grid[bottom, wide:], sharex=deletion), found, "insertion", "they alone are sharp"
            )
    if checks:
        rules = [f"{check}: {rule}" for check, rule in RULES.items()]
        figure.supxlabel("What a map must reach.  " + ".  ".join(rules) + ".", fontsize=7.5, color=INK)
    return figure


def _said(checks: Checks) -> dict[str, tuple[str, bool]]:
    """By method what the checks found, in words, and whether it is enough."""
    found = {}
    for name, verdicts in judge(checks.to_dict()).items():
        share = f"{100 * checks.inside[name]:.0f} % of the heat on the hand\n" if name in checks.inside else ""
        found[name] = (share + verdict_in_words(verdicts), False not in verdicts.values())
    return found


def over(axes: Any, view: ViewExplanation, name: str, map_SS: np.ndarray, said: str = "", passes: bool = True) -> None:
    """One map over its radiograph, with its scale, and what its checks say."""
    if name in SMOOTHED:
        map_SS = cv2.GaussianBlur(map_SS, (0, 0), FOR_THE_EYE * len(map_SS))
    reach = float(np.abs(map_SS).max()) or 1.0
    is_signed = name in SIGNED
    norm, colours = Normalize(-reach if is_signed else 0.0, reach), BOTH_WAYS if is_signed else ONE_WAY
    axes.imshow(view.picture_SS, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    axes.imshow(shaded(map_SS, reach), interpolation="bilinear")
    if view.hand_SS is not None:
        axes.contour(view.hand_SS, levels=[0.5], colors=ACCENT, linewidths=0.6, alpha=0.8)
    axes.set_title(f"{TITLES[name]}\n{said}".rstrip(), fontsize=8.5, color=INK if passes else WARM)
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


def _radiograph(axes: Any, view: ViewExplanation, num_members: int) -> None:
    axes.imshow(view.picture_SS, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    side = len(view.picture_SS)
    for x0, y0, x1, y1, share in view.parts:
        corner, width, height = (x0 * side, y0 * side), (x1 - x0) * side, (y1 - y0) * side
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=ACCENT, linewidth=3 * share))
    title = f"as the models see it ({view.view})"
    if view.weight < WHOLE:
        title += f"\n{100 * view.weight:.0f} % of the answer, {len(view.seen_by)} of {num_members} members"
    axes.set_title(title + ("\nboxes: parts that members select" if view.parts else ""), fontsize=8.5, color=INK)
    axes.axis("off")


def _curves(axes: Any, checks: Checks, way: str, what: str) -> None:
    """How far the answer lies from that of the whole picture, on the way down or up."""
    axes, better = plain(axes), "higher" if way == "deletion" else "lower"
    for name, curve in checks.curves.items():
        months_K = curve.deletion_K if way == "deletion" else curve.insertion_K
        colour, dashes = CURVES[name]
        axes.plot(100 * curve.share_K, months_K, linewidth=1.4, color=colour, linestyle=dashes, label=name)
    axes.set_title(f"{way}: {what} ({better} is better)", fontsize=8.5, color=INK)
    axes.set_xlabel("share of the picture, %", fontsize=8)
    axes.set_ylabel("answer off, months", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_ylim(bottom=0)
    if way == "deletion":
        axes.legend(frameon=False, fontsize=7, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
