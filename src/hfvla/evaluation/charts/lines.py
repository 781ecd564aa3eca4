"""Charts of lines: small multiples, scores from stage to stage, and radars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hfvla.evaluation.charts.canvas import PALETTE, Axes, Canvas, shorten, shown, ticks

__all__ = ["curves", "progression", "radar", "scatter"]

_MAX_HOVER = 200  # points of a line that say their numbers
_WIDTH = 1080


def _finite(values: Sequence[Any]) -> list[float]:
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def curves(data: Mapping[str, Any]) -> Canvas:
    """Small multiples of lines. data: panels [{title, xlabel, ylabel, series {name: {x, y}}}]."""
    panels = data["panels"]
    columns = max(1, min(len(panels), 4 if len(panels) > 9 else 3))
    rows = -(-len(panels) // columns)
    width = _WIDTH / columns
    height = 250 if columns < 4 else 205
    names = list(dict.fromkeys(name for panel in panels for name in panel["series"]))
    shared = (
        len(names) > 1 and all(len(panel["series"]) > 1 or len(panels) == 1 for panel in panels) and len(names) < 9
    )
    canvas = Canvas(_WIDTH, rows * height + (26 if shared else 0))
    top = 0.0
    if shared:
        canvas.legend(50, 14, names, [PALETTE[n % len(PALETTE)] for n in range(len(names))], _WIDTH - 60)
        top = 26.0
    for number, panel in enumerate(panels):
        place = (number % columns) * width, top + (number // columns) * height
        colours = {name: PALETTE[n % len(PALETTE)] for n, name in enumerate(names if shared else panel["series"])}
        _panel(canvas, place, (width, height), panel, colours, legend=not shared and len(panel["series"]) > 1)
    return canvas


def _panel(
    canvas: Canvas,
    place: tuple[float, float],
    size: tuple[float, float],
    panel: Mapping[str, Any],
    colours: Mapping[str, str],
    legend: bool,
) -> None:
    left, top = place
    canvas.text(left + 52, top + 16, shorten(panel.get("title", ""), int(size[0] / 7.5)), style="bold")
    below = top + 24
    if legend:
        below = canvas.legend(left + 52, top + 34, list(colours), list(colours.values()), size[0] - 70)
    lines = panel["series"].values()
    across, up = _finite([x for line in lines for x in line["x"]]), _finite([y for line in lines for y in line["y"]])
    if not across or not up:
        canvas.text(left + size[0] / 2, top + size[1] / 2, "no finite value", "middle", "soft")
        return
    few = 4 if size[0] < 300 else 5
    x = [min(across), *ticks(min(across), max(across), few)[1:-1], max(across)]
    axes = Axes(canvas, left + 52, below, size[0] - 70, top + size[1] - below - 40, x, ticks(min(up), max(up), few))
    axes.frame(panel.get("xlabel", ""), panel.get("ylabel", ""), numbers=False)
    for value in ticks(min(across), max(across), few):
        if min(across) <= value <= max(across):
            canvas.text(
                axes.at(value, axes.y[0])[0], axes.top + axes.height + 15, shown(value), "middle", "soft small"
            )
    hover = []
    for name, line in panel["series"].items():
        label = f"{name}: " if len(panel["series"]) > 1 else ""
        where = panel.get("xlabel", "")
        at = f"at {where} " if 0 < len(where) < 20 else "at "
        hover += _line(axes, line, colours[name], name in ("chance", "perfect"), label, at)
    canvas.hover(hover)


def _line(
    axes: Axes, line: Mapping[str, Any], colour: str, dashed: bool, label: str, at: str
) -> list[tuple[float, float, str]]:
    """Draw one line, and return the points that say their numbers."""
    pairs = [
        (float(a), float(b)) if b is not None and math.isfinite(b) else None
        for a, b in zip(line["x"], line["y"], strict=True)
    ]
    points = [None if pair is None else axes.at(*pair) for pair in pairs]
    axes.canvas.path(points, colour, dashed=dashed)
    known = [(point, pair) for point, pair in zip(points, pairs, strict=True) if point and pair]
    if len(known) < 25:
        for point, _ in known:
            axes.canvas.dot(*point, colour, radius=2.6)
    every = max(1, -(-len(known) // _MAX_HOVER))
    return [(x, y, f"{label}{shown(pair[1])} {at}{shown(pair[0])}") for (x, y), pair in known[::every]]


def progression(data: Mapping[str, Any]) -> Canvas:
    """Scores from stage to stage. data: stages [S], series {metric: [S], None where unknown}."""
    stages, series = data["stages"], data["series"]
    width = max(560, 130 * len(stages) + 120)
    canvas = Canvas(width, 330)
    colours = [PALETTE[n % len(PALETTE)] for n in range(len(series))]
    top = canvas.legend(52, 16, list(series), colours, width - 80)
    values = _finite([value for line in series.values() for value in line])
    low, high = min([0.0, *values]), max([1.0, *values])
    axes = Axes(canvas, 52, top, width - 80, 330 - top - 40, [-0.3, len(stages) - 0.7], ticks(low, high))
    axes.frame("", data.get("ylabel", ""), numbers=False)
    for number, stage in enumerate(stages):
        canvas.text(axes.at(number, axes.y[0])[0], axes.top + axes.height + 18, shorten(stage, 20), "middle", "soft")
    for colour, (name, line) in zip(colours, series.items(), strict=True):
        points = [None if value is None else axes.at(n, value) for n, value in enumerate(line)]
        canvas.path(points, colour)
        for point, value, stage in zip(points, line, stages, strict=True):
            if point is not None:
                canvas.dot(*point, colour, f"{name} after {stage}: {shown(value)}", 4)
    return canvas


def radar(data: Mapping[str, Any]) -> Canvas:
    """Radar from 0 to 1. data: axes [A], series {name: [A]}."""
    names, series = data["axes"], data["series"]
    canvas = Canvas(520, 440)
    colours = [PALETTE[n % len(PALETTE)] for n in range(len(series))]
    canvas.legend(30, 16, list(series), colours, 470)
    centre, radius = (260.0, 235.0), 140.0

    def at(number: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * number / max(len(names), 1)
        return centre[0] + math.sin(angle) * radius * value, centre[1] - math.cos(angle) * radius * value

    for ring in (0.25, 0.5, 0.75, 1.0):
        corners = [at(number, ring) for number in range(len(names))]
        for one, two in zip(corners, [*corners[1:], corners[0]], strict=True):
            canvas.line(*one, *two)
    for number, name in enumerate(names):
        canvas.line(*centre, *at(number, 1))
        x, y = at(number, 1.13)
        anchor = "middle" if abs(x - centre[0]) < 20 else "start" if x > centre[0] else "end"
        canvas.text(x, y + 4, shorten(name, 22), anchor, "small")
    for colour, (label, values) in zip(colours, series.items(), strict=True):
        points = [at(number, min(max(value or 0.0, 0.0), 1.0)) for number, value in enumerate(values)]
        canvas.path([*points, points[0]] if points else [], colour, fill=colour)
        for point, value, name in zip(points, values, names, strict=True):
            canvas.dot(*point, colour, f"{label} of {name}: {shown(value)}", 3.4)
    return canvas


def scatter(data: Mapping[str, Any]) -> Canvas:
    """Points in a plane. data: series {name: {x, y}}, and pairs [[[x, y], [x, y]]] that a line joins."""
    series = data["series"]
    canvas = Canvas(560, 460)
    colours = [PALETTE[n % len(PALETTE)] for n in range(len(series))]
    top = canvas.legend(52, 16, list(series), colours, 480)
    across, up = (_finite([v for line in series.values() for v in line[axis]]) or [0.0, 1.0] for axis in ("x", "y"))
    axes = Axes(canvas, 52, top, 480, 460 - top - 40, ticks(min(across), max(across)), ticks(min(up), max(up)))
    axes.frame(data.get("xlabel", ""), data.get("ylabel", ""))
    for first, second in data.get("pairs", ()):
        canvas.line(*axes.at(*first), *axes.at(*second))
    for colour, (name, line) in zip(colours, series.items(), strict=True):
        names = line.get("names") or [name] * len(line["x"])
        for x, y, label in zip(line["x"], line["y"], names, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                canvas.dot(*axes.at(x, y), colour, f"{label}: {shown(x)}, {shown(y)}", 3.5)
    return canvas
