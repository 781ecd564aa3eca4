"""The facts of generated scenes: a building with its surroundings, and the views from which it is seen.

Places are in scene units: the building's centre is (0, 0), x to the right, y down, and a view of scale 1 shows the
square from -0.5 to 0.5.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from hfvla.errors import DataError
from hfvla.worlds.drone.conditions import ALIKE, Conditions, Weather, draw_weather
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
        weather: season, paint and clouds; None for the plain ones.
    """

    platform: str
    angle: float
    scale: float
    shift: tuple[float, float]
    brightness: tuple[float, float, float]
    noise: int
    weather: Weather | None = None


def _draw_building(generator: random.Random, name: str, split: Split, like: Building | None = None) -> Building:
    """Draw a building, with the roof, the ground and the kinds of objects of another where one is given."""
    while True:
        roof, shape, mark, ground = (generator.choice(list(values)) for values in (ROOFS, SHAPES, MARKS, GROUNDS))
        if like is not None:
            roof, ground = like.roof, like.ground
        if is_held_out(roof, shape, mark, ground) == (split == "test"):
            break
    road = generator.choice(ROADS)
    axis, sign = _SIDE[road]
    kinds = generator.sample(KINDS, OBJECTS)
    if like is not None:
        kinds = [one.kind for one in like.surroundings]
    free = [slot for slot, direction in SLOTS.items() if direction[axis] != sign]
    surroundings = tuple(
        Surrounding(
            kind=kind,
            slot=slot,
            x=RING * SLOTS[slot][0] + generator.uniform(-0.02, 0.02),
            y=RING * SLOTS[slot][1] + generator.uniform(-0.02, 0.02),
            size=generator.uniform(1.04, 1.16),
        )
        for kind, slot in zip(kinds, generator.sample(free, OBJECTS), strict=True)
    )
    return Building(name, roof, shape, mark, ground, road, generator.randrange(4), surroundings)


def draw_buildings(count: int, split: Split, seed: int, conditions: Conditions = "plain") -> list[Building]:
    """Draw the facts of buildings; those of a smaller count are the first of a larger one.

    Args:
        count: at most `BUILDINGS_PER_SPLIT`.
        split: "test" has combinations that "train" never has.
        seed: another seed, other buildings.
        conditions: "varied" has `ALIKE` in a row with one roof, one ground and the same kinds of objects; they differ
            in shape or mark, whatever the heading.

    Raises:
        DataError: more buildings than a split can name.
    """
    if count > BUILDINGS_PER_SPLIT:
        raise DataError("too many generated buildings", got=count, expected=f"at most {BUILDINGS_PER_SPLIT}")
    generator = random.Random(f"drone/{seed}/{split}")
    buildings: list[Building] = []
    seen: set[tuple[str, ...]] = set()
    varied = conditions == "varied"
    while len(buildings) < count:
        like = buildings[-1] if varied and len(buildings) % ALIKE else None
        building = _draw_building(generator, building_name(len(buildings), split, seed), split, like)
        roof, shape, mark, ground, road, *kinds = building.identity
        told = (roof, shape, mark, ground, *kinds) if varied else building.identity
        alike = (roof, ground, *kinds)  # of each such row there is one: it has few shapes and marks to be told by
        if told not in seen and not (varied and like is None and alike in seen):
            seen |= {told, alike} if varied else {told}
            buildings.append(building)
    return buildings


def platform_of_view(index: int, views: int) -> str:
    """Return the platform of a building's view: the last of three or more from the ground, one before by satellite."""
    if views >= 3 and index == views - 1:
        return "ground"
    return "satellite" if views >= 2 and index == min(views - 1, max(views - 2, 1)) else "drone"


def draw_view(building: Building, index: int, views: int, conditions: Conditions = "plain") -> View:
    """Draw a building's view: a function of (building's name, index, views, conditions) alone."""
    if conditions == "varied":
        return _draw_varied(random.Random(f"drone/{building.name}/varied/{index}/{views}"), index, views)
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


def _draw_varied(generator: random.Random, index: int, views: int) -> View:
    """Draw a view of any heading, in any light and season."""
    light = generator.uniform(0.55, 1.1)
    return View(
        platform=platform_of_view(index, views),
        angle=generator.uniform(-math.pi, math.pi),
        scale=generator.uniform(0.78, 0.86),
        shift=(generator.uniform(-0.03, 0.03), generator.uniform(-0.03, 0.03)),
        brightness=tuple(light * generator.uniform(0.94, 1.06) for _ in range(3)),  # type: ignore[arg-type]
        noise=generator.randrange(2**31),
        weather=draw_weather(generator),
    )
