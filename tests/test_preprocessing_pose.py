"""Fitting the similarity between a hand's own frame and the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.pose import Pose, PoseError, fit, fit_axis

poses = st.builds(
    Pose,
    st.tuples(st.floats(-50, 400), st.floats(-50, 400)),
    st.floats(20, 800),
    st.floats(-179.5, 179.5),
    st.booleans(),
    st.just(0.0),
)


def points_of(pose: Pose, coordinates_N2: np.ndarray) -> np.ndarray:
    return np.column_stack([coordinates_N2, np.ones(len(coordinates_N2))]) @ pose.matrix().T


def drawn(count: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform((-0.4, -0.2), (0.5, 1.0), (count, 2))


@given(poses)
def test_a_pose_is_found_again_from_its_points(pose: Pose) -> None:
    found = fit(points_of(pose, drawn()), drawn(), np.ones(200))
    assert found.is_left == pose.is_left
    np.testing.assert_allclose(found.matrix(), pose.matrix(), rtol=1e-6, atol=1e-6 * pose.length)
    assert abs((found.rotation - pose.rotation + 180) % 360 - 180) < 1e-4


def test_a_fifth_of_outliers_does_not_turn_it() -> None:
    pose, coordinates = Pose((100.0, 200.0), 150.0, 33.0, True, 0.0), drawn()
    points = points_of(pose, coordinates)
    points[:40] += np.random.default_rng(1).uniform(-150, 150, (40, 2))
    found = fit(points, coordinates, np.ones(200))
    assert abs(found.rotation - 33) < 1
    assert found.misfit > 0.1


def test_fingers_point_up_at_rotation_0_and_right_at_90() -> None:
    for rotation, tip in ((0.0, (50.0, 30.0)), (90.0, (100.0, 80.0))):
        np.testing.assert_allclose(Pose((50.0, 80.0), 50.0, rotation, True, 0.0).matrix() @ (0, 1, 1), tip, atol=1e-9)


def test_a_left_hand_has_its_thumb_on_the_right() -> None:
    assert (Pose((0.0, 0.0), 1.0, 0.0, True, 0.0).matrix() @ (1, 0, 1))[0] == 1
    assert (Pose((0.0, 0.0), 1.0, 0.0, False, 0.0).matrix() @ (1, 0, 1))[0] == -1


def test_a_pose_moves_with_its_picture() -> None:
    pose, affine = Pose((10.0, 20.0), 30.0, 15.0, False, 0.0), np.array([[0.0, -2.0, 5.0], [2.0, 0.0, 7.0]])
    moved = pose.moved(affine)
    there = affine[:, :2] @ (pose.matrix() @ (0.3, 0.6, 1)) + affine[:, 2]
    np.testing.assert_allclose(moved.matrix() @ (0.3, 0.6, 1), there)
    assert moved.length == pytest.approx(60)


@given(poses)
def test_the_axis_is_found_where_the_side_cannot_be_told(pose: Pose) -> None:
    coordinates = drawn()
    found = fit_axis(points_of(pose, coordinates), coordinates * (0, 1), np.ones(200))
    assert abs((found.rotation - pose.rotation + 180) % 360 - 180) < 1e-3
    assert found.length == pytest.approx(pose.length, rel=1e-4)
    assert found.misfit > 0.1


@pytest.mark.parametrize(
    ("points", "coordinates"), [(np.zeros((4, 2)), np.zeros((4, 2))), (drawn(), np.zeros((200, 2)))]
)
def test_too_little_to_go_by_is_an_error(points: np.ndarray, coordinates: np.ndarray) -> None:
    with pytest.raises(PoseError):
        fit(points, coordinates, np.ones(len(points)))
