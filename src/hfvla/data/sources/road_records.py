"""Records of the road-video challenge's JSON: the file's format, and what one record must hold."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hfvla.data.choices import LETTERS, split_choice
from hfvla.data.samples.video import UNLABELLED
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.json_files import read_json
from hfvla.data.text import clean_text, text_problem
from hfvla.data.video import TOLERANCE_S
from hfvla.errors import DataError

__all__ = [
    "RepeatedLetters",
    "answer_of",
    "choices_of",
    "has_repeated_letters",
    "id_of",
    "language_of",
    "load_questions",
    "support_of",
    "text_of",
]

RepeatedLetters = Literal["by_place", "refuse"]

logger = logging.getLogger(__name__)

_LATEST_S = 1e9  # a whole number may be too large for a float
_VIETNAMESE = frozenset("ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ")


def load_questions(path: Path) -> list[tuple[str, Any]]:
    """Read the file as (place, record) pairs; place is "file:index", counted from 0.

    Raises:
        DataError: unreadable, not JSON (names line and column), or not the challenge's format.
    """
    content = read_json(path, what="question file cannot be read")
    records = content.get("data") if isinstance(content, Mapping) else content
    if not isinstance(records, list) or not records:
        got = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise DataError(
            "no questions in the file", where=str(path), got=got, expected='{"data": [{"question": ...}, ...]}'
        )
    if not any(isinstance(record, Mapping) and "question" in record and "choices" in record for record in records):
        got = sorted(map(str, records[0])) if isinstance(records[0], Mapping) else type(records[0]).__name__
        raise DataError(
            "no record has the format of the road-video challenge",
            where=str(path),
            got=f"{len(records)} records, the first with {got}",
            expected="the keys 'question' and 'choices'",
        )
    promised = content.get("__count__") if isinstance(content, Mapping) else None
    if promised is not None and promised != len(records):
        logger.warning("%s promises %s questions and holds %d", path, promised, len(records))
    return [(f"{path.name}:{index}", record) for index, record in enumerate(records)]


def text_of(record: Mapping[str, Any], key: str) -> str:
    """Return a record's text in NFC, without outer blanks.

    Raises:
        UnusableError: missing, not a text, blank, or with half a character in it.
    """
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UnusableError(f"empty {key}", f"got {value!r}")
    return _stored(value, key)


def _stored(value: str, key: str) -> str:
    if problem := text_problem(value):
        raise UnusableError(f"{key} is no text", problem)
    return clean_text(value)


def id_of(record: Any) -> str:
    """Return a record's "id" or "question_id" as it is written; "" when it has none that can be stored."""
    value = record.get("id", record.get("question_id")) if isinstance(record, Mapping) else None
    found = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return "" if text_problem(found) else found


def choices_of(record: Mapping[str, Any], repeated_letters: RepeatedLetters = "by_place") -> tuple[str, ...]:
    """Return the texts by letter. Letters may come in any order, but are A, B ... without a gap.

    Args:
        record: with "choices".
        repeated_letters: what becomes of choices of which one carries another's letter (A, B, C, C), which is a slip
            of the pen: "by_place" gives each the letter of its place, "refuse" refuses them.

    Raises:
        UnusableError: no list of 2 to 4 texts, a choice without letter or text, or letters that are missing or, in
            any other way than that, used twice.
    """
    labels = _labels(record)
    letters = [letter for letter, _ in labels]
    twice = next((letter for letter in letters if letters.count(letter) > 1), None)
    if twice is not None:
        if repeated_letters == "refuse" or not has_repeated_letters(record):
            raise UnusableError("letter used twice", f"{twice!r} in {record['choices']!r}")
        return tuple(text for _, text in labels)
    if sorted(letters) != list(LETTERS[: len(labels)]):
        raise UnusableError("letters with a gap", f"got {', '.join(letters)}, expected {LETTERS[: len(labels)]}")
    return tuple(text for _, text in sorted(labels))


def has_repeated_letters(record: Mapping[str, Any]) -> bool:
    """Whether one of three or four choices carries another's letter and all the others stand at their own places."""
    letters = [letter for letter, _ in _labels(record)]
    misplaced = [letter for place, letter in enumerate(letters) if letter != LETTERS[place]]
    return len(letters) > 2 and len(misplaced) == 1 and letters.count(misplaced[0]) == 2


def _labels(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (letter, text) of the choices as they stand."""
    values = record.get("choices")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UnusableError("choices are not a list of texts", f"got {values!r}"[:200])
    if not 2 <= len(values) <= len(LETTERS):
        raise UnusableError("number of choices", f"got {len(values)}, expected 2 to {len(LETTERS)}")
    labels = []
    for value in values:
        parts = split_choice(_stored(value, "choice"))
        if parts is None:
            raise UnusableError("choice without a letter", repr(value))
        if not parts[1]:
            raise UnusableError("empty choice", repr(value))
        labels.append(parts)
    return labels


def answer_of(record: Mapping[str, Any], choices: tuple[str, ...]) -> int:
    """Return the index of the answer: a whole choice, its letter, or its text; `UNLABELLED` when there is none.

    Args:
        record: with "choices" and "answer".
        choices: of `choices_of`.

    Raises:
        UnusableError: not among the choices, or it names two of them: the letter of one that is the text of another,
            or a letter that stands twice.
    """
    value = record.get("answer")
    if value is None:
        return UNLABELLED
    wrong = UnusableError("answer not among the choices", f"{value!r} of {list(choices)}")
    if not isinstance(value, str):
        raise wrong
    given = _stored(value, "answer")
    letter, text = split_choice(given) or (given, "")
    letter = letter.upper()
    exact = [index for index, choice in enumerate(choices) if choice == given]
    own = [label for label, _ in _labels(record)] if has_repeated_letters(record) else LETTERS[: len(choices)]
    lettered = [place for place, label in enumerate(own) if letter in (label, LETTERS[place])]
    if text:
        lettered = [place for place in lettered if _spaced(choices[place]) == _spaced(text)]
    named = set(exact if len(exact) == 1 else ()) | set(lettered)
    if len(named) > 1:
        raise UnusableError("answer names two choices", f"{value!r} of {list(choices)}")
    if not named:
        raise wrong
    return named.pop()


def _spaced(text: str) -> str:
    return " ".join(text.split())


def support_of(record: Mapping[str, Any], duration_s: float) -> tuple[float, ...]:
    """Return a record's support frames in seconds; () when it has none.

    Raises:
        UnusableError: not times, or past the end of the video.
    """
    values = record.get("support_frames")
    if values is None:
        return ()
    values = values if isinstance(values, list) else [values]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values) or not all(0 <= number < _LATEST_S for number in numbers):
        raise UnusableError("support frame is not a time", f"got {values!r}, expected seconds >= 0")
    if any(number > duration_s + TOLERANCE_S for number in numbers):
        raise UnusableError("support frame past the end", f"{max(numbers)} s in a video of {duration_s:.3f} s")
    return tuple(min(float(number), duration_s) for number in numbers)


def language_of(text: str) -> str:
    """Return "vi" for a text with Vietnamese letters, in either Unicode form, "en" for plain ASCII, else ""."""
    if _VIETNAMESE & set(clean_text(text).lower()):
        return "vi"
    return "en" if text.isascii() else ""
