"""Draws `hfvla.family.Figure`s: PNG by matplotlib for plots, an HTML fragment for tables and examples."""

from __future__ import annotations

import io
import logging
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hfvla.errors import did_you_mean
from hfvla.evaluation.embedding_plots import draw_heatmap, draw_scatter
from hfvla.family import Figure

__all__ = ["HTML_KINDS", "KINDS", "draw", "render"]

logger = logging.getLogger(__name__)

# Okabe and Ito's palette: told apart with every common kind of colour blindness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#6B6B6B", "#B8A800")
INK, GRID, BLUES = "#1f2933", "#d9dee5", "Blues"
_MAX_CELLS = 20  # rows or columns of a matrix with a number in each cell
_MANY_INCHES, _MANY_FONT, _MAX_TICKS = 11.0, 6.0, 80
_BOX = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#d9dee5"}
_STYLE = {
    "text.parse_math": False,  # a name like "$5 or $10" is no formula
    "text.usetex": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": None,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def _wrap(label: str, width: int = 13) -> str:
    return "\n".join(textwrap.fill(line, width) for line in str(label).split("\n"))


def _legend_above(axes: Any, count: int) -> None:
    if count:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(count, 4), borderaxespad=0.4)


def draw_confusion(plt: Any, data: dict[str, Any]) -> Any:
    """Matrix of counts, shaded by share of the row. data: matrix R x C, rows, columns, row_title, column_title.

    With more than 20 rows or columns the picture has a fixed size, no counts, and the names of some rows and columns.
    """
    matrix = np.asarray(data["matrix"], dtype=float)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    height, width = matrix.shape
    few = (
        max(height, width) <= _MAX_CELLS
    )  # else neither numbers nor names would be read, and pixels grow by the square
    size = (2.4 + 0.95 * width, 1.6 + 0.75 * height) if few else (_MANY_INCHES, _MANY_INCHES * 0.85)
    figure, axes = plt.subplots(figsize=size)
    picture = axes.imshow(share, cmap=BLUES, vmin=0, vmax=1, aspect="auto")
    if few:
        axes.set_xticks(range(width), [_wrap(name, 12) for name in data["columns"]])
        axes.set_yticks(range(height), [_wrap(name, 16) for name in data["rows"]])
    else:
        columns, rows = _some_ticks(data["columns"]), _some_ticks(data["rows"])
        axes.set_xticks(*columns, rotation=90, fontsize=_MANY_FONT)
        axes.set_yticks(*rows, fontsize=_MANY_FONT)
    axes.set_xlabel(data.get("column_title", ""), labelpad=8)
    axes.set_ylabel(data.get("row_title", ""), labelpad=8)
    for row in range(height if few else 0):
        for column in range(width):
            value = matrix[row, column]
            colour = "white" if share[row, column] > 0.55 else (INK if value else "#b0b8c1")
            axes.text(column, row, f"{value:g}", ha="center", va="center", color=colour)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03, label="share of the row").outline.set_visible(False)
    return figure


