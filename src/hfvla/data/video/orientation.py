"""How stored frames are turned and mirrored to be shown: the display matrix of a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.errors import DataError

__all__ = ["UPRIGHT", "Orientation", "orientation_of"]

_ONE = 1 << 16  # the matrix has fixed-point numbers
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Orientation:
    """What is done to a stored frame: first mirrored, then turned.

    Attributes:
        rotation: degrees counter-clockwise: 0, 90, 180 or 270.
        mirrored: whether left and right change sides.
    """

    rotation: int = 0
    mirrored: bool = False

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return a frame [H, W, 3] as it is shown."""
        if self == UPRIGHT:
            return pixels
        shown = pixels[:, ::-1] if self.mirrored else pixels
        return np.ascontiguousarray(np.rot90(shown, self.rotation // 90))


UPRIGHT = Orientation()


def orientation_of(frame: Any, where: str) -> Orientation:
    """Read the display matrix that came with a frame.

    Source: FFmpeg's libavutil/display.h: a point (p, q) is shown at (a p + c q, b p + d q), y downwards, where the
    matrix is [a, b, u, c, d, v, x, y, w].

    Args:
        frame: `av.VideoFrame`.
        where: file, for errors.

    Raises:
        DataError: turned by an odd angle, or skewed.
    """
    found = next((one for one in frame.side_data if one.type.name == "DISPLAYMATRIX"), None)
    if found is None:
        return UPRIGHT
    a, b, _, c, d, *_ = (int(number) for number in np.frombuffer(bytes(found), np.int32))
    scale = max(abs(a), abs(b), abs(c), abs(d)) or _ONE
    shown = np.array([[a, c], [b, d]]) / scale
    quarter, flip = np.array([[0, 1], [-1, 0]]), np.array([[-1, 0], [0, 1]])
    for mirrored in (False, True):
        for turns in range(4):
            wanted = np.linalg.matrix_power(quarter, turns) @ (flip if mirrored else np.eye(2))
            if np.abs(shown - wanted).max() < _TOLERANCE:
                return Orientation(90 * turns, mirrored)
    raise DataError(
        "video is rotated by an odd angle",
        where=where,
        got=f"display matrix {[round(number / _ONE, 3) for number in (a, b, c, d)]}",
        expected="0, 90, 180 or 270 degrees, mirrored or not",
    )
