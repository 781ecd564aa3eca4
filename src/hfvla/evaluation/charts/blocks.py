"""Charts of boxes: matrices, bars with their intervals, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hfvla.evaluation.charts.canvas import PALETTE, Axes, Canvas, shorten, shown, ticks

__all__ = ["bars", "confusion", "heatmap", "reliability"]

_BLUE = "#0072B2"
_FEW = 20  # rows or columns of a matrix with a number in each cell
_SIDE = 640.0


def confusion(data: Mapping[str, Any]) -> Canvas:
    """Matrix of counts, shaded by share of the row. data: matrix R x C, rows, columns, row_title, column_title."""
    totals = [sum(row) for row in data["matrix"]]
    shares = [[value / (total or 1) for value in row] for row, total in zip(data["matrix"], totals, strict=True)]

    def tip(row: int, column: int) -> str:
        share = f"{shares[row][column]:.0%} of {shown(totals[row])}"
        return f"{data['rows'][row]} → {data['columns'][column]}: {shown(data['matrix'][row][column])} ({share})"

    return _matrix(data, shares, tip, "darker: a larger share of the row")


def heatmap(data: Mapping[str, Any]) -> Canvas:
    """Matrix of values. data: matrix R x C, rows, columns, label, row_title, column_title."""
    found = [value for row in data["matrix"] for value in row if value is not None]
    low, high = min(found, default=0.0), max(found, default=1.0)
    shares = [[0.0 if v is None else (v - low) / ((high - low) or 1) for v in row] for row in data["matrix"]]
    label = data.get("label", "")

    def tip(row: int, column: int) -> str:
        return f"{data['rows'][row]} × {data['columns'][column]}: {label} {shown(data['matrix'][row][column])}"

    return _matrix(data, shares, tip, f"{label}: {shown(low)} to {shown(high)}, darker is more")


def _matrix(data: Mapping[str, Any], shares: Sequence[Sequence[float]], tip: Any, note: str) -> Canvas:
    rows, columns = data["rows"], data["columns"]
    few = max(len(rows), len(columns)) <= _FEW
    cell = min(74.0, max(_SIDE / max(len(rows), len(columns), 1), 3.0))
    left = 30 + 6.6 * min(max((len(str(name)) for name in rows), default=1), 22)
    top, foot = 40.0, 26 + 5.0 * min(max((len(str(name)) for name in columns), default=1), 22)
    canvas = Canvas(max(left + cell * len(columns) + 30, 340.0), top + cell * len(rows) + foot + 20)
    canvas.text(left, 16, note, style="soft small")
    for row, name in enumerate(rows):
        if few or cell > 10:
            canvas.text(left - 7, top + (row + 0.5) * cell + 4, shorten(name, 22), "end", "small")
        for column in range(len(columns)):
            share, value = shares[row][column], data["matrix"][row][column]
            x, y = left + column * cell, top + row * cell
            canvas.box(x, y, cell - 1, cell - 1, _BLUE, tip(row, column), 0.04 + 0.9 * share)
            if few and cell >= 22:
                text = shown(value) if isinstance(value, int) else f"{value:.2f}" if value is not None else "–"
                if data.get("label") is None and value is not None:
                    text = shown(value)
                colour = "light" if share > 0.5 else ""
                canvas.text(x + cell / 2, y + cell / 2 + 4, text, "middle", f"{colour} small")
    for column, name in enumerate(columns):
        if few or cell > 10:
            x, y = left + (column + 0.5) * cell, top + cell * len(rows) + 14
            canvas.text(
                x + 3,
                y,
                shorten(name, 22),
                "end" if len(columns) > 3 else "middle",
                "small",
                -40 if len(columns) > 3 else 0,
            )
    if data.get("row_title"):
        canvas.text(12, top + cell * len(rows) / 2, data["row_title"], "middle", "soft small", -90)
    if data.get("column_title"):
        canvas.text(left + cell * len(columns) / 2, canvas.height - 4, data["column_title"], "middle", "soft small")
    return canvas


def bars(data: Mapping[str, Any]) -> Canvas:
    """Grouped bars. data: groups [G], series {name: [G]}, errors {name: [[low, high] or None]}, ylabel, ylim."""
    groups, series, errors = data["groups"], data["series"], data.get("errors", {})
    for name, line in series.items():
        if len(line) != len(groups):
            raise ValueError(f"{len(line)} values of '{name}' for {len(groups)} groups")
    wide = max(520.0, min(1080.0, 90 + len(groups) * (34 + 26 * len(series))))
    canvas = Canvas(wide, 350)
    colours = [PALETTE[n % len(PALETTE)] for n in range(len(series))]
    top = canvas.legend(52, 16, list(series), colours, wide - 80)
    values = [v for line in series.values() for v in line if v is not None]
    values += [bound for line in errors.values() for pair in line if pair for bound in pair]
    low, high = data["ylim"] if "ylim" in data else (min([0.0, *values]), max([0.0, *values]))
    axes = Axes(canvas, 52, top, wide - 80, 350 - top - 58, [0, max(len(groups), 1)], ticks(low, high))
    axes.frame("", data.get("ylabel", ""), numbers=False)
    step = axes.width / max(len(groups), 1)
    bar = step * 0.8 / max(len(series), 1)
    for group, name in enumerate(groups):
        for number, part in enumerate(str(name).split("\n")[:2]):
            room = int(step / 6) + 2
            x = axes.left + (group + 0.5) * step
            canvas.text(
                x, axes.top + axes.height + 17 + 14 * number, shorten(part, max(room, 4)), "middle", "soft small"
            )
        for number, (label, line) in enumerate(series.items()):
            value = line[group]
            if value is None:
                continue
            x = axes.left + group * step + step * 0.1 + number * bar
            pair = (errors.get(label) or [None] * len(groups))[group]
            _bar(axes, x, bar, value, pair, colours[number], f"{label}, {' '.join(str(name).split())}")
            if len(series) * len(groups) <= 24:
                highest = max(value, pair[1]) if pair else value
                canvas.text(x + bar / 2, axes.at(0, highest)[1] - 4, f"{value:.2f}", "middle", "small")
    return canvas


def _bar(
    axes: Axes, x: float, width: float, value: float, pair: Sequence[float] | None, colour: str, label: str
) -> None:
    y, zero = axes.at(0, value)[1], axes.at(0, max(axes.y[0], 0.0))[1]
    tip = f"{label}: {shown(value)}" + (f" ({shown(pair[0])} to {shown(pair[1])})" if pair else "")
    axes.canvas.box(x, min(y, zero), width * 0.92, abs(zero - y), colour, tip)
    if pair and pair[0] != pair[1]:
        middle, (low, high) = x + width * 0.46, (axes.at(0, bound)[1] for bound in pair)
        axes.canvas.line(middle, low, middle, high, "ink")
        for bound in (low, high):
            axes.canvas.line(middle - 3, bound, middle + 3, bound, "ink")


def reliability(data: Mapping[str, Any]) -> Canvas:
    """Reliability diagram. data: bins {low, high, confidence, accuracy, count}, ece, mce."""
    bins = data["bins"]
    canvas = Canvas(520, 470)
    canvas.legend(52, 16, ["share right", "gap to the confidence"], [PALETTE[4], PALETTE[5]], 440)
    unit = [0, 0.2, 0.4, 0.6, 0.8, 1]
    above = Axes(canvas, 52, 30, 440, 300, unit, unit)
    above.frame("", "share right")
    most = max([*bins["count"], 1])
    below = Axes(canvas, 52, 366, 440, 60, unit, [0, most])
    below.frame("confidence", "rows")
    for low, high, sure, right, count in zip(
        *(bins[k] for k in ("low", "high", "confidence", "accuracy", "count")), strict=True
    ):
        left, y = above.at(low, right)
        width, base = above.at(high, 0)[0] - left - 1.5, above.at(0, 0)[1]
        tip = (
            f"confidence {shown(low)} to {shown(high)}: {shown(count)} rows, {shown(right)} right, {shown(sure)} sure"
        )
        canvas.box(left, y, width, base - y, PALETTE[4], tip)
        there = above.at(low, sure)[1]
        canvas.box(left, min(y, there), width, abs(there - y), PALETTE[5], tip, 0.55)
        canvas.box(left, below.at(low, count)[1], width, below.at(0, 0)[1] - below.at(low, count)[1], "#8c98a4", tip)
    canvas.path([above.at(0, 0), above.at(1, 1)], "#6b7680", dashed=True)
    canvas.text(484, 318, f"ECE {shown(data['ece'])}   MCE {shown(data['mce'])}", "end", "bold small")
    return canvas
