"""A scene as a picture."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageDraw

from hfvla.worlds.shapes.scene import COLOURS, Scene, Thing

__all__ = ["draw", "png"]

_FINER = 4  # drawn at four times the size, for smooth edges
_NOISE = 6


def draw(scene: Scene, side: int, rng: np.random.Generator) -> Image.Image:
    """Paint a scene in RGB, [side, side], with a little noise."""
    wide = side * _FINER
    picture = Image.new("RGB", (wide, wide), (scene.ground,) * 3)
    brush = ImageDraw.Draw(picture)
    for thing in scene.things:
        _paint(brush, thing, wide)
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BOX), dtype=np.float32)
    noisy = pixels + rng.normal(0.0, _NOISE, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def png(picture: Image.Image) -> bytes:
    """Return a picture's bytes as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _paint(brush: ImageDraw.ImageDraw, thing: Thing, wide: int) -> None:
    x = (0.25 + 0.5 * (thing.place % 2) + thing.shift[0]) * wide
    y = (0.25 + 0.5 * (thing.place // 2) + thing.shift[1]) * wide
    r, colour = thing.size * wide, COLOURS[thing.colour]
    if thing.shape == "circle":
        brush.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif thing.shape == "square":
        brush.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=colour)
    elif thing.shape == "cross":
        brush.rectangle((x - r, y - 0.3 * r, x + r, y + 0.3 * r), fill=colour)
        brush.rectangle((x - 0.3 * r, y - r, x + 0.3 * r, y + r), fill=colour)
    else:
        corners = 3 if thing.shape == "triangle" else 10
        radii = [r if corners == 3 or number % 2 == 0 else 0.45 * r for number in range(corners)]
        angles = [2 * math.pi * number / corners - math.pi / 2 for number in range(corners)]
        brush.polygon(
            [(x + q * math.cos(a), y + q * math.sin(a)) for q, a in zip(radii, angles, strict=True)], fill=colour
        )