def _some_ticks(names: Sequence[Any]) -> tuple[list[int], list[str]]:
    """Return evenly spaced places and the names there, each on one short line."""
    places = list(range(0, len(names), -(-len(names) // _MAX_TICKS)))
    return places, [textwrap.shorten(str(names[place]), 24, placeholder="...") for place in places]


def draw_reliability(plt: Any, data: dict[str, Any]) -> Any:
    """Reliability diagram. data: bins {low, high, confidence, accuracy, count}, ece, mce."""
    bins = {name: np.asarray(values, dtype=float) for name, values in data["bins"].items()}
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(5.6, 5.4), sharex=True, gridspec_kw={"height_ratios": [4, 1], "hspace": 0.08}
    )
    width = bins["high"] - bins["low"]
    bar = {"align": "edge", "width": width, "edgecolor": "white"}
    top.bar(bins["low"], bins["accuracy"], color=PALETTE[4], label="accuracy", **bar)
    gap = bins["confidence"] - bins["accuracy"]
    outline = {**bar, "color": "none", "edgecolor": PALETTE[5], "hatch": "////", "linewidth": 1.0}
    top.bar(bins["low"], gap, bottom=bins["accuracy"], label="gap to confidence", **outline)
    top.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="perfect")
    top.set(ylim=(0, 1), xlim=(0, 1), ylabel="share right")
    top.text(
        0.97, 0.05, f"ECE {data['ece']:.3f}\nMCE {data['mce']:.3f}", transform=top.transAxes, ha="right", bbox=_BOX
    )
    _legend_above(top, 3)
    bottom.bar(bins["low"], bins["count"], color="#8c98a4", **bar)
    bottom.set(xlabel="confidence", ylabel="rows")
    for axes in (top, bottom):
        axes.grid(axis="y")
    return figure


def draw_radar(plt: Any, data: dict[str, Any]) -> Any:
    """Radar from 0 to 1. data: axes [A], series {name: [A]}."""
    names = data["axes"]
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    figure, axes = plt.subplots(figsize=(6.0, 5.4), subplot_kw={"projection": "polar"})
    axes.set_theta_offset(np.pi / 2)
    axes.set_theta_direction(-1)
    for colour, (label, values) in zip(PALETTE, data["series"].items(), strict=False):
        closed = [*values, values[0]]
        axes.plot([*angles, angles[0]], closed, color=colour, linewidth=2, label=label)
        axes.fill([*angles, angles[0]], closed, color=colour, alpha=0.10)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], color="#7b8794", fontsize=8)
    axes.set_xticks(angles, [_wrap(name, 12) for name in names])
    axes.tick_params(axis="x", pad=12)
    axes.spines["polar"].set_color(GRID)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.2), ncols=len(data["series"]))
    return figure


def draw_bars(plt: Any, data: dict[str, Any]) -> Any:
    """Grouped bars. data: groups [G], series {name: [G]}, errors {name: [[low, high] or None]}, ylabel, ylim."""
    groups, series, errors = data["groups"], data["series"], data.get("errors", {})
    inches = 0.8 + len(groups) * (0.8 + 0.42 * len(series))
    figure, axes = plt.subplots(figsize=(min(max(6.4, inches), 16), 3.9))
    width = 0.8 / max(len(series), 1)
    for number, (label, values) in enumerate(series.items()):
        heights = np.asarray([np.nan if value is None else value for value in values], dtype=float)
        positions = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        colour = PALETTE[number % len(PALETTE)]
        axes.bar(positions, heights, width * 0.92, color=colour, label=label)
        bounds = errors.get(label) or [None] * len(groups)
        low = [max(0.0, h - b[0]) if b else 0.0 for h, b in zip(heights, bounds, strict=True)]
        high = [max(0.0, b[1] - h) if b else 0.0 for h, b in zip(heights, bounds, strict=True)]
        if any(low) or any(high):
            axes.errorbar(positions, heights, [low, high], fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        for position, height, above in zip(positions, heights, high, strict=True):
            if len(series) * len(groups) <= 24 and not np.isnan(height):
                text = f"{height:.2f}"
                axes.annotate(
                    text, (position, height + above), (0, 2), textcoords="offset points", ha="center", size=7.5
                )
    axes.set_xticks(range(len(groups)), [_wrap(group) for group in groups])
    axes.set_ylabel(data.get("ylabel", ""))
    if "ylim" in data:
        axes.set_ylim(data["ylim"][0], data["ylim"][1] * 1.06)
    axes.grid(axis="y")
    _legend_above(axes, len(series))
    return figure


def draw_curves(plt: Any, data: dict[str, Any]) -> Any:
    """Small multiples of lines. data: panels [{title, xlabel, ylabel, series {name: {x, y}}}]."""
    panels = data["panels"]
    columns = len(panels) if len(panels) <= 4 else 3
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.7 * columns + 0.6, 2.7 * rows + 0.3), squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        for colour, (label, line) in zip(PALETTE * 4, panel["series"].items(), strict=False):
            marker = "o" if len(line["x"]) < 25 else None
            axes.plot(
                line["x"],
                np.asarray(line["y"], dtype=float),
                color=colour,
                linewidth=1.6,
                marker=marker,
                markersize=3,
                label=label,
            )
        axes.set_title(panel["title"], loc="left", fontsize=10, fontweight="bold")
        axes.set(xlabel=panel.get("xlabel", ""), ylabel=panel.get("ylabel", ""))
        axes.grid(axis="y")
        if len(panel["series"]) > 1:
            axes.legend(fontsize=8)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.tight_layout()
    return figure


