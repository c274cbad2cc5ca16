"""Find the hand: two or three looks of the segmenter, one pose, one mask.

The first look sees the whole picture and finds roughly where the hand lies. The second sees it upright, of one size
and with the thumb on one side, which is what the network knows best; mask and pose come from there. A picture turned
by any angle gives nearly the same second look, and so nearly the same result.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from preprocessing.levels import Sample
from preprocessing.pose import Pose, PoseError, fit, fit_axis
from preprocessing.segmenter import SIDE, Maps, Segmenter, letterbox, stretch

LENGTHS = 1.65
"""Side of the window round a hand, in lengths from wrist to middle fingertip: room for any spread of the fingers."""
MIDDLE = (0.0, 0.45)
"""Hand coordinates (u, v) of the window's middle."""
_LEAST_SHARE = 0.004
"""Components of the mask below this share of the picture are specks."""
_STEP = 3
"""Every third pixel in both directions serves the fit: a fifth of the time for the same pose."""


@dataclass(frozen=True)
class Hand:
    """A hand that was found, or the best candidate for one."""

    pose: Pose
    """In pixels of the picture; the misfit is that of the last look."""
    window_mask: np.ndarray
    """``(SIDE, SIDE)`` float32 probability, in the window of `window_matrix`."""
    first: Pose
    """Of the first look, which saw the whole picture; the side is that which the second one settled on."""
    last: Pose
    """The pose whose window the last look saw."""
    hand: tuple[float, float]
    """Probability of a hand's radiograph at the first and the last look."""
    inverted: tuple[float, float]
    """Probability of dark bones, likewise."""
    others: float
    """Area of the second largest component of the first mask, as a share of the largest."""
    whole: np.ndarray
    """``(SIDE, SIDE)`` uint8, the whole picture as the first look saw it."""
    to_whole: np.ndarray
    """``(2, 3)`` affine matrix from pixels of the picture to those of `whole`."""

    @property
    def looks_inverted(self) -> float:
        """Probability of dark bones, by both looks."""
        return sum(self.inverted) / 2

    def mask(self, shape_HW: tuple[int, ...]) -> np.ndarray:
        """``(H, W)`` bool, hand and forearm, in the pixels of the picture that has this shape."""
        window = window_matrix(self.pose, SIDE)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        there: np.ndarray = cv2.warpAffine(self.window_mask, window, shape_HW[::-1], flags=flags) > 0.5
        return there


def find(image_HW: np.ndarray, segment: Segmenter) -> Hand | None:
    """Look for the hand.

    Args:
        image_HW: ``(H, W)`` grey levels of any depth, bone bright or dark.
        segment: The network.

    Returns:
        The best candidate, or None where no part of the picture looks like one. Whether the candidate is good enough
        is for `preprocessing.checks` to say.
    """
    square, to_square = letterbox(image_HW)
    shown = stretch(square)
    whole = segment(shown)
    candidates = _components(whole.mask_HW)
    fits = [(part, pose) for part in candidates[:3] if (pose := _fit(whole, part)) is not None]
    if not fits:
        return None
    # The largest part that is shaped like a hand: a bright marker or a body beside it fits no pose.
    largest, pose = max(fits, key=lambda item: item[0].sum() / (1 + (item[1].misfit / 0.1) ** 2))
    rough = pose.moved(cv2.invertAffineTransform(to_square))
    looks = [_closer(image_HW, rough, segment)]
    if looks[0] is None or not looks[0].pose.is_left:  # in a window made for it, every hand is a left one
        looks.append(_closer(image_HW, replace(rough, is_left=not rough.is_left), segment))
    closer = min((look for look in looks if look), key=lambda look: look.pose.misfit, default=None)
    if closer is None:
        return None
    first = closer.seen_as
    # Turned pictures leave the first look some way off; another one from where the second ended takes that out.
    if _apart(closer.found(), first) and (again := _closer(image_HW, closer.found(), segment)) is not None:
        closer = again
    others = max((float(part.sum()) for part in candidates if part is not largest), default=0.0)
    mask = np.where(closer.part, closer.maps.mask_HW, np.float32(0))
    return Hand(
        pose=closer.found(),
        window_mask=warp(mask, window_matrix(closer.pose, SIDE), SIDE, border=0.0),
        first=first,
        last=closer.seen_as,
        hand=(whole.hand, closer.maps.hand),
        inverted=(whole.inverted, closer.maps.inverted),
        others=others / float(largest.sum()),
        whole=np.rint(shown).astype(np.uint8),
        to_whole=to_square,
    )


