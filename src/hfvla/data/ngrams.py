"""Hashed n-grams of a text: ids for an embedding that knows parts of words it has never seen whole."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence

__all__ = ["hashed_ngrams"]

_WORD = re.compile(r"[^\W_]+")
_LENGTHS = (3, 4, 5)


def hashed_ngrams(text: str, buckets: int, dropout: float = 0.0, seed: int = 0, apart: bool = False) -> list[int]:
    """Return sorted, distinct bucket ids 1..`buckets` of a text's words, word pairs and 3- to 5-letter parts.

    The hash is CRC-32, the same on every machine and Python. After Bojanowski et al., "Enriching Word Vectors with
    Subword Information" (2017).

    Args:
        text: any text; case does not count.
        buckets: number of ids; different n-grams may share one.
        dropout: share of the words that are left out whole, with every pair and part of theirs.
        seed: which words those are is drawn from it alone.
        apart: words and word pairs get ids of their own, `buckets` + 1 .. 2 `buckets`.
    """
    words: list[str | None] = list(_WORD.findall(text.lower()))
    if dropout:
        draw = random.Random(f"words {seed}")  # not the numbers that a paraphrase draws from the same seed
        words = [word if draw.random() >= dropout else None for word in words]
    first = 1 + buckets * apart
    whole = {zlib.crc32(gram.encode()) % buckets + first for gram in _words_and_pairs(words)}
    return sorted(whole | {zlib.crc32(part.encode()) % buckets + 1 for part in _parts(words)})


def _words_and_pairs(words: Sequence[str | None]) -> Iterator[str]:
    yield from (word for word in words if word)
    yield from (f"{first} {second}" for first, second in zip(words, words[1:], strict=False) if first and second)


def _parts(words: Sequence[str | None]) -> Iterator[str]:
    for word in filter(None, words):
        framed = f"<{word}>"
        for length in _LENGTHS:
            yield from (framed[start : start + length] for start in range(len(framed) - length + 1))
