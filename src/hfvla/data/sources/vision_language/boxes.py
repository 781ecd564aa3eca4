"""Boxes as sets write them, in pixels of the picture as it is displayed."""

from __future__ import annotations

from typing import Any

from hfvla.data.samples.chat import Box, ImageRef
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.reading import Reading

__all__ = ["ROUNDING_PIXELS", "box_from_xywh", "box_from_xyxy", "sized_picture"]

ROUNDING_PIXELS = 1.0
"""By which a box may stand out of its picture: annotations are rounded; it is cut at the edge."""


def _numbers(value: Any) -> tuple[float, float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise UnusableError("box is not four numbers", repr(value)[:120])
    if not all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in value):
        raise UnusableError("box is not four numbers", repr(value)[:120])
    if not all(abs(edge) < 1e9 for edge in value):  # NaN is not
        raise UnusableError("box is not finite", repr(value)[:120])
    return (float(value[0]), float(value[1]), float(value[2]), float(value[3]))


def box_from_xywh(value: Any, size: tuple[Any, Any], label: str, *, crowd: bool = False) -> Box:
    """Return a box of left, top, width and height.

    Raises:
        UnusableError: no four finite numbers, no area, outside of the picture, or a picture without a size.
    """
    left, top, width, height = _numbers(value)
    return box_from_xyxy([left, top, left + width, top + height], size, label, crowd=crowd)


def box_from_xyxy(value: Any, size: tuple[Any, Any], label: str, *, crowd: bool = False) -> Box:
    """Return a box of left, top, right and bottom; see `box_from_xywh`."""
    left, top, right, bottom = _numbers(value)
    wide, high = size
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (wide, high)):
        raise UnusableError("picture without a size", f"{wide!r} x {high!r}")
    if not (right > left and bottom > top):
        raise UnusableError("box without area", f"{label!r}: {list(value)}")
    slack = ROUNDING_PIXELS
    if left < -slack or top < -slack or right > wide + slack or bottom > high + slack:
        raise UnusableError("box outside of its picture", f"{label!r}: {list(value)} in {wide} x {high}")
    edges = (max(left, 0.0), max(top, 0.0), min(right, float(wide)), min(bottom, float(high)))
    if not (edges[2] > edges[0] and edges[3] > edges[1]):
        raise UnusableError("box outside of its picture", f"{label!r}: {list(value)} in {wide} x {high}")
    return Box(0, label, edges, (wide, high), crowd)


def sized_picture(reading: Reading, picture: ImageRef, size: tuple[int, int]) -> None:
    """Compare the size that an annotation's boxes refer to with the picture's own.

    A picture that its EXIF entry turns is displayed on its side, and boxes of the stored one lie elsewhere in it.

    Raises:
        UnusableError: another size.
    """
    if reading.images is None or not picture.path or reading.options.check_images == "exists":
        return
    found = reading.images.size(picture.path)
    if found != size:
        raise UnusableError(
            "boxes of another size than the picture's",
            f"{picture.path}: annotated {size[0]} x {size[1]}, displayed {found[0]} x {found[1]}",
        )
