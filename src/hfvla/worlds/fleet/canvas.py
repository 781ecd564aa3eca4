"""A drawing surface in unit coordinates, with the light and colour jitter of one picture."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

__all__ = ["Canvas", "Colour"]

Colour = tuple[int, int, int]


class Canvas:
    """Draws shapes on a square picture.

    Args:
        size: pixels a side.
        generator: source of all variation.

    Coordinates run from 0 to 1, x to the right, y down.
    """

    def __init__(self, size: int, generator: random.Random) -> None:
        self.size, self.random = size, generator
        self.image = Image.new("RGB", (size, size))
        self._draw = ImageDraw.Draw(self.image)

    def between(self, low: float, high: float) -> float:
        """A number from a uniform distribution."""
        return self.random.uniform(low, high)

    def tone(self, colour: Sequence[int], spread: int = 18) -> Colour:
        """The colour, a little lighter or darker and a little off in hue."""
        shift = self.random.randint(-spread, spread)
        red, green, blue = (max(0, min(255, value + shift + self.random.randint(-6, 6))) for value in colour)
        return red, green, blue

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Filled rectangle."""
        n = self.size
        self._draw.rectangle((min(x0, x1) * n, min(y0, y1) * n, max(x0, x1) * n, max(y0, y1) * n), fill=colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Filled ellipse."""
        n = self.size
        self._draw.ellipse(((x - rx) * n, (y - ry) * n, (x + rx) * n, (y + ry) * n), fill=colour)

    def shape(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Filled polygon."""
        self._draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=colour)

    def stroke(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 0.01) -> None:
        """Line through points; width in units of the picture's side."""
        pixels = max(1, round(width * self.size))
        self._draw.line([(x * self.size, y * self.size) for x, y in points], fill=colour, width=pixels)

    def fade(self, top: Colour, bottom: Colour, y0: float = 0.0, y1: float = 1.0, steps: int = 12) -> None:
        """Vertical gradient in bands."""
        for step in range(steps):
            share = step / (steps - 1)
            red, green, blue = (round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
            height = (y1 - y0) / steps
            self.box(0, y0 + step * height, 1, y0 + (step + 1) * height, (red, green, blue))

    def sky(self, horizon: float) -> None:
        """Day, evening or grey sky with clouds, down to the horizon."""
        top, bottom = self.random.choice(
            (
                ((90, 150, 220), (200, 225, 245)),
                ((120, 130, 145), (205, 208, 212)),
                ((70, 80, 140), (245, 180, 120)),
                ((60, 120, 200), (170, 210, 240)),
                ((150, 165, 185), (225, 225, 220)),
            )
        )
        self.fade(self.tone(top), self.tone(bottom), 0, horizon)
        for _ in range(self.random.randint(0, 4)):
            x, y = self.between(0, 1), self.between(0, horizon * 0.6)
            self.disc(x, y, self.between(0.06, 0.16), self.between(0.015, 0.04), self.tone((235, 238, 242), 8))

    def ground(self, horizon: float, near: Sequence[int], far: Sequence[int]) -> None:
        """Ground from the horizon to the lower edge."""
        self.fade(self.tone(far), self.tone(near), horizon, 1.0, 8)

    def ridge(self, base: float, height: float, colour: Colour, bumps: int = 6) -> None:
        """A jagged ridge line, filled down to the lower edge."""
        points = [(0.0, 1.0), (0.0, base)]
        points += [(i / bumps, base - self.between(0.2, 1) * height) for i in range(bumps + 1)]
        self.shape([*points, (1.0, 1.0)], colour)

    def person(self, x: float, y: float, height: float) -> None:
        """A standing person in plain clothes; (x, y) are the feet."""
        clothes = self.tone(
            self.random.choice(((180, 60, 60), (60, 90, 170), (70, 140, 80), (200, 180, 80), (90, 90, 95)))
        )
        self.box(x - height * 0.14, y - height * 0.75, x + height * 0.14, y - height * 0.3, clothes)
        self.box(x - height * 0.1, y - height * 0.3, x + height * 0.1, y, self.tone((50, 50, 65)))
        skin = self.tone(self.random.choice(((230, 190, 160), (150, 105, 75), (205, 160, 120))))
        self.disc(x, y - height * 0.87, height * 0.11, height * 0.13, skin)

    def rock(self, x: float, y: float, size: float, colour: Sequence[int]) -> None:
        """An angular stone with a lit side."""
        points = [
            (x - size, y),
            (x - size * self.between(0.5, 0.9), y - size * self.between(0.4, 0.9)),
            (x + size * self.between(-0.2, 0.3), y - size * self.between(0.8, 1.3)),
            (x + size, y),
        ]
        self.shape(points, self.tone(colour))
        self.shape([points[2], points[3], (x, y)], self.tone([value * 3 // 4 for value in colour], 8))

    def tree(self, x: float, y: float, height: float) -> None:
        """A conifer or a leafy tree; (x, y) is the foot."""
        trunk = self.tone((95, 70, 50))
        self.box(x - height * 0.04, y - height * 0.4, x + height * 0.04, y, trunk)
        leaves = self.tone((45, 105, 55), 25)
        if self.random.random() < 0.5:
            self.shape(
                [(x - height * 0.25, y - height * 0.2), (x, y - height), (x + height * 0.25, y - height * 0.2)], leaves
            )
        else:
            self.disc(x, y - height * 0.65, height * 0.28, height * 0.33, leaves)
