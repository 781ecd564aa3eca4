"""Equal and nearly equal pictures by perceptual hash: 64 bits that a new size, a new JPEG or a little light keep.

The difference hash (Krawetz 2013) of a picture shrunk to 9 x 8 grey values: is each brighter than the one on its left?
Two pictures whose hashes differ in few bits look alike. Flat pictures (sky, paper) have hashes of few bits that all
look alike, so that a second hash of the columns must agree as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

__all__ = ["NEAR_BITS", "PictureHash", "hash_picture", "near_pairs"]

NEAR_BITS = 5
"""Bits of 64, in each of the two hashes, by which pictures that look alike may differ."""

_BANDS = 8  # of 8 bits: two hashes that differ in less bits have a band in common

PictureHash = tuple[int, int]
"""Hash of the rows and of the columns of a picture, 64 bits each."""


def hash_picture(picture: Image.Image) -> PictureHash:
    """Return the hash of a picture."""
    grey = picture.convert("L")
    rows = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    columns = np.asarray(grey.resize((8, 9), Image.Resampling.BOX), dtype=np.int16)
    return _bits(rows[:, 1:] > rows[:, :-1]), _bits(columns[1:] > columns[:-1])


def _bits(brighter: np.ndarray) -> int:
    return int.from_bytes(np.packbits(brighter).tobytes(), "big")


def near_pairs(
    ones: Sequence[PictureHash], others: Sequence[PictureHash], bits: int = NEAR_BITS
) -> Iterator[tuple[int, int, int]]:
    """Yield (number in ones, number in others, most bits that differ) of pictures that look alike.

    Only hashes with an equal band of 8 bits are compared: all that differ in up to 7 bits have one.

    Args:
        ones: hashes.
        others: hashes.
        bits: that may differ, at most 7.

    Raises:
        ValueError: more bits than the bands can promise.
    """
    if not 0 <= bits < _BANDS:
        raise ValueError(f"near_pairs: bits {bits} is out of 0 to {_BANDS - 1}")
    other_rows = np.array([rows for rows, _ in others], dtype=np.uint64)
    other_columns = np.array([columns for _, columns in others], dtype=np.uint64)
    bands = [_by_value(other_rows >> np.uint64(8 * band) & np.uint64(0xFF)) for band in range(_BANDS)]
    for number, (rows, columns) in enumerate(ones):
        chosen = np.unique(np.concatenate([bands[band][rows >> 8 * band & 0xFF] for band in range(_BANDS)]))
        by_rows = np.bitwise_count(other_rows[chosen] ^ np.uint64(rows))
        by_columns = np.bitwise_count(other_columns[chosen] ^ np.uint64(columns))
        most = np.maximum(by_rows, by_columns)
        for place in np.flatnonzero(most <= bits):
            yield number, int(chosen[place]), int(most[place])


def _by_value(values: np.ndarray) -> list[np.ndarray]:
    """Return the places of each value of 0 to 255."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, 256)))
