"""The plain road without a station: sky, roadside, road and lane marks, in the light of the weather."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw

from hfvla.worlds.road.clip import Clip
from hfvla.worlds.road.holdout import Colour
from hfvla.worlds.road.sprites import Sprite

__all__ = ["DASH_PHASES", "draw_roads", "rain_masks", "sprite_in_weather"]

DASH_PHASES = 4
HORIZON = 0.44
_SHARES = {
    "day": (1.0, (0, 0, 0)),
    "night": (0.32, (0, 0, 18)),
    "rain": (0.62, (12, 14, 18)),
    "fog": (0.42, (122, 124, 126)),
}


def _in_weather(pixels: np.ndarray, weather: str, strength: float = 1.0) -> np.ndarray:
    """Return pixels [..., 3] uint8 darkened or veiled by the weather.

    Args:
        pixels: in daylight.
        weather: of the clip.
        strength: 0 leaves them as they are; what shines or reflects is less affected.
    """
    share, veil = _SHARES[weather]
    changed = pixels * np.float32(1 - strength * (1 - share)) + np.float32(strength) * np.array(veil, np.float32)
    return changed.astype(np.uint8)


def sprite_in_weather(sprite: Sprite, weather: str, strength: float = 0.6) -> Sprite:
    """Return the sprite in the light of the weather."""
    return Sprite(_in_weather(sprite.pixels, weather, strength), sprite.mask)


def _shade(colour: Colour, generator: random.Random, spread: int = 14) -> Colour:
    shift = generator.randint(-spread, spread)
    red, green, blue = (max(0, min(255, value + shift)) for value in colour)
    return red, green, blue


def draw_roads(clip: Clip, size: int) -> np.ndarray:
    """Draw the plain road with its lane marks in each phase of their movement: [DASH_PHASES, H, W, 3] uint8."""
    generator = random.Random(clip.texture)
    image = Image.new("RGB", (size, size), clip.palette.sky)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, HORIZON * size, size, size), fill=clip.palette.ground)
    _ROADSIDES[clip.roadside](draw, clip, size, generator)
    draw.polygon([(x * size, y * size) for x, y in _road_edge()], fill=clip.palette.road)
    roads = []
    for phase in range(DASH_PHASES):
        marked = image.copy()
        _draw_marks(ImageDraw.Draw(marked), clip.lanes, phase / DASH_PHASES, size)
        roads.append(_in_weather(np.asarray(marked), clip.weather))
    return np.stack(roads)


_TOP, _BOTTOM = (0.40, 0.60), (-0.30, 1.30)


def _road_edge() -> list[tuple[float, float]]:
    return [(_TOP[0], HORIZON), (_TOP[1], HORIZON), (_BOTTOM[1], 1.0), (_BOTTOM[0], 1.0)]


def _draw_marks(draw: ImageDraw.ImageDraw, lanes: int, phase: float, size: int) -> None:
    for lane in range(lanes + 1):
        share = lane / lanes
        top, bottom = (edge[0] + share * (edge[1] - edge[0]) for edge in (_TOP, _BOTTOM))
        solid = lane in (0, lanes)
        for dash in range(-1, 5):
            start, end = (0.0, 1.0) if solid else ((dash + phase) / 5, (dash + phase + 0.55) / 5)
            start, end = max(start, 0.0) ** 2, max(min(end, 1.0), 0.0) ** 2
            if end > start:
                ends = [
                    ((top + (bottom - top) * s) * size, (HORIZON + (1 - HORIZON) * s) * size) for s in (start, end)
                ]
                draw.line(ends, fill=(240, 240, 235), width=max(1, round(size * 0.012 * (1 + 2 * end))))


def _houses(draw: ImageDraw.ImageDraw, clip: Clip, size: int, generator: random.Random) -> None:
    for place in range(6):
        x = place / 6 * size
        top = (HORIZON - generator.uniform(0.12, 0.3)) * size
        draw.rectangle((x, top, x + size / 7, (HORIZON + 0.1) * size), fill=_shade(clip.palette.wall, generator, 30))
        for row in range(2):
            y = top + (0.03 + 0.08 * row) * size
            draw.rectangle((x + size * 0.03, y, x + size * 0.06, y + size * 0.04), fill=(70, 80, 95))
            draw.rectangle((x + size * 0.09, y, x + size * 0.12, y + size * 0.04), fill=(70, 80, 95))


def _forest(draw: ImageDraw.ImageDraw, clip: Clip, size: int, generator: random.Random) -> None:
    for place in range(-1, 12):
        x, tall = (place + generator.uniform(0, 1)) / 11, generator.uniform(0.2, 0.36)
        tree = [(x - 0.08, HORIZON + 0.14), (x, HORIZON + 0.1 - tall), (x + 0.08, HORIZON + 0.14)]
        draw.polygon([(a * size, b * size) for a, b in tree], fill=_shade(clip.palette.leaf, generator, 22))


def _fields(draw: ImageDraw.ImageDraw, clip: Clip, size: int, generator: random.Random) -> None:
    draw.rectangle((0, HORIZON * size, size, size), fill=clip.palette.crop)
    for row in range(9):
        y = HORIZON + 0.56 * (row / 9) ** 1.5
        draw.line((0, y * size, size, y * size), fill=_shade(clip.palette.leaf, generator), width=max(1, size // 60))


def _sea(draw: ImageDraw.ImageDraw, clip: Clip, size: int, generator: random.Random) -> None:
    draw.rectangle((0, HORIZON * size, size, size), fill=clip.palette.water)
    for _ in range(18):
        x, y = generator.uniform(0, 1), generator.uniform(HORIZON, 0.9)
        draw.line((x * size, y * size, (x + 0.08) * size, y * size), fill=(215, 230, 240), width=max(1, size // 90))


_ROADSIDES = {"houses": _houses, "forest": _forest, "fields": _fields, "sea": _sea}


def rain_masks(clip: Clip, size: int, count: int = 3) -> np.ndarray:
    """Return where drops fall in `count` frames: [count, H, W] bool."""
    generator = np.random.default_rng(clip.texture)
    masks = np.zeros((count, size, size), dtype=bool)
    for mask in masks:
        for x, y in generator.integers(0, size, (size // 3, 2)):
            for step in range(max(size // 16, 2)):
                if y + step < size:
                    mask[y + step, (x - step // 2) % size] = True
    return masks
