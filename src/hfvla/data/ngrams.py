"""Hashed n-grams of a text: ids for an embedding that knows parts of words it has never seen whole."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

__all__ = ["hashed_ngrams"]

_WORD = re.compile(r"[^\W_]+")
_LENGTHS = (3, 4, 5)


def hashed_ngrams(text: str, buckets: int) -> list[int]:
    """Return sorted, distinct bucket ids 1..`buckets` of a text's words, word pairs and 3- to 5-letter parts.

    The hash is CRC-32, the same on every machine and Python. After Bojanowski et al., "Enriching Word Vectors with
    Subword Information" (2017).

    Args:
        text: any text; case does not count.
        buckets: number of ids; different n-grams may share one.
    """
    return sorted({zlib.crc32(gram.encode()) % buckets + 1 for gram in _ngrams(text.lower())})


def _ngrams(text: str) -> Iterator[str]:
    words = _WORD.findall(text)
    yield from words
    yield from (f"{first} {second}" for first, second in zip(words, words[1:], strict=False))
    for word in words:
        framed = f"<{word}>"
        for length in _LENGTHS:
            yield from (framed[start : start + length] for start in range(len(framed) - length + 1))
