"""Which shapes of which colour lie where; some pairs of colour and shape are drawn in the test split alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["COLOURS", "PLACES", "SHAPES", "Scene", "Split", "Thing", "held_out_pairs", "make_scene"]

Split = Literal["train", "test"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "green": (40, 160, 70), "blue": (40, 80, 214), "yellow": (240, 200, 30),
    "purple": (140, 50, 170), "orange": (240, 130, 30),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "cross")
PLACES = ("top left", "top right", "bottom left", "bottom right")

_REACH: dict[str, tuple[float, float, float, float]] = {
    "circle": (1.0, 1.0, 1.0, 1.0),
    "square": (0.85, 0.85, 0.85, 0.85),
    "triangle": (0.866, 1.0, 0.866, 0.5),
    "star": (0.951, 1.0, 0.951, 0.809),
    "cross": (1.0, 1.0, 1.0, 1.0),
}
"""How far a shape reaches to the left, up, right and down from its middle, in its sizes."""


@dataclass(frozen=True)
class Thing:
    """A shape in a quarter of the picture.

    Attributes:
        shape: one of `SHAPES`.
        colour: one of `COLOURS`.
        place: number in `PLACES`.
        size: half its width as a share of the picture's side.
        shift: right and down from the middle of its quarter, as shares of the side.
    """

    shape: str
    colour: str
    place: int
    size: float
    shift: tuple[float, float]

    @property
    def name(self) -> str:
        """Return "red circle"."""
        return f"{self.colour} {self.shape}"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom as shares of the picture's side."""
        left, up, right, down = _REACH[self.shape]
        x, y = 0.25 + 0.5 * (self.place % 2) + self.shift[0], 0.25 + 0.5 * (self.place // 2) + self.shift[1]
        return x - left * self.size, y - up * self.size, x + right * self.size, y + down * self.size


@dataclass(frozen=True)
class Scene:
    """The shapes of one picture, and the grey of its ground."""

    things: tuple[Thing, ...]
    ground: int


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """Return the pairs of colour and shape that no training picture holds: one shape of every colour."""
    colours = list(COLOURS)
    return frozenset((colour, SHAPES[(2 * number + 1) % len(SHAPES)]) for number, colour in enumerate(colours))


def make_scene(rng: np.random.Generator, split: Split, most_things: int = len(PLACES)) -> Scene:
    """Draw one to four shapes, no two of one colour or of one shape; a test picture has a pair that is held out."""
    held = held_out_pairs()
    while True:
        count = int(rng.integers(1, most_things + 1))
        shapes = rng.permutation(SHAPES)[:count]
        colours = rng.permutation(list(COLOURS))[:count]
        pairs = {(str(colour), str(shape)) for colour, shape in zip(colours, shapes, strict=True)}
        if bool(pairs & held) == (split == "test"):
            break
    places = rng.permutation(len(PLACES))[:count]
    things = tuple(
        Thing(str(shape), str(colour), int(place), *_sized(rng))
        for shape, colour, place in sorted(zip(shapes, colours, places, strict=True), key=lambda one: one[2])
    )
    return Scene(things, int(rng.integers(215, 256)))


def _sized(rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
    size = float(rng.uniform(0.13, 0.19))
    room = 0.24 - size
    return size, (float(rng.uniform(-room, room)), float(rng.uniform(-room, room)))
