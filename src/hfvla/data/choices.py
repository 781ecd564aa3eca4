"""Letters of multiple-choice answers, and orders of the choices with the answer taken along.

A choice whose text speaks of its place ("all of the above", "both A and B") does not survive every order: the first
kind keeps its place, and the second keeps the whole question as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfvla.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "LETTERS",
    "OrderedChoices",
    "format_choice",
    "index_of_letter",
    "letter_of",
    "reorder_choices",
    "rotate_choices",
    "shuffle_choices",
    "split_choice",
]

LETTERS = "ABCD"
"""Letters by choice index; a question has 2 to 4 choices."""

_LETTERED = re.compile(r"^\s*\(?\s*([A-Za-z])\s*[.):]\s*(.*?)\s*$", re.DOTALL)
# "all of the above", "tất cả các đáp án trên", "không có đáp án nào đúng": about the choices before it
_PLACED = re.compile(
    r"\b(all|none|both|any|neither)\s+(of\s+)?(the\s+)?above\b"
    r"|\b(all|none|both|any|neither)\s+of\s+(these|them|those|the\s+(other\s+)?(answers|choices|options))\b"
    r"|\b(tất cả|cả hai|cả ba|không)\b.*\b(đáp án|phương án|lựa chọn)\b|\b(tất cả|cả hai|cả ba)\b.*\btrên\b",
    re.IGNORECASE,
)
# "both A and B", "A hoặc C", "cả A và B đều đúng"
_NAMES_LETTERS = re.compile(r"\b[A-D]\b\s*(,|&|\+|/|and|or|và|hoặc|lẫn)\s*\b[A-D]\b")


@dataclass(frozen=True)
class OrderedChoices:
    """Choices in a new order.

    Attributes:
        choices: texts in the new order.
        answer: the answer's new index; -1 stays -1.
        order: for each new place, the old index: `choices[i] == old[order[i]]`.
    """

    choices: tuple[str, ...]
    answer: int
    order: tuple[int, ...]

    def original(self, index: int) -> int:
        """Return which choice of the old order stands at `index` now; -1 (no answer) stays -1."""
        return self.order[index] if index >= 0 else index


def letter_of(index: int) -> str:
    """Return the letter of a choice: 0 is "A".

    Raises:
        DataError: no such choice.
    """
    if not 0 <= index < len(LETTERS):
        raise DataError("no letter for this choice", got=index, expected=f"0 to {len(LETTERS) - 1}")
    return LETTERS[index]


def index_of_letter(letter: str, count: int) -> int:
    """Return the index of a letter among the first `count` choices; case and blanks do not matter.

    Raises:
        DataError: not one of these letters.
    """
    valid = LETTERS[:count]
    found = letter.strip().upper()
    if len(found) != 1 or found not in valid:
        raise DataError("not the letter of a choice", got=letter, expected=f"one of {', '.join(valid)}")
    return valid.index(found)


def split_choice(choice: str) -> tuple[str, str] | None:
    """Split "A. text" (also "A) text", "(A) text", "A: text") into ("A", "text"); None without a letter."""
    match = _LETTERED.match(choice)
    return (match[1].upper(), match[2]) if match else None


def format_choice(index: int, text: str) -> str:
    """Return "A. text"."""
    return f"{letter_of(index)}. {text}"


def reorder_choices(choices: Sequence[str], answer: int, order: Sequence[int]) -> OrderedChoices:
    """Put choices into an order; the answer goes along.

    Args:
        choices: texts without letters.
        answer: index into `choices`, or -1.
        order: for each new place, the old index.

    Raises:
        DataError: `order` is no permutation, or the answer is not among the choices.
    """
    if sorted(order) != list(range(len(choices))):
        raise DataError("not an order of the choices", got=list(order), expected=f"0 to {len(choices) - 1}, once each")
    if not -1 <= answer < len(choices):
        raise DataError("answer is not among the choices", got=answer, expected=f"-1 to {len(choices) - 1}")
    places = tuple(int(place) for place in order)
    return OrderedChoices(tuple(choices[i] for i in places), places.index(answer) if answer >= 0 else -1, places)


def _movable(choices: Sequence[str]) -> list[int]:
    """Indices of the choices that may change places."""
    texts = [unicodedata.normalize("NFC", text) for text in choices]
    if any(_NAMES_LETTERS.search(text) for text in texts):
        return []
    return [index for index, text in enumerate(texts) if not _PLACED.search(text)]


def _reorder_movable(choices: Sequence[str], answer: int, moved: Sequence[int], free: Sequence[int]) -> OrderedChoices:
    order = list(range(len(choices)))
    for place, old in zip(free, moved, strict=True):
        order[place] = old
    return reorder_choices(choices, answer, order)


def shuffle_choices(choices: Sequence[str], answer: int, generator: np.random.Generator) -> OrderedChoices:
    """Put choices into a random order, each as likely; those that speak of their place keep it.

    Args:
        choices: texts without letters.
        answer: index into `choices`, or -1.
        generator: source of the order; draws once whatever the choices are.

    Raises:
        DataError: the answer is not among the choices, or there are more choices than letters.
    """
    if len(choices) > len(LETTERS):
        raise DataError("more choices than letters", got=len(choices), expected=f"at most {len(LETTERS)}")
    ranks = generator.random(len(LETTERS))
    free = _movable(choices)
    moved = [free[place] for place in sorted(range(len(free)), key=lambda place: ranks[place])]
    return _reorder_movable(choices, answer, moved, free)


def rotate_choices(choices: Sequence[str], answer: int, steps: int) -> OrderedChoices:
    """Move every choice `steps` places on, the last to the front; over n steps each stands at each place once.

    Choices that speak of their place keep it.

    Raises:
        DataError: the answer is not among the choices.
    """
    free = _movable(choices)
    shift = steps % len(free) if free else 0
    return _reorder_movable(choices, answer, free[len(free) - shift :] + free[: len(free) - shift], free)
