"""Outlines of what stands in a scene, as polygons in scene units around the object's own centre."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hfvla.worlds.drone.holdout import Colour

__all__ = ["Part", "bar", "building_outline", "disc", "mark_place", "object_parts", "road_parts"]

Part = tuple[np.ndarray, Colour]
"""A filled polygon: [N, 2] points and a colour."""

_WHITE: Colour = (245, 245, 245)


def bar(width: float, height: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Return the corners [4, 2] of an upright rectangle around (x, y)."""
    half = np.array([width, height]) / 2
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half + (x, y)


def disc(width: float, height: float, x: float = 0.0, y: float = 0.0, corners: int = 16) -> np.ndarray:
    """Return the corners [corners, 2] of an upright ellipse around (x, y)."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([np.cos(angles) * width / 2 + x, np.sin(angles) * height / 2 + y], axis=1)


_ARM = 0.16
_SHAPES: dict[str, np.ndarray] = {
    "square": bar(0.34, 0.34),
    "round": disc(0.37, 0.37, corners=24),
    "long": bar(0.41, 0.2),
    "L-shaped": np.array(
        [(-0.18, -0.19), (-0.18 + _ARM, -0.19), (-0.18 + _ARM, 0.03), (0.2, 0.03), (0.2, 0.19), (-0.18, 0.19)]
    ),
    "U-shaped": np.array(
        [
            (-0.2, -0.19),
            (-0.2 + 0.13, -0.19),
            (-0.2 + 0.13, 0.03),
            (0.2 - 0.13, 0.03),
            (0.2 - 0.13, -0.19),
            (0.2, -0.19),
            (0.2, 0.19),
            (-0.2, 0.19),
        ]
    ),  # fmt: skip
    "cross-shaped": np.array(
        [
            (-0.075, -0.2),
            (0.075, -0.2),
            (0.075, -0.075),
            (0.2, -0.075),
            (0.2, 0.075),
            (0.075, 0.075),
            (0.075, 0.2),
            (-0.075, 0.2),
            (-0.075, 0.075),
            (-0.2, 0.075),
            (-0.2, -0.075),
            (-0.075, -0.075),
        ]
    ),  # fmt: skip
}
_MARK_PLACES: dict[str, tuple[float, float]] = {"L-shaped": (-0.10, 0.11), "U-shaped": (0.0, 0.11)}


def _turn(points: np.ndarray, quarters: int) -> np.ndarray:
    for _ in range(quarters % 4):
        points = np.stack([-points[:, 1], points[:, 0]], axis=1)
    return points


def building_outline(shape: str, quarter_turns: int) -> np.ndarray:
    """Return the corners [N, 2] of a building's roof."""
    return _turn(_SHAPES[shape], quarter_turns)


def mark_place(shape: str, quarter_turns: int) -> tuple[float, float]:
    """Return the middle of a roof's mark: always on the roof."""
    x, y = _turn(np.array([_MARK_PLACES.get(shape, (0.0, 0.0))]), quarter_turns)[0].tolist()
    return x, y


@lru_cache
def object_parts(kind: str) -> tuple[Part, ...]:
    """Return what an object of a kind is drawn of, the first part being its whole outline or part of it."""
    return tuple(_PARTS[kind]())


@lru_cache
def road_parts(distance: float) -> tuple[Part, ...]:
    """Return a road along the upper side, `distance` from the scene's centre, longer than any view shows."""
    dashes = [(bar(0.08, 0.018, x, -distance), (250, 225, 90)) for x in np.arange(-0.8, 0.81, 0.16)]
    return ((bar(2.4, 0.15, 0, -distance), (72, 72, 78)), *dashes)


def _pool() -> list[Part]:
    return [(bar(0.25, 0.17), (225, 240, 245)), (bar(0.22, 0.14), (50, 205, 235))]


def _pond() -> list[Part]:
    return [(disc(0.27, 0.22), (25, 65, 115))]


def _trees() -> list[Part]:
    places = ((-0.06, -0.06), (0.06, -0.05), (-0.05, 0.06), (0.06, 0.06), (0.0, 0.0))
    crowns = [(disc(0.13, 0.13, x, y), (25, 90, 40)) for x, y in places]
    return crowns + [(disc(0.05, 0.05, x - 0.02, y - 0.02), (55, 130, 60)) for x, y in places]


def _car_park() -> list[Part]:
    colours: tuple[Colour, ...] = ((215, 50, 50), _WHITE, (60, 100, 210), (240, 210, 60), (40, 40, 40), (215, 50, 50))
    cars = [(bar(0.045, 0.075, -0.08 + 0.08 * (n % 3), 0.05 * (-1 if n < 3 else 1)), c) for n, c in enumerate(colours)]
    return [(bar(0.27, 0.22), (112, 112, 120)), *cars]


def _field() -> list[Part]:
    green: Colour = (40, 160, 60)
    lines = [(bar(0.24, 0.2), _WHITE), (bar(0.21, 0.17), green), (bar(0.02, 0.17), _WHITE)]
    return [(bar(0.28, 0.24), green), *lines]


def _court() -> list[Part]:
    clay: Colour = (200, 95, 45)
    lines = [(bar(0.16, 0.19), _WHITE), (bar(0.125, 0.155), clay), (bar(0.16, 0.02), _WHITE)]
    return [(bar(0.2, 0.24), clay), *lines]


def _garden() -> list[Part]:
    flowers = [
        (disc(0.055, 0.055, x, y), (235, 60, 150) if (row + column) % 2 else (250, 190, 215))
        for row, y in enumerate((-0.075, 0.0, 0.075))
        for column, x in enumerate((-0.075, 0.0, 0.075))
    ]
    return [(bar(0.23, 0.23), (95, 60, 90)), *flowers]


def _tanks() -> list[Part]:
    rims = [(disc(0.13, 0.13, x), (120, 125, 130)) for x in (-0.068, 0.068)]
    return rims + [(disc(0.1, 0.1, x), _WHITE) for x in (-0.068, 0.068)]


_PARTS = {
    "pool": _pool,
    "pond": _pond,
    "trees": _trees,
    "car park": _car_park,
    "field": _field,
    "court": _court,
    "garden": _garden,
    "tanks": _tanks,
}
