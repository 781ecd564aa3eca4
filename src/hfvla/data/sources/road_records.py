"""Records of the road-video challenge's JSON: the file's format, and what one record must hold."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfvla.data.choices import LETTERS, split_choice
from hfvla.data.samples.video import UNLABELLED
from hfvla.data.sources.census import UnusableError
from hfvla.data.video import TOLERANCE_S
from hfvla.errors import DataError

__all__ = ["answer_of", "choices_of", "id_of", "language_of", "load_questions", "support_of", "text_of"]

logger = logging.getLogger(__name__)

_VIETNAMESE = frozenset("ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ")


def load_questions(path: Path) -> list[tuple[str, Any]]:
    """Read the file as (place, record) pairs; place is "file:index", counted from 0.

    Raises:
        DataError: unreadable, not JSON (names line and column), or not the challenge's format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(
            "question file cannot be read", where=str(path), got=error.strerror, fix="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError("file is not UTF-8 text", where=str(path), got=error.reason, expected="UTF-8 JSON") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"broken JSON: {error.msg}",
            where=f"{path}:{error.lineno}:{error.colno}",
            got=error.doc[error.pos : error.pos + 20],
            fix=f"Correct line {error.lineno}, column {error.colno}.",
        ) from error
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
    """Return a record's text without outer blanks.

    Raises:
        UnusableError: missing, not a text, or blank.
    """
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UnusableError(f"empty {key}", f"got {value!r}")
    return value.strip()


def id_of(record: Any) -> str:
    """Return a record's "id" or "question_id" as text; "" when it has none."""
    value = record.get("id", record.get("question_id")) if isinstance(record, Mapping) else None
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def choices_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts by letter. Letters may come in any order, but are A, B ... without a gap.

    Raises:
        UnusableError: no list of 2 to 4 texts, or a letter is missing or used twice.
    """
    values = record.get("choices")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UnusableError("choices are not a list of texts", f"got {values!r}")
    if not 2 <= len(values) <= len(LETTERS):
        raise UnusableError("number of choices", f"got {len(values)}, expected 2 to {len(LETTERS)}")
    texts: dict[str, str] = {}
    for value in values:
        parts = split_choice(value)
        if parts is None:
            raise UnusableError("choice without a letter", repr(value))
        letter, text = parts
        if letter in texts:
            raise UnusableError("letter used twice", f"{letter!r} in {values!r}")
        if not text:
            raise UnusableError("empty choice", repr(value))
        texts[letter] = text
    if sorted(texts) != list(LETTERS[: len(texts)]):
        raise UnusableError("letters with a gap", f"got {', '.join(texts)}, expected {LETTERS[: len(texts)]}")
    return tuple(texts[letter] for letter in sorted(texts))


def answer_of(record: Mapping[str, Any], choices: tuple[str, ...]) -> int:
    """Return the index of the answer: a whole choice, its letter, or its text; `UNLABELLED` when there is none.

    Raises:
        UnusableError: not among the choices.
    """
    value = record.get("answer")
    if value is None:
        return UNLABELLED
    wrong = UnusableError("answer not among the choices", f"{value!r} of {list(choices)}")
    if not isinstance(value, str):
        raise wrong
    given, parts = value.strip(), split_choice(value)
    exact = [index for index, text in enumerate(choices) if text == given]
    if len(exact) == 1:
        return exact[0]
    letter, text = parts if parts else (given, "")
    if len(letter) != 1 or letter.upper() not in LETTERS[: len(choices)]:
        raise wrong
    index = LETTERS.index(letter.upper())
    if text and " ".join(text.split()) != " ".join(choices[index].split()):
        raise wrong
    return index


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
    if len(numbers) < len(values) or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise UnusableError("support frame is not a time", f"got {values!r}, expected seconds >= 0")
    if any(number > duration_s + TOLERANCE_S for number in numbers):
        raise UnusableError("support frame past the end", f"{max(numbers)} s in a video of {duration_s:.3f} s")
    return tuple(min(float(number), duration_s) for number in numbers)


def language_of(text: str) -> str:
    """Return "vi" for a text with Vietnamese letters, "en" for plain ASCII, else ""."""
    if _VIETNAMESE & set(text.lower()):
        return "vi"
    return "en" if text.isascii() else ""
