"""What the generated roads are made of, and which of it the test split keeps for itself.

Train and test share what is asked about (lights, limits, vehicles, weather ...), and nothing that it can be recognised
by without looking: the test split has its own palettes, places of lights and signs, body colours, and town names.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

__all__ = [
    "LANES",
    "LIGHTS",
    "LIMITS",
    "PLACES",
    "ROADSIDES",
    "SIDES",
    "SPLITS",
    "VEHICLES",
    "WEATHERS",
    "Colour",
    "Layout",
    "Palette",
    "Split",
    "SplitParts",
]

Colour = tuple[int, int, int]
Split = Literal["train", "test"]

LIGHTS = ("red", "yellow", "green")
LIMITS = ("30", "50", "60", "80")
SIDES = ("left", "right")
PLACES = ("1st", "2nd", "3rd", "4th")
VEHICLES = ("bus", "truck", "car", "motorbike", "pedestrian")
WEATHERS = ("day", "night", "rain", "fog")
ROADSIDES = ("houses", "forest", "fields", "sea")
LANES = (2, 3, 4)


@dataclass(frozen=True)
class Palette:
    """Base colours of one look of the world."""

    sky: Colour
    ground: Colour
    road: Colour
    wall: Colour
    leaf: Colour
    crop: Colour
    water: Colour


@dataclass(frozen=True)
class Layout:
    """Where the gantry's parts hang, as shares of the picture's side: centres, x to the right.

    Attributes:
        light: of the traffic light.
        limit: of the speed limit sign.
        board: of the town board.
    """

    light: float
    limit: float
    board: float


@dataclass(frozen=True)
class SplitParts:
    """What a split draws from."""

    palettes: tuple[Palette, ...]
    layouts: tuple[Layout, ...]
    bodies: tuple[Colour, ...]
    towns: tuple[str, ...]


def _tinted(palettes: tuple[Palette, ...], gains: tuple[tuple[float, float, float], ...]) -> tuple[Palette, ...]:
    """Return each palette under each gain of red, green and blue."""
    return tuple(
        Palette(*(_scaled(getattr(palette, field.name), gain) for field in fields(Palette)))
        for gain in gains
        for palette in palettes
    )


def _scaled(colour: Colour, gain: tuple[float, float, float]) -> Colour:
    red, green, blue = (min(round(value * factor), 255) for value, factor in zip(colour, gain, strict=True))
    return red, green, blue


def _layouts(lights: tuple[float, ...], limits: tuple[float, ...]) -> tuple[Layout, ...]:
    """Return every combination of places with the light on the left, and its mirror image."""
    left = [Layout(light, limit, limit + 0.02 * (-1) ** n) for light in lights for n, limit in enumerate(limits)]
    return tuple(left) + tuple(Layout(1 - each.light, 1 - each.limit, 1 - each.board) for each in left)


_TRAIN_PALETTES = (
    Palette(
        (120, 175, 235),
        (120, 140, 90),
        (92, 92, 96),
        (190, 160, 130),
        (50, 110, 55),
        (205, 180, 80),
        (50, 110, 170),
    ),
    Palette(
        (150, 190, 220),
        (140, 135, 100),
        (104, 102, 100),
        (165, 150, 150),
        (70, 120, 60),
        (185, 175, 95),
        (70, 130, 165),
    ),
    Palette(
        (95, 150, 220), (105, 125, 75), (80, 82, 88), (205, 185, 150), (40, 90, 60), (215, 190, 100), (40, 95, 150)
    ),
)

_TRAIN = SplitParts(
    palettes=_tinted(_TRAIN_PALETTES, ((1.0, 1.0, 1.0), (1.15, 1.0, 0.9), (0.9, 1.05, 1.15), (0.85, 0.85, 0.85))),
    layouts=_layouts(lights=(0.12, 0.15, 0.22, 0.25), limits=(0.58, 0.61, 0.68, 0.71)),
    bodies=((200, 60, 55), (60, 95, 190), (235, 235, 230), (225, 190, 60), (90, 90, 95)),
    towns=("HUE", "VINH", "HA NOI", "DA LAT", "SA PA", "HOI AN", "PLEIKU", "MY THO", "BAC HA", "GO VAP"),
)

_TEST = SplitParts(
    palettes=(
        Palette(
            (135, 185, 215),
            (130, 130, 80),
            (98, 96, 92),
            (180, 140, 120),
            (60, 100, 45),
            (195, 165, 70),
            (60, 120, 180),
        ),
        Palette(
            (110, 160, 210),
            (115, 140, 100),
            (86, 86, 90),
            (200, 175, 165),
            (55, 125, 75),
            (220, 200, 90),
            (45, 105, 140),
        ),
    ),
    layouts=(
        Layout(light=0.19, limit=0.65, board=0.64),
        Layout(light=0.81, limit=0.35, board=0.36),
    ),
    bodies=((180, 80, 70), (80, 120, 170), (215, 215, 205), (120, 105, 90)),
    towns=("CA MAU", "SON LA", "BA RIA", "MUI NE", "CU CHI", "BA VI", "DI AN", "HA TAY"),
)

SPLITS: dict[str, SplitParts] = {"train": _TRAIN, "test": _TEST}
