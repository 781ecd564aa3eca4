"""One picture from a file or from bytes, and small enough to stand in a report."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from hfvla.errors import DataError

__all__ = ["data_uri", "read_picture"]

_THUMBNAIL_PIXELS = 256

# What Pillow raises where a file is damaged: PNG chunks that are broken or too large, sizes that are absurd.
_DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_picture(source: str | bytes, where: str) -> np.ndarray:
    """Decode a whole picture.

    Args:
        source: path, or the encoded bytes.
        where: names the picture in errors.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        DataError: missing, truncated or damaged.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            return np.asarray(picture.convert("RGB"))
    except _DAMAGE as error:
        got = getattr(error, "strerror", None) or str(error)
        raise DataError("picture cannot be read", where=where, got=got) from error


def data_uri(pixels: np.ndarray) -> str:
    """Return a small JPEG of a picture, [H, W, 3] uint8, as a data URI of at most 256 pixels a side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
