"""From written words to a choice, strictly: what is not clearly one of the choices is a failure with its reason."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from hfvla.data.choices import LETTERS

__all__ = ["ParsedAnswer", "parse_answer"]

_INTRODUCTION = re.compile(
    r"^(the\s+)?(correct\s+)?(answer|đáp án|câu trả lời|trả lời)(\s+(is|đúng là|đúng|là))?\s*[:\-]?\s+", re.IGNORECASE
)
_LETTER = re.compile(r"^\(?([A-Z])\)?(?:[.):,]\s*(.*))?$", re.DOTALL)


@dataclass(frozen=True)
class ParsedAnswer:
    """A choice, or why there is none.

    Attributes:
        index: of the choice; -1 = failed.
        reason: why it failed, or "".
    """

    index: int
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether no choice was named."""
        return self.index < 0


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip().rstrip(".").casefold()


def parse_answer(text: str, choices: Sequence[str]) -> ParsedAnswer:
    """Read a written answer: a letter of the question ("B", "B.", "(B)", "Answer: B"), "B. text", or a choice's text.

    Never guesses: a letter the question does not have, a letter with another choice's text, several letters, or free
    prose is a failure.

    Args:
        text: what the model wrote.
        choices: the question's own choices, without letters.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not text:
        return ParsedAnswer(-1, "nothing was written")
    same = [index for index, choice in enumerate(choices) if _plain(choice) == _plain(text)]
    if len(same) == 1:
        return ParsedAnswer(same[0])
    match = _LETTER.match(_INTRODUCTION.sub("", text))
    if match is None:
        return ParsedAnswer(-1, f"no letter and no choice: {text[:60]!r}")
    letter, rest = match[1], match[2]
    if letter not in LETTERS[: len(choices)]:
        return ParsedAnswer(-1, f"'{letter}' is not among the {len(choices)} choices")
    index = LETTERS.index(letter)
    if rest and _plain(rest) != _plain(choices[index]):
        return ParsedAnswer(-1, f"'{letter}' is followed by another text than choice {letter}: {rest[:60]!r}")
    return ParsedAnswer(index)
