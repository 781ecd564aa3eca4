"""Pictures of generated scenes, and the boxes of what they show."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from hfvla.data.boxes import Box, box_from_points, clip_box
from hfvla.worlds.drone.conditions import Weather, hidden
from hfvla.worlds.drone.holdout import GROUNDS, ROOFS, Colour
from hfvla.worlds.drone.outlines import (
    Part,
    bar,
    building_outline,
    disc,
    mark_place,
    object_parts,
    road_parts,
)
from hfvla.worlds.drone.scene import RING, Building, Surrounding, View

__all__ = ["BUILDING", "VISIBLE_SHARE", "draw_picture", "scene_boxes"]

BUILDING = "building"
"""Name of the building itself among the boxes."""
VISIBLE_SHARE = 0.6
"""Share of an object that must lie in the picture for it to have a box."""

_OVERSAMPLING = 2
_NOISE = 4.0
_HORIZON = 0.12  # share of a ground view that is sky
_SQUEEZE = 0.84  # of depth in a ground view
_WALL = 0.06  # height of a building in a ground view, share of the picture
_CLOUD: Colour = (238, 240, 243)
_ROAD_TURNS = {"upper": 0, "right": 1, "lower": 2, "left": 3}


class _Camera:
    """Maps scene units to shares of the picture."""

    def __init__(self, view: View) -> None:
        cosine, sine = math.cos(view.angle) * view.scale, math.sin(view.angle) * view.scale
        self.matrix = np.array([[cosine, -sine], [sine, cosine]])
        self.middle = np.array(view.shift) + 0.5
        if view.platform == "ground":
            self.matrix[1] *= _SQUEEZE
            self.middle[1] = _HORIZON + self.middle[1] * (1 - _HORIZON) - 0.02

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return points @ self.matrix.T + self.middle


def _placed(surrounding: Surrounding, weather: Weather | None = None) -> list[Part]:
    middle, kind = (surrounding.x, surrounding.y), surrounding.kind
    return [
        (points * surrounding.size + middle, weather.colour(kind, colour) if weather else colour)
        for points, colour in object_parts(kind)
    ]


def _quarters(points: np.ndarray, turns: int) -> np.ndarray:
    for _ in range(turns):
        points = np.stack([-points[:, 1], points[:, 0]], axis=1)
    return points


def _mark_parts(building: Building, ground: Colour) -> list[Part]:
    x, y = mark_place(building.shape, building.quarter_turns)
    if building.mark == "stripe":
        length = 0.13 if building.shape in ("L-shaped", "U-shaped", "cross-shaped") else 0.2
        return [(bar(length, 0.055, x, y), (110, 112, 116))]
    if building.mark == "helipad":
        rings = ((0.15, (60, 60, 65)), (0.115, (250, 250, 250)), (0.05, (225, 40, 40)))
        return [(disc(width, width, x, y), colour) for width, colour in rings]
    if building.mark == "courtyard":
        return [(bar(0.145, 0.145, x, y), (90, 80, 70)), (bar(0.115, 0.115, x, y), ground)]
    return []


def _darker(colour: Colour) -> Colour:
    red, green, blue = (int(part * 0.6) for part in colour)
    return red, green, blue


def _walls(roof: np.ndarray, view: View) -> list[np.ndarray]:
    """Copies of a roof's outline [N, 2] (shares of the picture) down to the ground, lowest first."""
    if view.platform != "ground":
        return []
    return [roof + (0, _WALL * step / 4) for step in (4, 3, 2, 1)]


def _rounded(box: Box) -> Box:
    """To six decimals, as annotation files have them."""
    x, y, width, height = (round(value, 6) for value in box)
    return x, y, width, height


def scene_boxes(building: Building, view: View) -> dict[str, Box | None]:
    """Return the boxes (cxcywh, cut at the picture's edges) of a view by name: `BUILDING`, "road", and objects' kinds.

    None for what lies outside by more than 1 - `VISIBLE_SHARE`, or behind clouds; a road runs out of every picture and
    never has one.
    """
    camera = _Camera(view)
    roof = camera(building_outline(building.shape, building.quarter_turns))
    outlines = {BUILDING: np.concatenate([roof, *_walls(roof, view)])}
    for surrounding in building.surroundings:
        outlines[surrounding.kind] = camera(np.concatenate([points for points, _ in _placed(surrounding)]))
    boxes: dict[str, Box | None] = {"road": None}
    for name, outline in outlines.items():
        whole = box_from_points(outline)
        box = clip_box(whole)
        seen = box[2] * box[3] >= VISIBLE_SHARE * whole[2] * whole[3]
        boxes[name] = _rounded(box) if seen and not hidden(box, view.weather) else None
    return boxes


def draw_picture(building: Building, view: View, image_size: int) -> np.ndarray:
    """Draw a view.

    Args:
        building: what is seen.
        view: from where.
        image_size: pixels a side.

    Returns:
        `np.ndarray`: [image_size, image_size, 3] uint8.
    """
    camera, side = _Camera(view), image_size * _OVERSAMPLING
    ground = view.weather.ground(building.ground) if view.weather else GROUNDS[building.ground]
    image = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(image)

    def fill(shares: np.ndarray, colour: Colour) -> None:
        draw.polygon((shares * side).ravel().tolist(), fill=colour)

    for points, colour in road_parts(RING):
        fill(camera(_quarters(points, _ROAD_TURNS[building.road])), colour)
    nearest_last = sorted(building.surroundings, key=lambda surrounding: surrounding.y)
    behind = [surrounding for surrounding in nearest_last if surrounding.y <= RING / 2]
    for points, colour in (part for surrounding in behind for part in _placed(surrounding, view.weather)):
        fill(camera(points), colour)
    roof = camera(building_outline(building.shape, building.quarter_turns))
    for wall in _walls(roof, view):
        fill(wall, _darker(ROOFS[building.roof]))
    fill(roof, ROOFS[building.roof])
    for points, colour in _mark_parts(building, ground):
        fill(camera(points), colour)
    for points, colour in (
        part for surrounding in nearest_last[len(behind) :] for part in _placed(surrounding, view.weather)
    ):
        fill(camera(points), colour)
    if view.platform == "ground":
        draw.rectangle((0, 0, side, _HORIZON * 0.6 * side), fill=(150, 200, 240))
    for x, y, radius in view.weather.clouds if view.weather else ():
        fill(disc(2 * radius, 2 * radius, x, y), _CLOUD)
    pixels = np.asarray(image.reduce(_OVERSAMPLING), np.float32) * np.array(view.brightness, np.float32)
    pixels += np.random.default_rng(view.noise).standard_normal((image_size, image_size, 1), np.float32) * _NOISE
    return np.clip(pixels, 0, 255).round().astype(np.uint8)
