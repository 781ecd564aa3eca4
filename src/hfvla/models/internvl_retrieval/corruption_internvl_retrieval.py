"""What weather and cameras do to a picture: noise, blur, darkness, fog, compression; the same for the same seed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import PurePath

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

__all__ = ["CORRUPTIONS", "blank", "corruptions"]

_NOISE = (0.08, 0.18)  # standard deviation, as a share of the range of values
_BLUR = (0.012, 0.03)  # radius, as a share of the shorter side
_BRIGHTNESS = (0.6, 0.35)
_FOG = (0.4, 0.65)  # share of light that comes from the fog
_FOG_GREY = 205
_JPEG_QUALITY = (25, 8)
SEVERITIES = 2

_Corruption = Callable[[Image.Image, int, np.random.Generator], Image.Image]


def _noise(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(picture, dtype=np.float64)
    pixels = pixels + generator.normal(0.0, 255 * _NOISE[level], pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _blur(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(_BLUR[level] * min(picture.size)))


def _brightness(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(_BRIGHTNESS[level])


def _fog(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    return Image.blend(picture, Image.new("RGB", picture.size, (_FOG_GREY,) * 3), _FOG[level])


def _jpeg(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY[level])
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


CORRUPTIONS: dict[str, _Corruption] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "fog": _fog,
    "jpeg": _jpeg,
}
"""Functions (picture, level from 0, generator) by name."""


def blank(picture: Image.Image, name: str) -> Image.Image:
    """Return a grey picture of the same size."""
    return Image.new("RGB", picture.size, (128, 128, 128))


def corruptions(seed: int) -> dict[str, Callable[[Image.Image, str], Image.Image]]:
    """Return every corruption at every severity as `change(picture, name)`, by e.g. "fog_2".

    What is random follows from seed, kind, severity and the last two parts of the name, wherever the data lies.

    Args:
        seed: of the evaluation.
    """
    return {
        f"{kind}_{level + 1}": partial(_changed, kind=kind, level=level, seed=seed)
        for kind in CORRUPTIONS
        for level in range(SEVERITIES)
    }


def _changed(picture: Image.Image, name: str, *, kind: str, level: int, seed: int) -> Image.Image:
    own = f"{seed}/{kind}/{level}/{'/'.join(PurePath(name).parts[-2:])}"
    digest = hashlib.blake2b(own.encode(), digest_size=8).digest()
    return CORRUPTIONS[kind](picture, level, np.random.default_rng(int.from_bytes(digest, "little")))
