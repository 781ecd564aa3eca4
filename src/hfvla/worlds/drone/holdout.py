"""What the generated buildings are made of, and which combinations the test split keeps for itself.

Train and test share every single value (roofs, shapes, marks, grounds, objects) and the grammar of the captions. A
quarter of the combinations of roof, shape, mark and ground is seen in the test split alone, each value equally often.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "BUILDINGS_PER_SPLIT",
    "GROUNDS",
    "KINDS",
    "MARKS",
    "ROADS",
    "ROOFS",
    "SHAPES",
    "SLOTS",
    "Colour",
    "Split",
    "building_name",
    "is_held_out",
]

Colour = tuple[int, int, int]
Split = Literal["train", "test"]

ROOFS: dict[str, Colour] = {
    "red": (205, 45, 40),
    "blue": (45, 80, 200),
    "yellow": (240, 215, 50),
    "white": (245, 245, 245),
    "black": (35, 35, 40),
    "orange": (240, 140, 35),
    "purple": (130, 55, 165),
    "pink": (240, 145, 185),
}
SHAPES: tuple[str, ...] = ("square", "round", "long", "L-shaped", "U-shaped", "cross-shaped")
MARKS: tuple[str, ...] = ("plain", "stripe", "helipad", "courtyard")
GROUNDS: dict[str, Colour] = {
    "grass": (140, 185, 95),
    "sand": (226, 208, 160),
    "pavement": (172, 174, 178),
    "soil": (146, 106, 74),
}
ROADS: tuple[str, ...] = ("upper", "lower", "left", "right")
"""Sides along which a road may run."""
KINDS: tuple[str, ...] = ("pool", "pond", "trees", "car park", "field", "court", "garden", "tanks")
"""Kinds of objects around a building; a scene has each once at most."""
SLOTS: dict[str, tuple[int, int]] = {
    f"{down} {across}": (x, y)
    for y, down in ((-1, "upper"), (0, "middle"), (1, "lower"))
    for x, across in ((-1, "left"), (0, "middle"), (1, "right"))
    if (x, y) != (0, 0)
}
"""Places around a building with their direction (x to the right, y down)."""

BUILDINGS_PER_SPLIT = 4999


def is_held_out(roof: str, shape: str, mark: str, ground: str) -> bool:
    """Tell whether a combination belongs to the test split."""
    places = (list(ROOFS).index(roof), 2 * SHAPES.index(shape), MARKS.index(mark), list(GROUNDS).index(ground))
    return sum(places) % 4 == 0


def building_name(index: int, split: Split, seed: int) -> str:
    """Return a building's number as text: four digits, train from 0001 and test from 5001, after the seed unless 0.

    No two buildings of any splits and seeds have the same name, and it says nothing about what they look like.
    """
    number = index + 1 + (BUILDINGS_PER_SPLIT + 1 if split == "test" else 0)
    return f"{seed or ''}{number:04d}"
