"""One episode: a hand above a table with squares of different colours goes to the named one and presses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["COLOURS", "FPS", "SENSOR_HZ", "Step", "draw_episode"]

FPS, SENSOR_HZ = 20.0, 400.0
COLOURS = {"red": (210, 40, 40), "blue": (40, 70, 210), "green": (40, 160, 60), "yellow": (220, 200, 40)}
_TABLE, _HAND = (150, 140, 130), (20, 20, 20)
_SPEED, _HEIGHT, _STIFFNESS = 0.08, 0.3, 400.0  # table widths a step, table widths, newtons a table width
_PRESS = 0.02  # how deep the hand presses


@dataclass(frozen=True, eq=False)
class Step:
    """One step.

    Attributes:
        views: "front", the table from above, and "wrist", the part under the hand; [P, P, 3] uint8.
        state: [4] float32: the hand's x, y in table widths (0..1), its height, its opening (1).
        action: [4] float32: change of x, y, height until the next step, and the gripper's command (1).
        sensor: [K, 6] float32: force in newtons and torque in newton-metres of the K samples up to this step.
    """

    views: dict[str, np.ndarray]
    state: np.ndarray
    action: np.ndarray
    sensor: np.ndarray


def draw_episode(seed: int, index: int, image_size: int, steps: int) -> tuple[str, Iterator[Step]]:
    """Return the task and the steps of an episode; a function of its arguments.

    Args:
        seed: of the data set.
        index: of the episode.
        image_size: P.
        steps: number of steps.
    """
    generator = np.random.default_rng([seed, index])
    named, other = generator.permutation(list(COLOURS))[:2]
    places = generator.uniform(0.15, 0.85, (2, 2))
    while np.abs(places[0] - places[1]).max() < 0.35:
        places = generator.uniform(0.15, 0.85, (2, 2))
    hand = np.array([*generator.uniform(0.1, 0.9, 2), _HEIGHT])
    return f"press the {named} square", _steps(generator, (named, other), places, hand, image_size, steps)


def _steps(
    generator: np.random.Generator,
    colours: tuple[str, str],
    places: np.ndarray,
    hand: np.ndarray,
    image_size: int,
    steps: int,
) -> Iterator[Step]:
    per_step = round(SENSOR_HZ / FPS)
    before = hand[2]
    for _ in range(steps):
        away = places[0] - hand[:2]
        move = np.zeros(3)
        move[:2] = away * min(1.0, _SPEED / max(float(np.linalg.norm(away)), 1e-9))
        if np.linalg.norm(away) < _SPEED:
            move[2] = max(-_SPEED, -_PRESS - hand[2])
        sensor = generator.normal(0.0, 0.05, (per_step, 6)).astype(np.float32)
        heights = np.linspace(before, hand[2], per_step + 1)[1:]  # the last sample is at the step itself
        sensor[:, 2] += (_STIFFNESS * np.maximum(0.0, -heights)).astype(np.float32)
        front = _table(colours, places, image_size)
        wrist = _wrist(front, hand, image_size)
        _square(front, hand[:2], 0.04, _HAND)
        state = np.array([*hand, 1.0], dtype=np.float32)
        action = np.array([*move, 1.0], dtype=np.float32)
        yield Step({"front": front, "wrist": wrist}, state, action, sensor)
        before, hand = hand[2], hand + move


def _table(colours: tuple[str, str], places: np.ndarray, image_size: int) -> np.ndarray:
    picture = np.full((image_size, image_size, 3), _TABLE, dtype=np.uint8)
    for colour, place in zip(colours, places, strict=True):
        _square(picture, place, 0.1, COLOURS[colour])
    return picture


def _square(picture: np.ndarray, centre: np.ndarray, half: float, colour: tuple[int, int, int]) -> None:
    """Paint a square; positions are x to the right and y down, in picture widths."""
    size = len(picture)
    left, top = (np.clip(centre - half, 0.0, 1.0) * size).round().astype(int)
    right, bottom = (np.clip(centre + half, 0.0, 1.0) * size).round().astype(int)
    picture[top:bottom, left:right] = colour


def _wrist(front: np.ndarray, hand: np.ndarray, image_size: int) -> np.ndarray:
    """The quarter of the table around the hand, scaled up."""
    half = image_size // 4
    padded = np.pad(front, ((half, half), (half, half), (0, 0)), mode="edge")
    left, top = (np.clip(hand[:2], 0.0, 1.0) * (image_size - 1)).round().astype(int)
    part = padded[top : top + 2 * half, left : left + 2 * half]
    return part.repeat(2, axis=0).repeat(2, axis=1)[:image_size, :image_size].copy()
