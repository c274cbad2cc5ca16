"""The pose of a hand: the similarity between its own frame and the picture, with the side of the body."""

from dataclasses import dataclass, replace

import numpy as np

ROUNDS = 4
"""Of reweighting; the fit has settled by then."""


class PoseError(ValueError):
    """No pose can be fitted."""


@dataclass(frozen=True)
class Pose:
    """Where a hand lies: pixel = length * R(rotation) * mirror * (u, -v) + wrist."""

    wrist: tuple[float, float]
    """Pixel (x, y) of the wrist's middle."""
    length: float
    """Pixels from the wrist to the tip of the middle finger."""
    rotation: float
    """Degrees, clockwise; 0 is fingers up."""
    is_left: bool
    """Thumb on the right of upright fingers, as a left hand lies on the plate in the usual view."""
    misfit: float
    """Root mean square distance of the hand coordinates from this similarity, in lengths of the hand."""

    def matrix(self) -> np.ndarray:
        """``(2, 3)`` float64: hand coordinates (u, v, 1) to pixels (x, y)."""
        turn = np.radians(self.rotation)
        cos, sin = np.cos(turn), np.sin(turn)
        sign = 1.0 if self.is_left else -1.0
        linear = self.length * np.array([[cos, -sin], [sin, cos]]) @ np.diag([sign, -1.0])
        return np.column_stack([linear, self.wrist])

    def moved(self, affine: np.ndarray) -> "Pose":
        """The same hand in a picture whose pixels are ``affine`` of this one's, a ``(2, 3)`` similarity."""
        whole = affine[:, :2] @ self.matrix()
        return _from_linear(whole[:, :2], whole[:, 2] + affine[:, 2], self.misfit)


def fit(points_N2: np.ndarray, coordinates_N2: np.ndarray, weights_N: np.ndarray) -> Pose:
    """Fit the similarity, reflections allowed, that takes hand coordinates to pixels.

    The side is that of the plain affine fit; then weighted Procrustes analysis (Umeyama, PAMI 1991), reweighted
    towards the points that agree (Cauchy weights), since a marker or a second hand may have got into the mask.

    Args:
        points_N2: Pixels (x, y).
        coordinates_N2: Their hand coordinates (u, v).
        weights_N: Not negative.

    Raises:
        PoseError: Fewer than 16 points, or the coordinates do not span a plane.
    """
    if len(points_N2) < 16:
        raise PoseError(f"A pose needs 16 pixels or more, got {len(points_N2)}.")
    points, source = points_N2.astype(np.float64), coordinates_N2.astype(np.float64)
    weights = weights_N.astype(np.float64)
    for _ in range(ROUNDS):
        total = weights.sum()
        if not total > 0:
            raise PoseError("A pose needs pixels with weight, got none.")
        mean_p, mean_s = weights @ points / total, weights @ source / total
        p, s = points - mean_p, source - mean_s
        covariance = (p * weights[:, None]).T @ s / total
        left, stretch, right = np.linalg.svd(covariance)
        spread = float((weights * (s**2).sum(1)).sum() / total)
        if spread < 1e-4 or stretch[1] < 1e-3 * stretch[0]:
            raise PoseError("The hand coordinates do not span a plane.")
        # The sign of the plain fit's determinant decides between a left and a right hand; no proper rotation is forced.
        linear = left @ right * (stretch.sum() / spread)
        misfit_N = np.linalg.norm(s - p @ np.linalg.inv(linear).T, axis=1)
        typical = max(float(np.median(misfit_N)), 1e-3)
        weights = weights_N / (1 + (misfit_N / (2.5 * typical)) ** 2)
    root = float(np.sqrt((weights_N * misfit_N**2).sum() / weights_N.sum()))
    return _from_linear(linear, mean_p - linear @ mean_s, root)


def fit_axis(points_N2: np.ndarray, coordinates_N2: np.ndarray, weights_N: np.ndarray) -> Pose:
    """Fit the pose from v alone, where u does not tell the thumb's side; the hand is taken for a left one.

    Arguments as in `fit`; the misfit counts u too, and so is large.

    Raises:
        PoseError: Fewer than 16 points, or v does not change over them.
    """
    if len(points_N2) < 16:
        raise PoseError(f"A pose needs 16 pixels or more, got {len(points_N2)}.")
    points, weights = points_N2.astype(np.float64), weights_N.astype(np.float64) / weights_N.sum()
    middle, mean_v = weights @ points, float(weights @ coordinates_N2[:, 1])
    p, v = points - middle, coordinates_N2[:, 1] - mean_v
    slope = np.linalg.lstsq((p * weights[:, None]).T @ p, (p * weights[:, None]).T @ v, rcond=None)[0]
    steepness = float(np.hypot(*slope))
    if not 1e-5 < steepness < 1:
        raise PoseError("The hand coordinate v does not change over the pixels.")
    up = slope / steepness
    wrist = middle - up * mean_v / steepness
    rotation = float(np.degrees(np.arctan2(up[0], -up[1])))
    pose = Pose((float(wrist[0]), float(wrist[1])), 1 / steepness, rotation, True, 0.0)
    matrix = pose.matrix()
    away = (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T - coordinates_N2
    return replace(pose, misfit=float(np.sqrt(weights @ (away**2).sum(1))))


def _from_linear(linear: np.ndarray, offset: np.ndarray, misfit: float) -> Pose:
    is_left = bool(np.linalg.det(linear) < 0)  # pixels count downwards: a left hand's frame is a reflection
    length = float(np.sqrt(abs(np.linalg.det(linear))))
    up = -linear[:, 1]  # minus the finger direction: (sin, -cos) of the rotation, downwards positive
    rotation = float(np.degrees(np.arctan2(-up[0], up[1])))
    return Pose((float(offset[0]), float(offset[1])), length, rotation, is_left, misfit)
