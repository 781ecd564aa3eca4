"""The text around a question: what is asked, the lines it becomes, and rows of tokens of one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hfvla.data.choices import LETTERS, format_choice
from hfvla.errors import DataError

__all__ = ["PromptItem", "padded", "question_lines"]


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
    lines = [item.question.strip(), *(format_choice(i, text.strip()) for i, text in enumerate(item.choices))]
    for token in forbidden:
        if any(token in line for line in lines):
            raise DataError("a special token in the text", where=item.where, got=token, fix="Take it out.")
    return lines[:1] if item.in_words else lines


def padded(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Return [B, T] long: rows filled up with a value to the longest."""
    width = max(map(len, rows))
    pads = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, pads, strict=True)])
