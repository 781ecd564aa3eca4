"""An answer as a person looks at it: what a page shows of any family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Curve", "Shown"]


@dataclass(frozen=True)
class Curve:
    """Lines over one axis.

    Attributes:
        title: above it.
        x_label: with its unit.
        y_label: with its unit.
        x: of all lines.
        lines: values by name.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    lines: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Shown:
    """Parts of an answer; empty ones are left out.

    Attributes:
        text: in Markdown.
        confidences: probability by name.
        headings: of the table.
        rows: of the table.
        pictures: PIL images with their captions.
        curve: one drawing.
        film: an .mp4 file's content.
    """

    text: str = ""
    confidences: Mapping[str, float] = field(default_factory=dict)
    headings: tuple[str, ...] = ()
    rows: Sequence[Sequence[Any]] = ()
    pictures: Sequence[tuple[Any, str]] = ()
    curve: Curve | None = None
    film: bytes = b""
