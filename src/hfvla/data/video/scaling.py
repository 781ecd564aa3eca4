"""The one resize of all backends."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["scale_down"]


def scale_down(pixels: np.ndarray, short_side: int | None) -> np.ndarray:
    """Scale a frame [H, W, 3] down to a short side; Pillow for every backend, so that the pixels stay equal."""
    height, width = pixels.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
