"""Reads letters and boxes out of what a model wrote; what cannot be read is no answer, never a guess."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hfvla.data.samples.chat import ChatSample
from hfvla.metrics.chat.tasks import answer_of

__all__ = ["BOX_SCALES", "box_scale", "read_boxes", "read_choice"]

_SAID = re.compile(r"(?:answer|option|choice)(?:\s+is|\s*:)?\s*:?\s*\(?\s*([A-Z])\b(?![a-z'])", re.IGNORECASE)
_LEADING = re.compile(r"^\s*[(\[]?\s*(?:([A-Z])\s*(?:[)\].:,]|$)|([a-z])\s*[)\].]?\s*$)")
_ALONE = re.compile(r"(?<![A-Za-z'])([A-Z])(?![A-Za-z'])")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

BOX_SCALES = ("shares", "hundredths", "thousandths", "pixels")
"""How numbers of a written box are meant: of the picture's sides 0..1, 0..100, 0..1000, or pixels."""


def read_choice(text: str, choices: Sequence[str]) -> int:
    """Return the index of the choice that a text names, or -1.

    In this order: "B", "(B)", "B. ..." at its start; "the answer is B"; the text of exactly one choice as the whole
    answer; one single letter standing alone ("A" at the start of a sentence is an article and does not count); the
    text of exactly one choice within the answer.

    Args:
        text: what the model wrote.
        choices: texts, without letters.
    """
    count = len(choices)
    found = _LEADING.match(text)
    if found:
        place = ord((found[1] or found[2]).upper()) - 65
        if place < count:
            return place
    said = {ord(letter.upper()) - 65 for letter in _SAID.findall(text)}
    if len(said) == 1 and max(said) < count:
        return said.pop()
    plain = _plain(text)
    whole = [place for place, choice in enumerate(choices) if _plain(choice) == plain and plain]
    if len(whole) == 1:
        return whole[0]
    alone = {
        ord(letter) - 65 for letter in _ALONE.findall(re.sub(r"(?:^|[.!?]\s+)A\s+(?!or\b|and\b)(?=[a-z])", " ", text))
    }
    alone = {place for place in alone if place < count}
    if len(alone) == 1:
        return alone.pop()
    within = [
        place
        for place, choice in enumerate(choices)
        if _plain(choice) and re.search(rf"(?<!\w){re.escape(_plain(choice))}(?!\w)", plain)
    ]
    longest = [place for place in within if not any(_inside(choices[place], choices[o]) for o in within if o != place)]
    return longest[0] if len(longest) == 1 else -1


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s.]", " ", text.lower()).split()).strip(" .")


def _inside(short: str, long: str) -> bool:
    return _plain(short) != _plain(long) and _plain(short) in _plain(long)


def read_boxes(text: str, scale: str, size: tuple[int, int]) -> np.ndarray:
    """Return the boxes that a text names, [K, 4] left, top, right, bottom as shares of the picture, clipped to it.

    Numbers count by fours; what is left over, and boxes without an area, do not count.

    Args:
        text: what was written.
        scale: one of `BOX_SCALES`.
        size: width and height of the picture in pixels.

    Raises:
        ValueError: another scale.
    """
    numbers = [float(number) for number in _NUMBER.findall(text)]
    boxes = np.array(numbers[: len(numbers) // 4 * 4], dtype=float).reshape(-1, 4)
    boxes = np.clip(boxes / _side(scale, size), 0.0, 1.0)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def _side(scale: str, size: tuple[int, int]) -> np.ndarray:
    if scale not in BOX_SCALES:
        raise ValueError(f"boxes are written as one of {', '.join(BOX_SCALES)}; got {scale!r}")
    sides = {"shares": 1.0, "hundredths": 100.0, "thousandths": 1000.0}
    return np.array([*size, *size], dtype=float) if scale == "pixels" else np.full(4, sides[scale])


def box_scale(samples: Sequence[ChatSample]) -> str:
    """Return how a source writes its boxes, by what its right answers say of boxes that are known.

    Args:
        samples: with boxes and answers in numbers.
    """
    votes: Counter[str] = Counter()
    for sample in samples:
        if not sample.boxes or not answer_of(sample):
            continue
        known = np.array([box.normalised for box in sample.boxes])
        errors = {}
        for scale in BOX_SCALES:
            read = read_boxes(answer_of(sample), scale, sample.boxes[0].size)
            errors[scale] = float(np.abs(known - read[0]).sum(axis=1).min()) if len(read) else 4.0
        votes[min(errors, key=lambda scale: errors[scale])] += 1
    return votes.most_common(1)[0][0] if votes else "shares"
