"""What differs between two pictures of one place: heading, light, season, what things are painted, clouds.

With `conditions: varied` a colour tells little: grass turns, courts and fields are painted in each other's colours,
light falls by half, and four buildings in a row share roof, ground and what lies around them. A sentence stays
answerable: it names no colour that may change, no side that the heading leaves open, and nothing that a cloud or the
edge hides.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hfvla.data.boxes import Box
from hfvla.worlds.drone.holdout import GROUNDS, Colour

__all__ = ["ALIKE", "Conditions", "Weather", "draw_weather", "hidden", "road_side"]

Conditions = Literal["plain", "varied"]
"""Pictures from the north in steady light, in which each thing has one colour; or any heading, light and season."""

ALIKE = 4
"""Buildings in a row that share roof, ground and the kinds of objects, with varied conditions."""

_HIDDEN_SHARE = 0.4
_CLEAR = math.cos(math.radians(30))  # of a road's direction along an axis, to say on which side it runs
_DIRECTIONS = {"upper": (0.0, -1.0), "lower": (0.0, 1.0), "left": (-1.0, 0.0), "right": (1.0, 0.0)}
_GRASS: tuple[Colour, ...] = (GROUNDS["grass"], (110, 160, 70), (168, 168, 84))

_DRESSES: dict[str, tuple[tuple[Colour, ...], tuple[tuple[Colour, ...], ...]]] = {
    # kind: the colours it is drawn in, and others that may stand in their place
    "pool": (((50, 205, 235),), (((50, 205, 235),), ((70, 165, 150),), ((40, 110, 165),), ((150, 158, 150),))),
    "pond": (((25, 65, 115),), (((25, 65, 115),), ((50, 85, 60),), ((95, 85, 60),), ((170, 195, 210),))),
    "trees": (
        ((25, 90, 40), (55, 130, 60)),
        (
            ((25, 90, 40), (55, 130, 60)),
            ((170, 90, 35), (205, 135, 55)),
            ((95, 80, 65), (130, 112, 92)),
            ((120, 35, 45), (160, 70, 75)),
        ),
    ),
    "car park": (((112, 112, 120),), (((112, 112, 120),), ((66, 66, 72),), ((150, 138, 118),), ((125, 90, 80),))),
    "field": (((40, 160, 60),), (((40, 160, 60),), ((160, 145, 65),), ((55, 100, 165),), ((185, 90, 55),))),
    "court": (((200, 95, 45),), (((200, 95, 45),), ((40, 150, 65),), ((50, 95, 170),), ((120, 120, 126),))),
    "garden": (
        ((235, 60, 150), (250, 190, 215)),
        (
            ((235, 60, 150), (250, 190, 215)),
            ((245, 210, 50), (250, 235, 150)),
            ((225, 45, 40), (240, 140, 110)),
            ((90, 90, 215), (190, 190, 245)),
        ),
    ),
    "tanks": (((245, 245, 245),), (((245, 245, 245),), ((150, 155, 160),), ((175, 100, 70),), ((80, 130, 155),))),
}


@dataclass(frozen=True)
class Weather:
    """How a view differs from the plain one.

    Attributes:
        grass: colour of grass in this season.
        paint: by kind of object and its plain colour, the colour it has here.
        clouds: (x, y, radius) of each, shares of the picture.
    """

    grass: Colour
    paint: Mapping[tuple[str, Colour], Colour]
    clouds: tuple[tuple[float, float, float], ...]

    def ground(self, ground: str) -> Colour:
        """Return the colour of a ground."""
        return self.grass if ground == "grass" else GROUNDS[ground]

    def colour(self, kind: str, plain: Colour) -> Colour:
        """Return the colour of a part of an object that is plainly of another."""
        return self.paint.get((kind, plain), plain)


def draw_weather(generator: random.Random) -> Weather:
    """Draw season, paint and up to two clouds, which never lie over the building in the middle."""
    paint = {
        (kind, old): new
        for kind, (plain, dresses) in _DRESSES.items()
        for old, new in zip(plain, generator.choice(dresses), strict=True)
    }
    clouds = []
    for _ in range(generator.randrange(3)):
        angle, distance = generator.uniform(0, 2 * math.pi), generator.uniform(0.36, 0.5)
        place = 0.5 + distance * math.cos(angle), 0.5 + distance * math.sin(angle)
        clouds.append((*place, generator.uniform(0.08, 0.14)))
    return Weather(generator.choice(_GRASS), paint, tuple(clouds))


def hidden(box: Box, weather: Weather | None) -> bool:
    """Tell whether clouds cover more than `_HIDDEN_SHARE` of a box (cxcywh)."""
    if weather is None or not weather.clouds:
        return False
    across, down = np.meshgrid(np.linspace(-0.5, 0.5, 9), np.linspace(-0.5, 0.5, 9))
    x, y = box[0] + across * box[2], box[1] + down * box[3]
    covered = np.zeros_like(x, dtype=bool)
    for middle_x, middle_y, radius in weather.clouds:
        covered |= (x - middle_x) ** 2 + (y - middle_y) ** 2 < radius**2
    return bool(covered.mean() > _HIDDEN_SHARE)


def road_side(road: str, angle: float) -> str | None:
    """Return the side of the picture along which a road runs in a turned view; None where it runs aslant.

    Args:
        road: side in the scene.
        angle: of the view, radians.
    """
    x, y = _DIRECTIONS[road]
    turned = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    side = max(_DIRECTIONS, key=lambda name: np.dot(_DIRECTIONS[name], turned))
    return side if np.dot(_DIRECTIONS[side], turned) >= _CLEAR else None
