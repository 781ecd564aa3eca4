"""A canvas that collects SVG elements, axes on it, and round numbers for their ticks."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence

__all__ = ["PALETTE", "Axes", "Canvas", "shown", "ticks"]

# Okabe and Ito's palette: told apart with every common kind of colour blindness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8a8a8a", "#B8A800")
FONT = 12
_STYLE = """
.chart text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:var(--ink,#1f2933)}
.chart text.soft{fill:var(--soft,#5b6875)}.chart text.small{font-size:10.5px}.chart text.bold{font-weight:650}
.chart text.light{fill:#fff}.chart .grid{stroke:var(--line,#d9dee5);stroke-width:1}
.chart .axis{stroke:var(--soft,#9aa5b1);stroke-width:1}.chart .mark{stroke:var(--card,#fff);stroke-width:1}
.chart .ink{stroke:var(--ink,#1f2933);stroke-width:1.2;fill:none}
.chart .line{fill:none;stroke-width:1.8;stroke-linejoin:round}
""".strip().replace("\n", "")


def shown(value: float | None) -> str:
    """Return a number as a tip or a tick shows it."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _escape(text: object) -> str:
    clean = "".join(one if one.isprintable() else "\ufffd" if one != "\n" else " " for one in str(text))
    return html.escape(clean.encode("utf-8", "replace").decode("utf-8"), quote=True)


def shorten(text: object, most: int) -> str:
    """Return a text of at most so many characters."""
    one = " ".join(str(text).split())
    return one if len(one) <= most else f"{one[: max(most - 1, 1)]}…"


class Canvas:
    """Collects elements.

    Args:
        width: in units of the drawing; it scales to its place.
        height: the same.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def text(self, x: float, y: float, text: object, anchor: str = "start", style: str = "", turn: float = 0) -> None:
        """Write a text; anchor is start, middle or end, style names classes."""
        turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}"{turned}>{_escape(text)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str = "grid") -> None:
        """Draw a straight line."""
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>')

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, tip: str = "", opacity: float = 1.0
    ) -> None:
        """Draw a filled box; a tip is shown to whoever points at it."""
        more = f' data-tip="{_escape(tip)}"' if tip else ""
        more += f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
        size = f'width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
        self._parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{fill}"{more}/>')

    def dot(self, x: float, y: float, fill: str, tip: str = "", radius: float = 3.0) -> None:
        """Draw a dot."""
        more = f' data-tip="{_escape(tip)}"' if tip else ""
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" class="mark"{more}/>')

    def path(
        self, points: Sequence[tuple[float, float] | None], colour: str, dashed: bool = False, fill: str = ""
    ) -> None:
        """Draw a line through points, with a gap at each None; filled, it is closed."""
        steps, pen = [], "M"
        for point in points:
            if point is None:
                pen = "M"
                continue
            steps.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
            pen = "L"
        if not steps:
            return
        look = f' fill="{fill}" fill-opacity="0.12" style="fill:{fill}"' if fill else ""
        look += ' stroke-dasharray="5 4"' if dashed else ""
        closed = "Z" if fill else ""
        self._parts.append(f'<path d="{" ".join(steps)}{closed}" class="line" stroke="{colour}"{look}/>')

    def hover(self, points: Sequence[tuple[float, float, str]]) -> None:
        """Leave points with texts for the page's script, which shows the one nearest to the pointer."""
        if points:
            data = json.dumps([[round(x, 1), round(y, 1), text] for x, y, text in points], ensure_ascii=False)
            self._parts.append(f'<g class="points" data-points="{_escape(data)}"></g>')

    def legend(self, x: float, y: float, names: Sequence[str], colours: Sequence[str], width: float) -> float:
        """Write a legend from (x, y) on, in as many lines as it needs, and return the y below it."""
        left = x
        for name, colour in zip(names, colours, strict=False):
            text = shorten(name, 40)
            needs = 20 + 6.7 * len(text) + 14
            if left > x and left + needs > x + width:
                left, y = x, y + 17
            self.box(left, y - 9, 12, 10, colour)
            self.text(left + 17, y, text, style="soft")
            left += needs
        return y + 12

    def svg(self, title: str) -> str:
        """Return the drawing as an SVG element that stands alone."""
        most = f"max-width:{self.width * 1.2:.0f}px"
        return (
            f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" role="img" style="{most}" '
            f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" '
            f'aria-label="{_escape(title)}"><style>{_STYLE}</style>{"".join(self._parts)}</svg>'
        )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from about low to about high."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    rough = (high - low) / max(count - 1, 1)
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first = math.floor(low / step + 1e-9) * step
    found = [first]
    while found[-1] < high - step * 1e-6:
        found.append(first + len(found) * step)
    return [round(value, 12) for value in found]


class Axes:
    """A frame with two scales.

    Args:
        canvas: to draw on.
        left: x of the frame's left side.
        top: y of its upper side.
        width: of the frame.
        height: of the frame.
        x: ticks of the x scale; the first and last are its ends.
        y: the same of the y scale.
    """

    def __init__(
        self,
        canvas: Canvas,
        left: float,
        top: float,
        width: float,
        height: float,
        x: Sequence[float],
        y: Sequence[float],
    ) -> None:
        self.canvas, self.left, self.top, self.width, self.height = canvas, left, top, width, height
        self.x, self.y = list(x), list(y)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a pair of values."""
        (x0, x1), (y0, y1) = (self.x[0], self.x[-1]), (self.y[0], self.y[-1])
        across = (x - x0) / (x1 - x0) if x1 != x0 else 0.5
        up = (y - y0) / (y1 - y0) if y1 != y0 else 0.5
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def frame(self, xlabel: str = "", ylabel: str = "", numbers: bool = True) -> None:
        """Draw grid, ticks and labels."""
        for value in self.y:
            y = self.at(self.x[0], value)[1]
            self.canvas.line(self.left, y, self.left + self.width, y)
            self.canvas.text(self.left - 6, y + 4, shown(value), "end", "soft small")
        base = self.top + self.height
        self.canvas.line(self.left, base, self.left + self.width, base, "axis")
        if numbers:
            for value in self.x:
                x = self.at(value, self.y[0])[0]
                self.canvas.text(x, base + 15, shown(value), "middle", "soft small")
        if xlabel:
            self.canvas.text(self.left + self.width / 2, base + 31, xlabel, "middle", "soft small")
        if ylabel:
            x, y = self.left - 44, self.top + self.height / 2
            self.canvas.text(x, y, ylabel, "middle", "soft small", turn=-90)
