"""Plots of pictures and texts in one space: their similarities, and where they lie."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

__all__ = ["draw_heatmap", "draw_scatter"]

_LONGEST_NAME = 34
_MARKERS = "osD^v<>P"


def _short(name: Any) -> str:
    return textwrap.shorten(str(name), _LONGEST_NAME, placeholder="...")


def draw_heatmap(plt: Any, data: dict[str, Any]) -> Any:
    """Matrix of values, each by its colour. data: matrix R x C, rows, columns, row_title, column_title, label."""
    matrix = np.asarray(data["matrix"], dtype=float)
    height, width = matrix.shape
    figure, axes = plt.subplots(figsize=(3.2 + 0.36 * width, 2.4 + 0.32 * height))
    picture = axes.imshow(matrix, cmap="viridis", aspect="auto")
    axes.set_xticks(range(width), [_short(name) for name in data["columns"]], rotation=90, fontsize=7)
    axes.set_yticks(range(height), [_short(name) for name in data["rows"]], fontsize=7)
    axes.set_xlabel(data.get("column_title", ""), labelpad=8)
    axes.set_ylabel(data.get("row_title", ""), labelpad=8)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03, label=data.get("label", ""))
    bar.outline.set_visible(False)
    return figure


def draw_scatter(plt: Any, data: dict[str, Any]) -> Any:
    """Points in a plane, one mark a series. data: series {name: {x, y}}, pairs [[x, y], [x, y]], xlabel, ylabel.

    A thin line joins the two points of each pair.
    """
    figure, axes = plt.subplots(figsize=(6.4, 5.6))
    for first, second in data.get("pairs", ()):
        axes.plot([first[0], second[0]], [first[1], second[1]], color="#c3cad2", linewidth=0.6, zorder=1)
    for number, (name, points) in enumerate(data["series"].items()):
        axes.scatter(points["x"], points["y"], s=18, marker=_MARKERS[number % len(_MARKERS)], label=name, zorder=2)
    axes.set(xlabel=data.get("xlabel", ""), ylabel=data.get("ylabel", ""))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(data["series"]), borderaxespad=0.4)
    return figure
