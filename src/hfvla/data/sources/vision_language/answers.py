"""Answers of several people to one question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["majority"]


def majority(answers: Sequence[str]) -> str:
    """Return the answer that most people gave, the first of several; letter case does not matter."""
    counts = Counter(answer.casefold() for answer in answers)
    most = max(counts.values())
    return next(answer for answer in answers if counts[answer.casefold()] == most)
