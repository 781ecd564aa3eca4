"""Differences of angles, rotations and poses that do not jump at +-180 degrees, and their inverses.

Subtracting Euler angles turns a step from 179 to -179 degrees into -358. Here a delta is a rotation vector: axis times
angle, at most half a turn long. Representations of a rotation:

| name | numbers | unit of its deltas |
|---|---|---|
| "euler_degrees" | 3 angles about the fixed axes x, y, z in this order (roll, pitch, yaw) | degrees |
| "rotation_vector" | axis times angle, radians | radians |
| "quaternion_xyzw" | unit quaternion, scalar last; q and -q are the same rotation | radians |
| "quaternion_wxyz" | the same, scalar first | radians |
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from hfvla.errors import DataError, did_you_mean

__all__ = [
    "REPRESENTATIONS",
    "Frame",
    "Representation",
    "angle_difference",
    "apply_pose_delta",
    "apply_rotation_delta",
    "from_rotation",
    "pose_delta",
    "rotation_delta",
    "to_rotation",
]

Representation = Literal["euler_degrees", "rotation_vector", "quaternion_xyzw", "quaternion_wxyz"]
Frame = Literal["world", "body"]

REPRESENTATIONS: dict[str, int] = {
    "euler_degrees": 3,
    "rotation_vector": 3,
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
}
"""Numbers of each representation."""

_FIXED_AXES = "xyz"


def angle_difference(end: np.ndarray, start: np.ndarray, period: float = 360.0) -> np.ndarray:
    """Shortest `end - start` of single angles, in [-period / 2, period / 2); for joints that turn on.

    Args:
        end: any shape.
        start: as `end`.
        period: of a full turn: 360 for degrees, 2 pi for radians.
    """
    difference = np.asarray(end, dtype=np.float64) - np.asarray(start, dtype=np.float64)
    return (difference + period / 2) % period - period / 2


def to_rotation(values: np.ndarray, representation: Representation) -> Rotation:
    """Return the scipy `Rotation` of [..., 3 or 4] values, one for each row of the flattened leading dimensions.

    Raises:
        DataError: unknown representation, wrong number of values, a value that is not finite, or a quaternion of 0.
    """
    if representation not in REPRESENTATIONS:
        raise DataError(f"unknown rotation '{representation}'", fix=did_you_mean(representation, REPRESENTATIONS))
    values = np.asarray(values, dtype=np.float64)
    if not values.ndim or values.shape[-1] != REPRESENTATIONS[representation]:
        expected = f"[..., {REPRESENTATIONS[representation]}]"
        raise DataError(f"wrong shape of '{representation}'", got=values.shape, expected=expected)
    rows = values.reshape(-1, values.shape[-1])
    bad = ~np.isfinite(rows).all(1)
    if representation.startswith("quaternion"):
        bad |= np.linalg.norm(rows, axis=1) < 1e-6
    if bad.any():
        first = int(bad.argmax())
        raise DataError(f"{int(bad.sum())} rows are no rotation, the first is row {first}", got=rows[first].tolist())
    if representation == "euler_degrees":
        return Rotation.from_euler(_FIXED_AXES, rows, degrees=True)
    if representation == "rotation_vector":
        return Rotation.from_rotvec(rows)
    return Rotation.from_quat(rows if representation == "quaternion_xyzw" else np.roll(rows, -1, axis=1))


def from_rotation(rotation: Rotation, representation: Representation) -> np.ndarray:
    """Return [N, 3 or 4] float64 of N rotations; quaternions with a scalar of 0 or more."""
    if representation == "euler_degrees":
        return rotation.as_euler(_FIXED_AXES, degrees=True)
    if representation == "rotation_vector":
        return rotation.as_rotvec()
    quaternion = rotation.as_quat(canonical=True)
    return quaternion if representation == "quaternion_xyzw" else np.roll(quaternion, 1, axis=1)


def rotation_delta(
    end: np.ndarray, start: np.ndarray, representation: Representation, frame: Frame = "world"
) -> np.ndarray:
    """Rotation vector that leads from `start` to `end`.

    Args:
        end: [..., 3 or 4].
        start: as `end`.
        representation: of both.
        frame: axes of the delta: "world" (applied from the left) or "body", those of `start` (from the right).

    Returns:
        [..., 3] float64, as long as the angle: at most 180 degrees or pi. At exactly half a turn its sign is free.

    Raises:
        DataError: see `to_rotation`; shapes differ, or the frame is unknown.
    """
    end, start = _same_shape(end, start)
    first, last = to_rotation(start, representation), to_rotation(end, representation)
    delta = last * first.inv() if _is_world(frame) else first.inv() * last
    return delta.as_rotvec(degrees=representation == "euler_degrees").reshape(*start.shape[:-1], 3)


def apply_rotation_delta(
    start: np.ndarray, delta: np.ndarray, representation: Representation, frame: Frame = "world"
) -> np.ndarray:
    """Inverse of `rotation_delta`: the rotation that `delta` leads to, as `representation`.

    Args:
        start: [..., 3 or 4].
        delta: [..., 3], in degrees for "euler_degrees", else radians.
        representation: of `start` and of the result.
        frame: of the delta.

    Returns:
        As `start`, float64; the same rotation as the original end, not always the same numbers (Euler angles and
        quaternions have several).

    Raises:
        DataError: see `to_rotation`; the leading shapes differ, or the frame is unknown.
    """
    start, delta = np.asarray(start, dtype=np.float64), np.asarray(delta, dtype=np.float64)
    if delta.shape != (*start.shape[:-1], 3):
        raise DataError("shape of a rotation delta", got=delta.shape, expected=(*start.shape[:-1], 3))
    first = to_rotation(start, representation)
    vector = np.deg2rad(delta) if representation == "euler_degrees" else delta
    step = to_rotation(vector, "rotation_vector")
    last = step * first if _is_world(frame) else first * step
    return from_rotation(last, representation).reshape(start.shape)


def pose_delta(
    end: np.ndarray, start: np.ndarray, representation: Representation, frame: Frame = "world"
) -> np.ndarray:
    """Difference of poses (position, then rotation), e.g. in mm and degrees.

    Args:
        end: [..., 3 + 3 or 4].
        start: as `end`.
        representation: of the rotation.
        frame: axes of both parts; "body" also turns the difference of positions into the axes of `start`.

    Returns:
        [..., 6] float64: difference of positions, rotation vector.

    Raises:
        DataError: see `rotation_delta`.
    """
    end, start = _same_shape(end, start)
    turned = rotation_delta(end[..., 3:], start[..., 3:], representation, frame)
    moved = end[..., :3] - start[..., :3]
    if not _is_world(frame):
        inverse = to_rotation(start[..., 3:], representation).inv()
        moved = inverse.apply(moved.reshape(-1, 3)).reshape(moved.shape)
    return np.concatenate([moved, turned], axis=-1)


def apply_pose_delta(
    start: np.ndarray, delta: np.ndarray, representation: Representation, frame: Frame = "world"
) -> np.ndarray:
    """Inverse of `pose_delta`.

    Args:
        start: [..., 3 + 3 or 4].
        delta: [..., 6].
        representation: of the rotation of `start` and of the result.
        frame: of the delta.

    Raises:
        DataError: see `apply_rotation_delta`.
    """
    start, delta = np.asarray(start, dtype=np.float64), np.asarray(delta, dtype=np.float64)
    turned = apply_rotation_delta(start[..., 3:], delta[..., 3:], representation, frame)
    moved = delta[..., :3]
    if not _is_world(frame):
        rotation = to_rotation(start[..., 3:], representation)
        moved = rotation.apply(moved.reshape(-1, 3)).reshape(moved.shape)
    return np.concatenate([start[..., :3] + moved, turned], axis=-1)


def _same_shape(end: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    end, start = np.asarray(end, dtype=np.float64), np.asarray(start, dtype=np.float64)
    if end.shape != start.shape:
        raise DataError("end and start differ in shape", got=end.shape, expected=start.shape)
    return end, start


def _is_world(frame: str) -> bool:
    if frame not in {"world", "body"}:
        raise DataError("unknown frame of a delta", got=frame, expected="world or body")
    return frame == "world"