def window_matrix(
    pose: Pose,
    side: int,
    *,
    align: bool = True,
    lengths: float = LENGTHS,
    middle: tuple[float, float] = MIDDLE,
) -> np.ndarray:
    """``(2, 3)`` affine matrix from pixels of the picture to pixels of the square window round a hand.

    Args:
        pose: Of the hand, in pixels of the picture.
        side: Of the window, in pixels.
        align: Turn the fingers up and the thumb to the right; without it the window keeps the picture's own directions.
        lengths: Side of the window, in lengths of the hand.
        middle: Hand coordinates of its middle.
    """
    if not align:
        scale = side / lengths / pose.length
        return np.column_stack([np.eye(2) * scale, (side - 1) / 2 - scale * (pose.matrix() @ (*middle, 1.0))])
    target = Pose((0.0, 0.0), side / lengths, 0.0, True, 0.0).matrix()
    target[:, 2] = (side - 1) / 2 - target[:, :2] @ middle
    source = pose.matrix()
    linear = target[:, :2] @ np.linalg.inv(source[:, :2])
    return np.column_stack([linear, target[:, 2] - linear @ source[:, 2]])


def warp(image_HW: np.ndarray, affine: np.ndarray, side: int, *, border: float | None = None) -> np.ndarray:
    """Map a picture into a square without aliasing.

    Args:
        image_HW: ``(H, W)``, any depth.
        affine: ``(2, 3)``, from its pixels to those of the square.
        side: Of the square, in pixels.
        border: Level beyond the picture; None takes its darkest percent.

    Returns:
        ``(side, side)`` float32.
    """
    height, width = image_HW.shape
    scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    image = image_HW
    if scale < 0.75:  # area filter to just above the target's resolution, then a linear one
        shrink = min(1.0, 1.25 * scale)
        columns, rows = max(1, round(width * shrink)), max(1, round(height * shrink))
        image = cv2.resize(image_HW, (columns, rows), interpolation=cv2.INTER_AREA)
        x, y = columns / width, rows / height
        move = np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5]])
        affine = compose(affine, cv2.invertAffineTransform(move))
    level = float(np.percentile(image[::4, ::4], 1)) if border is None else border
    return cv2.warpAffine(image.astype(np.float32), affine, (side, side), flags=cv2.INTER_LINEAR, borderValue=level)


def hand_levels(sample: Sample, hand: Hand) -> np.ndarray:
    """Grey levels of the pixels that show the hand; all of them where none does.

    Args:
        sample: Of the picture.
        hand: That was found in the picture.
    """
    levels_hw = sample.levels_hw
    window = window_matrix(hand.pose, SIDE)
    to_window = np.column_stack([window[:, :2] * sample.step, window[:, 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mask = cv2.warpAffine(hand.window_mask, to_window, levels_hw.shape[::-1], flags=flags)
    inside = levels_hw[mask > 0.5]
    return inside if inside.size else levels_hw.ravel()


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """``(2, 3)`` affine matrix that maps by `inner` first and by `outer` then."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


@dataclass(frozen=True)
class _Closer:
    """A look at the window round a pose."""

    seen_as: Pose
    """The pose, in pixels of the picture, that the window was made for."""
    maps: Maps
    part: np.ndarray
    """``(SIDE, SIDE)`` bool: the hand's part of the mask."""
    pose: Pose
    """Found in the window, in its pixels."""

    def found(self) -> Pose:
        """The pose found, in pixels of the picture."""
        return self.pose.moved(cv2.invertAffineTransform(window_matrix(self.seen_as, SIDE)))


def _closer(image_HW: np.ndarray, rough: Pose, segment: Segmenter) -> _Closer | None:
    maps = segment(stretch(warp(image_HW, window_matrix(rough, SIDE), SIDE)))
    parts = _components(maps.mask_HW)
    pose = _fit(maps, parts[0]) if parts else None
    return None if pose is None else _Closer(rough, maps, parts[0], pose)


def _apart(one: Pose, other: Pose) -> bool:
    """Whether two poses of one hand differ by more than the network's own scatter on upright pictures."""
    turned = abs((one.rotation - other.rotation + 180) % 360 - 180)
    moved = np.hypot(*np.subtract(one.wrist, other.wrist)) / other.length
    return bool(turned > 1.5 or abs(np.log(one.length / other.length)) > 0.03 or moved > 0.03)


def _components(mask_HW: np.ndarray) -> list[np.ndarray]:
    """Boolean masks of the connected parts, largest first, specks left out."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask_HW > 0.5).astype(np.uint8), connectivity=4)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    return [labels == 1 + i for i in order if areas[i] >= _LEAST_SHARE * mask_HW.size]


def _fit(maps: Maps, part_HW: np.ndarray) -> Pose | None:
    rows, columns = np.nonzero(part_HW[::_STEP, ::_STEP])
    rows, columns = rows * _STEP, columns * _STEP
    points = np.column_stack([columns, rows])
    evidence = points, maps.coordinates_HW2[rows, columns], maps.mask_HW[rows, columns]
    try:
        pose = fit(*evidence)
    except PoseError:  # a faint hand whose side cannot be told still shows where its fingers point
        try:
            pose = fit_axis(*evidence)
        except PoseError:
            return None
    return pose if np.isfinite(pose.length) and pose.length > 4 else None
