"""Draws a `Figure` as SVG, by its kind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from hfvla.evaluation.charts import blocks, lines
from hfvla.evaluation.charts.canvas import Canvas
from hfvla.family import Figure

__all__ = ["SVG_KINDS", "draw_svg"]

logger = logging.getLogger(__name__)

_DRAW: dict[str, Callable[[Mapping[str, Any]], Canvas]] = {
    "confusion": blocks.confusion,
    "heatmap": blocks.heatmap,
    "bars": blocks.bars,
    "reliability": blocks.reliability,
    "curves": lines.curves,
    "progression": lines.progression,
    "radar": lines.radar,
    "scatter": lines.scatter,
}
SVG_KINDS: tuple[str, ...] = tuple(_DRAW)
"""Kinds of figures that have an SVG."""


def draw_svg(figure: Figure) -> str | None:
    """Return a figure as an SVG element, or None, with a warning that says why, where it cannot be drawn.

    One plot that fails must not cost the others, or the report.
    """
    try:
        return _DRAW[figure.kind](_plain(figure.data)).svg(figure.title)
    except Exception as error:
        reason = " ".join(str(error).split())
        logger.warning("the plot '%s' cannot be drawn: %s: %s", figure.name, type(error).__name__, reason)
        return None


def _plain(value: Any) -> Any:
    """Return arrays as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value
