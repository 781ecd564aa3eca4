"""The one resize of all backends."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from PIL import Image

__all__ = ["one_size", "scale_down"]

logger = logging.getLogger(__name__)


def scale_down(pixels: np.ndarray, short_side: int | None) -> np.ndarray:
    """Scale a frame [H, W, 3] down to a short side; Pillow for every backend, so that the pixels stay equal."""
    height, width = pixels.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def one_size(frames: Sequence[np.ndarray], where: str) -> list[np.ndarray]:
    """Bring frames [H, W, 3] to the size of the largest; a recording may change its resolution on the way."""
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) < 2:
        return list(frames)
    height, width = max(sizes, key=lambda size: (size[0] * size[1], size))
    logger.warning("%s changes its resolution: frames %s are scaled to %d x %d", where, sorted(sizes), height, width)
    return [
        frame
        if frame.shape[:2] == (height, width)
        else np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
        for frame in frames
    ]
