"""Rotation deltas: by hand, across +-180 degrees, and exactly undone."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hfvla.data.signals.rotations import (
    REPRESENTATIONS,
    angle_difference,
    apply_pose_delta,
    apply_rotation_delta,
    from_rotation,
    pose_delta,
    rotation_delta,
    to_rotation,
)
from hfvla.errors import DataError

NAMES = list(REPRESENTATIONS)
FRAMES = ["world", "body"]


def test_angles_by_hand():
    found = angle_difference([-179.0, 179.0, 10.0, 0.0, 725.0], [179.0, -179.0, 4.0, 180.0, 0.0])
    assert found.tolist() == [2.0, -2.0, 6.0, -180.0, 5.0]
    assert angle_difference(-3.1, 3.1, 2 * np.pi).item() == pytest.approx(2 * np.pi - 6.2)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_jump_at_half_a_turn(axis, frame):
    start, end = np.zeros(3), np.zeros(3)
    start[axis], end[axis] = 179.0, -179.0
    expected = np.zeros(3)
    expected[axis] = 2.0  # and not -358
    np.testing.assert_allclose(rotation_delta(end, start, "euler_degrees", frame), expected, atol=1e-9)
    np.testing.assert_allclose(rotation_delta(start, end, "euler_degrees", frame), -expected, atol=1e-9)


def test_frames_by_hand():
    """Start turned by 90 degrees about z; then 10 degrees about the body's x, which is the world's y."""
    start = np.array([0.0, 0.0, 90.0])
    step = Rotation.from_euler("z", 90, degrees=True) * Rotation.from_euler("x", 10, degrees=True)
    end = step.as_euler("xyz", degrees=True)
    np.testing.assert_allclose(rotation_delta(end, start, "euler_degrees", "body"), [10, 0, 0], atol=1e-9)
    np.testing.assert_allclose(rotation_delta(end, start, "euler_degrees", "world"), [0, 10, 0], atol=1e-9)


def test_euler_angles_are_about_fixed_axes():
    # Roll 90 about x, then yaw 90 about the fixed z: y goes to z and stays there.
    rotation = to_rotation([90.0, 0.0, 90.0], "euler_degrees")
    np.testing.assert_allclose(rotation.apply([0.0, 1.0, 0.0]).ravel(), [0, 0, 1], atol=1e-12)


def test_quaternions():
    start, end = np.array([0.0, 0.0, 0.0, 1.0]), np.array([np.sin(0.1), 0.0, 0.0, np.cos(0.1)])
    for sign in (1, -1):  # q and -q are the same rotation
        found = rotation_delta(sign * end, start, "quaternion_xyzw")
        np.testing.assert_allclose(found, [0.2, 0, 0], atol=1e-12)
        found = rotation_delta(np.roll(sign * end, 1), np.roll(start, 1), "quaternion_wxyz")
        np.testing.assert_allclose(found, [0.2, 0, 0], atol=1e-12)
    back = apply_rotation_delta(start, [0.2, 0, 0], "quaternion_wxyz")
    assert back.shape == (4,)
    np.testing.assert_allclose(apply_rotation_delta(start, [0.2, 0, 0], "quaternion_xyzw"), end, atol=1e-12)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", NAMES)
def test_undone(name, frame):
    random = np.random.default_rng(0)
    poses = random.normal(size=(2, 4, 5, 3 + REPRESENTATIONS[name]))
    if name == "euler_degrees":
        poses[..., 3:] = random.uniform(-180, 180, size=(2, 4, 5, 3))
    start, end = poses
    delta = pose_delta(end, start, name, frame)
    assert delta.shape == (4, 5, 6) and delta.dtype == np.float64
    limit = 180.0 if name == "euler_degrees" else np.pi
    assert np.linalg.norm(delta[..., 3:], axis=-1).max() <= limit + 1e-9
    back = apply_pose_delta(start, delta, name, frame)
    np.testing.assert_allclose(back[..., :3], end[..., :3], atol=1e-12)
    apart = (to_rotation(back[..., 3:], name).inv() * to_rotation(end[..., 3:], name)).magnitude()
    assert apart.max() < 1e-7
    for position in ((0, 0), (3, 4)):  # rows do not mix
        single = pose_delta(end[position], start[position], name, frame)
        np.testing.assert_allclose(single, delta[position], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_representations_round_trip(name):
    rotation = Rotation.random(20, rng=np.random.default_rng(0))
    values = from_rotation(rotation, name)
    assert values.shape == (20, REPRESENTATIONS[name])
    assert (to_rotation(values, name).inv() * rotation).magnitude().max() < 1e-7


def test_pose_frames_by_hand():
    """Turned by 90 degrees about z, the world's y is the body's x."""
    start, end = np.array([0, 0, 0, 0, 0, 90.0]), np.array([0, 2.0, 0, 0, 0, 100.0])
    np.testing.assert_allclose(pose_delta(end, start, "euler_degrees"), [0, 2, 0, 0, 0, 10], atol=1e-9)
    np.testing.assert_allclose(pose_delta(end, start, "euler_degrees", "body"), [2, 0, 0, 0, 0, 10], atol=1e-9)


def test_refusals():
    with pytest.raises(DataError, match="unknown rotation 'euler_degree'.*'euler_degrees'"):
        to_rotation(np.zeros(3), "euler_degree")
    with pytest.raises(DataError, match=r"got \(4,\); expected \[..., 3\]"):
        to_rotation(np.zeros(4), "euler_degrees")
    with pytest.raises(DataError, match="1 rows are no rotation, the first is row 1"):
        to_rotation(np.array([[0, 0, 0, 1.0], [0, 0, 0, 0]]), "quaternion_xyzw")
    with pytest.raises(DataError, match="first is row 0; got .*nan"):
        to_rotation(np.array([np.nan, 0, 0]), "rotation_vector")
    with pytest.raises(DataError, match="end and start differ in shape"):
        rotation_delta(np.zeros((2, 3)), np.zeros(3), "euler_degrees")
    with pytest.raises(DataError, match="unknown frame of a delta; got 'tool'"):
        rotation_delta(np.zeros(3), np.zeros(3), "euler_degrees", "tool")
    with pytest.raises(DataError, match=r"shape of a rotation delta; got \(2, 3\); expected \(3,\)"):
        apply_rotation_delta(np.zeros(3), np.zeros((2, 3)), "euler_degrees")
