"""A 5 x 7 pixel font of capitals and digits, so that text looks the same on every machine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["GLYPH_HEIGHT", "GLYPH_WIDTH", "text_mask"]

GLYPH_WIDTH, GLYPH_HEIGHT = 5, 7

# Seven rows of five bits each, the highest bit on the left.
_GLYPHS = {
    " ": "00000000000000", "0": "0E11131519110E", "1": "040C040404040E", "2": "0E11010204081F", "3": "1F02040201110E",
    "4": "02060A121F0202", "5": "1F101E0101110E", "6": "0608101E11110E", "7": "1F010204080808", "8": "0E11110E11110E",
    "9": "0E11110F01020C", "A": "0E11111F111111", "B": "1E11111E11111E", "C": "0E11101010110E", "D": "1C12111111121C",
    "E": "1F10101E10101F", "F": "1F10101E101010", "G": "0E11101713110F", "H": "1111111F111111", "I": "0E04040404040E",
    "J": "0702020202120C", "K": "11121418141211", "L": "1010101010101F", "M": "111B1515111111", "N": "11111915131111",
    "O": "0E11111111110E", "P": "1E11111E101010", "Q": "0E11111115120D", "R": "1E11111E141211", "S": "0F10100E01011E",
    "T": "1F040404040404", "U": "1111111111110E", "V": "11111111110A04", "W": "1111111515150A", "X": "11110A040A1111",
    "Y": "1111110A040404", "Z": "1F01020408101F",
}  # fmt: skip


@lru_cache(maxsize=256)
def text_mask(text: str, scale: int = 1) -> np.ndarray:
    """Return the pixels of a text: [7 * scale, (6 * n - 1) * scale] bool, True = ink; read-only.

    Raises:
        KeyError: a character that the font does not have.
    """
    mask = np.zeros((GLYPH_HEIGHT, (GLYPH_WIDTH + 1) * len(text) - 1), dtype=bool)
    for place, character in enumerate(text):
        rows = bytes.fromhex(_GLYPHS[character])
        for y, row in enumerate(rows):
            for x in range(GLYPH_WIDTH):
                mask[y, place * (GLYPH_WIDTH + 1) + x] = row >> (GLYPH_WIDTH - 1 - x) & 1
    mask = mask.repeat(scale, 0).repeat(scale, 1)
    mask.setflags(write=False)
    return mask
