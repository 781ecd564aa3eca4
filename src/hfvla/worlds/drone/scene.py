"""The facts of generated scenes: a building with its surroundings, and the views from which it is seen.

Places are in scene units: the building's centre is (0, 0), x to the right, y down, and a view of scale 1 shows the
square from -0.5 to 0.5.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from hfvla.errors import DataError
from hfvla.worlds.drone.holdout import (
    BUILDINGS_PER_SPLIT,
    GROUNDS,
    KINDS,
    MARKS,
    ROADS,
    ROOFS,
    SHAPES,
    SLOTS,
    Split,
    building_name,
    is_held_out,
)

__all__ = ["OBJECTS", "RING", "Building", "Surrounding", "View", "draw_buildings", "draw_view", "platform_of_view"]

OBJECTS = 3
"""Objects around a building, besides the road."""
RING = 0.335
"""Distance of the objects and the road from the building's centre, along each axis."""
_SIDE = {"upper": (1, -1), "lower": (1, 1), "left": (0, -1), "right": (0, 1)}  # axis and sign of a road's side


@dataclass(frozen=True)
class Surrounding:
    """An object beside the building.

    Attributes:
        kind: one of `KINDS`.
        slot: one of `SLOTS`.
        x: centre.
        y: centre.
        size: factor on the kind's size.
    """

    kind: str
    slot: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Building:
    """A building and what lies around it.

    Attributes:
        name: its number as text; see `building_name`.
        roof: colour, one of `ROOFS`.
        shape: one of `SHAPES`.
        mark: one of `MARKS`.
        ground: one of `GROUNDS`.
        road: the side along which a road runs.
        quarter_turns: of the building's outline.
        surroundings: `OBJECTS` objects of different kinds in different slots, none on the road's side.
    """

    name: str
    roof: str
    shape: str
    mark: str
    ground: str
    road: str
    quarter_turns: int
    surroundings: tuple[Surrounding, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """What a full caption without places tells; no two buildings of a data set have the same."""
        kinds = sorted(surrounding.kind for surrounding in self.surroundings)
        return self.roof, self.shape, self.mark, self.ground, self.road, *kinds


@dataclass(frozen=True)
class View:
    """From where a building is seen.

    Attributes:
        platform: drone, satellite or ground.
        angle: rotation, radians.
        scale: of the scene.
        shift: of the scene's centre from the picture's, as shares of the picture.
        brightness: factor a colour channel.
        noise: seed of the pixels' noise.
    """

    platform: str
    angle: float
    scale: float
    shift: tuple[float, float]
    brightness: tuple[float, float, float]
    noise: int


def _draw_building(generator: random.Random, name: str, split: Split) -> Building:
    while True:
        roof, shape, mark, ground = (generator.choice(list(values)) for values in (ROOFS, SHAPES, MARKS, GROUNDS))
        if is_held_out(roof, shape, mark, ground) == (split == "test"):
            break
    road = generator.choice(ROADS)
    axis, sign = _SIDE[road]
    free = [slot for slot, direction in SLOTS.items() if direction[axis] != sign]
    surroundings = tuple(
        Surrounding(
            kind=kind,
            slot=slot,
            x=RING * SLOTS[slot][0] + generator.uniform(-0.02, 0.02),
            y=RING * SLOTS[slot][1] + generator.uniform(-0.02, 0.02),
            size=generator.uniform(1.04, 1.16),
        )
        for kind, slot in zip(generator.sample(KINDS, OBJECTS), generator.sample(free, OBJECTS), strict=True)
    )
    return Building(name, roof, shape, mark, ground, road, generator.randrange(4), surroundings)


def draw_buildings(count: int, split: Split, seed: int) -> list[Building]:
    """Draw the facts of buildings; those of a smaller count are the first of a larger one.

    Args:
        count: at most `BUILDINGS_PER_SPLIT`.
        split: "test" has combinations that "train" never has.
        seed: another seed, other buildings.

    Raises:
        DataError: more buildings than a split can name.
    """
    if count > BUILDINGS_PER_SPLIT:
        raise DataError("too many generated buildings", got=count, expected=f"at most {BUILDINGS_PER_SPLIT}")
    generator = random.Random(f"drone/{seed}/{split}")
    buildings: list[Building] = []
    seen: set[tuple[str, ...]] = set()
    while len(buildings) < count:
        building = _draw_building(generator, building_name(len(buildings), split, seed), split)
        if building.identity not in seen:
            seen.add(building.identity)
            buildings.append(building)
    return buildings


def platform_of_view(index: int, views: int) -> str:
    """Return the platform of a building's view: the last of three or more from the ground, one before by satellite."""
    if views >= 3 and index == views - 1:
        return "ground"
    return "satellite" if views >= 2 and index == min(views - 1, max(views - 2, 1)) else "drone"


def draw_view(building: Building, index: int, views: int) -> View:
    """Draw a building's view: a function of (building's name, index, views) alone."""
    generator = random.Random(f"drone/{building.name}/view/{index}/{views}")
    platform = platform_of_view(index, views)
    turn = math.radians(2 if platform == "satellite" else 7)
    light = generator.uniform(0.88, 1.08)
    return View(
        platform=platform,
        angle=generator.uniform(-turn, turn),
        scale=generator.uniform(0.86, 0.9) if platform == "satellite" else generator.uniform(0.93, 1.03),
        shift=(generator.uniform(-0.03, 0.03), generator.uniform(-0.03, 0.03)),
        brightness=tuple(light * generator.uniform(0.97, 1.03) for _ in range(3)),  # type: ignore[arg-type]
        noise=generator.randrange(2**31),
    )
