"""The facts of one generated clip: the world, and four stations that the camera passes.

At each station stands a gantry with a traffic light, a speed limit and a town board, and somebody crosses in front of
us. Between stations there is plain road, also in the middle of the clip. What a station shows is drawn independently
of every other station, so that a frame from elsewhere says nothing about it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hfvla.worlds.road.holdout import (
    LANES,
    LIGHTS,
    LIMITS,
    ROADSIDES,
    SIDES,
    SPLITS,
    VEHICLES,
    WEATHERS,
    Colour,
    Layout,
    Palette,
    Split,
)

__all__ = ["HOLD_SHARE", "STATIONS", "Clip", "Station", "draw_clip"]

STATIONS = 4
HOLD_SHARE = 0.7
"""Share of a station's quarter of the clip in which it can be seen whole."""
_SUPPORT_JITTER = 0.05  # share of a quarter by which a support frame misses the middle of its station


@dataclass(frozen=True)
class Station:
    """What the camera sees at one moment.

    Attributes:
        vehicle: who crosses; no two stations of a clip have the same.
        side: where they come from.
        light: colour of the traffic light.
        limit: number on the speed limit sign.
        town: text on the board.
        oncoming: whether a car comes towards us.
        body: colour of what crosses.
        middle: when the station is in the middle of its showing, as a share of the clip.
        support: a moment at which all of it can be seen, as a share of the clip.
    """

    vehicle: str
    side: str
    light: str
    limit: str
    town: str
    oncoming: bool
    body: Colour
    middle: float
    support: float


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        name: file stem; unique within seed and split.
        weather: day, night, rain or fog.
        roadside: what stands beside the road.
        lanes: number of lanes.
        palette: base colours.
        layout: where the gantry's parts hang.
        stations: in the order of time.
        texture: seed of everything drawn that means nothing.
    """

    name: str
    weather: str
    roadside: str
    lanes: int
    palette: Palette
    layout: Layout
    stations: tuple[Station, ...]
    texture: int


def draw_clip(index: int, split: Split, seed: int) -> Clip:
    """Draw the facts of a clip: a function of (seed, split, index) alone."""
    generator = random.Random(f"road/{seed}/{split}/{index}")
    parts = SPLITS[split]
    vehicles = generator.sample(VEHICLES, STATIONS)
    oncoming = generator.sample(range(STATIONS), generator.randint(1, STATIONS))
    stations = []
    for number, vehicle in enumerate(vehicles):
        middle = (number + 0.5) / STATIONS
        stations.append(
            Station(
                vehicle=vehicle,
                side=generator.choice(SIDES),
                light=generator.choice(LIGHTS),
                limit=generator.choice(LIMITS),
                town=generator.choice(parts.towns),
                oncoming=number in oncoming,
                body=generator.choice(parts.bodies),
                middle=middle,
                support=middle + generator.uniform(-_SUPPORT_JITTER, _SUPPORT_JITTER) / STATIONS,
            )
        )
    return Clip(
        name=f"{split}_{seed}_{index:05d}",
        weather=generator.choice(WEATHERS),
        roadside=generator.choice(ROADSIDES),
        lanes=generator.choice(LANES),
        palette=generator.choice(parts.palettes),
        layout=generator.choice(parts.layouts),
        stations=tuple(stations),
        texture=generator.randrange(2**31),
    )
