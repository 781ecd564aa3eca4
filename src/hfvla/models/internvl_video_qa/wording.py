"""The text around a question: what is asked, the lines it becomes, and rows of tokens of one length."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hfvla.data.choices import LETTERS, format_choice
from hfvla.data.text import clean_text
from hfvla.errors import DataError

__all__ = ["ParsedAnswer", "PromptItem", "padded", "parse_answer", "question_lines"]


@dataclass(frozen=True)
class PromptItem:
    """One question to encode.

    Attributes:
        question: its text.
        choices: 2 to 4 texts without letters.
        frame_tiles: tiles of each frame, in order.
        answer: index into `choices`, or -1.
        where: sample, for errors.
        in_words: the choices are not shown, and the answer is its text.
        spelt: the answer is the right choice's text and, behind it, its letter.
    """

    question: str
    choices: Sequence[str]
    frame_tiles: Sequence[int]
    answer: int = -1
    where: str = "question"
    in_words: bool = False
    spelt: bool = False


def question_lines(item: PromptItem, forbidden: Sequence[str] = ()) -> list[str]:
    """Return the question and, unless it is to be answered in words, its lettered choices, a line each.

    Args:
        item: the question.
        forbidden: texts that mean something else to the tokenizer.

    Raises:
        DataError: an empty question, fewer than 2 or more than 4 choices, or a forbidden text.
    """
    if not item.question.strip():
        raise DataError("the question is empty", where=item.where)
    if not 2 <= len(item.choices) <= len(LETTERS):
        raise DataError(
            "wrong number of choices", where=item.where, got=len(item.choices), expected=f"2 to {len(LETTERS)}"
        )
    lines = [clean_text(item.question), *(format_choice(i, clean_text(text)) for i, text in enumerate(item.choices))]
    for token in forbidden:
        if any(token in line for line in lines):
            raise DataError("a special token in the text", where=item.where, got=token, fix="Take it out.")
    return lines[:1] if item.in_words else lines


def padded(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Return [B, T] long: rows filled up with a value to the longest."""
    width = max(map(len, rows))
    pads = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, pads, strict=True)])


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
    match = _LETTER.match(_INTRODUCTION.sub("", text))
    letter, rest = (match[1], match[2]) if match else ("", "")
    bare = letter if letter and not rest else text  # "Answer: B" is a letter and nothing else
    same = [index for index, choice in enumerate(choices) if _plain(choice) in (_plain(text), _plain(bare))]
    if len(same) == 1 and bare == letter and letter in LETTERS[: len(choices)] and same[0] != LETTERS.index(letter):
        return ParsedAnswer(-1, f"'{letter}' is the letter of one choice and the text of another")
    if len(same) == 1:
        return ParsedAnswer(same[0])
    if match is None:
        return ParsedAnswer(-1, f"no letter and no choice: {text[:60]!r}")
    if letter not in LETTERS[: len(choices)]:
        return ParsedAnswer(-1, f"'{letter}' is not among the {len(choices)} choices")
    index = LETTERS.index(letter)
    if rest and _plain(rest) != _plain(choices[index]):
        return ParsedAnswer(-1, f"'{letter}' is followed by another text than choice {letter}: {rest[:60]!r}")
    return ParsedAnswer(index)
