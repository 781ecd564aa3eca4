"""Pictures of environments. A picture depends on environment, seed and size only, never on task or robots."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image

from hfvla.worlds.fleet.canvas import Canvas
from hfvla.worlds.fleet.places import environment
from hfvla.worlds.fleet.scenes_indoor import INDOOR
from hfvla.worlds.fleet.scenes_outdoor import OUTDOOR

__all__ = ["PAINTERS", "encode_png", "render_scene"]

PAINTERS = OUTDOOR | INDOOR
"""Scene family -> painter."""
_MARGIN = 0.12
_MINIMUM_SIZE = 16


def render_scene(environment_key: str, seed: int, size: int = 96) -> Image.Image:
    """Draw an environment.

    Colours, light, positions, clutter, mirroring, camera crop and sensor noise follow the seed. No text is drawn.

    Args:
        environment_key: key of an environment; its scene family and the key itself steer the drawing.
        seed: another seed, another picture of the same place.
        size: pixels a side, at least 16.

    Returns:
        `PIL.Image.Image`: RGB, size x size.

    Raises:
        KeyError: unknown environment.
        ValueError: size too small.
    """
    if size < _MINIMUM_SIZE:
        raise ValueError(f"scene size is {size} px; need >= {_MINIMUM_SIZE}")
    generator = random.Random(f"scene/{environment_key}/{seed}")
    canvas = Canvas(round(size * (1 + _MARGIN)), generator)
    PAINTERS[environment(environment_key).scene](canvas)
    return _photograph(canvas.image, generator, size)


def _photograph(image: Image.Image, generator: random.Random, size: int) -> Image.Image:
    """Crop with jitter, mirror, light and noise."""
    spare = image.width - size
    left, top = generator.randint(0, spare), generator.randint(0, spare)
    pixels = np.asarray(image)[top : top + size, left : left + size].astype(np.float32)
    if generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    light = np.array([generator.uniform(0.72, 1.15) * generator.uniform(0.95, 1.05) for _ in range(3)], np.float32)
    light = light.mean() * 0.75 + light * 0.25
    noise = np.random.default_rng(generator.getrandbits(32)).integers(-5, 6, pixels.shape[:2] + (1,), dtype=np.int8)
    return Image.fromarray(np.clip(pixels * light + noise, 0, 255).astype(np.uint8))


def encode_png(image: Image.Image) -> bytes:
    """Encode as PNG, lightly compressed: writing speed matters more than bytes here."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
