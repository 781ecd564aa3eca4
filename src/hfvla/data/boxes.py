"""Boxes as shares of an image (cxcywh), and the spatial relations that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "BOX_TOLERANCE",
    "HORIZONTAL",
    "VERTICAL",
    "Box",
    "box_from_points",
    "box_problem",
    "clip_box",
    "relation_labels",
    "relation_words",
]

HORIZONTAL: tuple[str, ...] = ("left", "centre", "right")
"""Names of the horizontal classes, by label."""
VERTICAL: tuple[str, ...] = ("upper", "middle", "lower")
"""Names of the vertical classes, by label."""

BOX_TOLERANCE = 0.005
"""Share of the image by which an edge may lie outside: annotations are rounded."""

_FAR = 1e9

Box = tuple[float, float, float, float]
"""Centre x, centre y, width, height."""


def box_problem(value: object) -> str:
    """Return why a value is no cxcywh box inside the image, or "".

    Args:
        value: as read from a file.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        return "not four numbers"
    if not all(isinstance(part, int | float) and not isinstance(part, bool) for part in value):
        return "not four numbers"
    if not all(abs(part) < _FAR for part in value):  # NaN is not; a whole number may be too large for a float
        return "not finite"
    x, y, width, height = value
    if width <= 0 or height <= 0:
        return "no area"
    edges = (x - width / 2, y - height / 2, 1 - x - width / 2, 1 - y - height / 2)
    return "outside 0..1" if min(edges) < -BOX_TOLERANCE else ""


def clip_box(box: Sequence[float]) -> Box:
    """Cut a cxcywh box at the edges of the image; one wholly outside gets no area.

    One that stands out by less than a millionth stays as it is: six decimals are what files have.
    """
    x, y, width, height = box
    if min(x - width / 2, y - height / 2, 1 - x - width / 2, 1 - y - height / 2) > -1e-6:
        return x, y, width, height
    left, right = (min(max(edge, 0.0), 1.0) for edge in (x - width / 2, x + width / 2))
    top, bottom = (min(max(edge, 0.0), 1.0) for edge in (y - height / 2, y + height / 2))
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def box_from_points(points: np.ndarray) -> Box:
    """Return the cxcywh box around points.

    Args:
        points: [N, 2], x and y.
    """
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def relation_labels(boxes: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Return where each box lies relative to each other box.

    With A the first and B the second of a pair and dx = xA - xB: |dx| < 0.5 wA is "centre", else dx > 0 "left" and
    dx < 0 "right": B's place as seen from A. In y likewise with hA: "middle", "upper", "lower".

    Shapes: S boxes.

    Args:
        boxes: [S, 4], cxcywh.

    Returns:
        `np.ndarray`: [S, S, 2] int64; entry [a, b] holds the labels in `HORIZONTAL` and `VERTICAL`.
    """
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    difference = array[:, None, :2] - array[None, :, :2]
    near = np.abs(difference) < 0.5 * array[:, None, 2:]
    return np.where(near, 1, np.where(difference > 0, 0, 2)).astype(np.int64)


def relation_words(anchor: Sequence[float], other: Sequence[float]) -> tuple[str, str]:
    """Return the names of `other`'s place as seen from `anchor`, e.g. ("left", "upper"); both cxcywh."""
    across, down = relation_labels([anchor, other])[0, 1]
    return HORIZONTAL[across], VERTICAL[down]
