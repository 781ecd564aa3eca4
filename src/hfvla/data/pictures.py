"""One picture from a file or from bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from hfvla.errors import DataError

__all__ = ["read_picture"]

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