def draw_progression(plt: Any, data: dict[str, Any]) -> Any:
    """Scores from stage to stage. data: stages [S], series {metric: [S], None where unknown}."""
    stages, series = data["stages"], data["series"]
    figure, axes = plt.subplots(figsize=(max(6.0, 1.6 * len(stages) + 1), 3.7))
    for number, (label, values) in enumerate(series.items()):
        line = [np.nan if value is None else value for value in values]
        colour, marker = PALETTE[number % len(PALETTE)], "osD^v<>P"[number % 8]
        axes.plot(range(len(stages)), line, color=colour, marker=marker, linewidth=2, label=label)
    axes.set_xticks(range(len(stages)), [_wrap(stage, 16) for stage in stages])
    axes.set_xlim(-0.3, len(stages) - 0.7)
    axes.set_ylim(0, 1.03)
    axes.set_ylabel(data.get("ylabel", "score"))
    axes.grid(axis="y")
    _legend_above(axes, len(series))
    return figure


_DRAW: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "confusion": draw_confusion,
    "reliability": draw_reliability,
    "radar": draw_radar,
    "bars": draw_bars,
    "curves": draw_curves,
    "progression": draw_progression,
    "heatmap": draw_heatmap,
    "scatter": draw_scatter,
}
HTML_KINDS: tuple[str, ...] = ("table", "text_examples")
"""Kinds that become HTML in the report and no PNG. data of table: columns, rows. text_examples: examples."""

KINDS: tuple[str, ...] = (*_DRAW, *HTML_KINDS)
"""Every kind that a `Figure` may have."""


def draw(figure: Figure) -> bytes | None:
    """Draw a figure as PNG, or return None, with a warning that says why, where it cannot be drawn.

    One plot that fails must not cost the others, or the report.

    Raises:
        OSError: not of the figure, but of the disk.
    """
    try:
        return render(figure)
    except OSError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        logger.warning("the plot '%s' cannot be drawn: %s: %s", figure.name, type(error).__name__, reason)
        return None


def _drawable(value: Any) -> Any:
    """Replace characters in all texts that fonts have no shape for: control characters and halves of pairs."""
    if isinstance(value, str):
        return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in value)
    if isinstance(value, dict):
        return {_drawable(key): _drawable(entry) for key, entry in value.items()}
    return [_drawable(entry) for entry in value] if isinstance(value, list | tuple) else value


def render(figure: Figure, dpi: int = 150) -> bytes:
    """Draw a figure as PNG.

    Args:
        figure: of a kind in `KINDS` that is not in `HTML_KINDS`.
        dpi: dots per inch.

    Raises:
        ValueError: a kind that is not known, or that has no PNG.
    """
    if figure.kind not in _DRAW:
        no_png: Sequence[str] = HTML_KINDS
        hint = "it is HTML, not PNG" if figure.kind in no_png else did_you_mean(figure.kind, KINDS)
        raise ValueError(f"figure {figure.name!r} of kind {figure.kind!r} cannot be drawn as PNG: {hint}")
    import matplotlib

    matplotlib.use("Agg")
    from cycler import cycler
    from matplotlib import pyplot as plt

    style: Any = {**_STYLE, "axes.prop_cycle": cycler(color=PALETTE)}
    with plt.rc_context(style):
        drawn = _DRAW[figure.kind](plt, _drawable(figure.data))
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
        plt.close(drawn)
    return buffer.getvalue()
