"""JSON and JSON-lines files as readers take them: UTF-8 with or without a mark, lines cut at line feeds alone.

Text pasted from web pages and PDFs has U+2028 and U+0085 in it, which JSON allows inside a string and
`str.splitlines` takes for the end of a line.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from hfvla.errors import DataError

__all__ = [
    "MAX_TEXT_BYTES",
    "RepeatedKeyError",
    "parse_json",
    "read_json",
    "read_text",
    "text_lines",
    "unique_keys",
]

MAX_TEXT_BYTES = 1 << 32
"""Of a file that is read as a whole; a file may claim any size and hold nothing."""


def read_text(path: str | os.PathLike[str], *, what: str = "file cannot be read", fix: str = "Check the path.") -> str:
    """Read a UTF-8 file; a byte-order mark at its start is left out.

    Args:
        path: of a regular file; a pipe would wait for ever, and a device never end.
        what: the error of a file that cannot be read.
        fix: its remedy.

    Raises:
        DataError: missing, no regular file, unreadable, or not UTF-8.
    """
    where = str(path) if len(str(path)) < 4096 else f"{str(path)[:60]}..."
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(what, where=where, got="not a regular file", fix=fix)
        if status.st_size > MAX_TEXT_BYTES:
            raise DataError(what, where=where, got=f"{status.st_size} bytes", expected=f"at most {MAX_TEXT_BYTES}")
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("file is not UTF-8 text", where=where, got=error.reason, expected="UTF-8 text") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DataError(what, where=where, got=getattr(error, "strerror", None) or str(error), fix=fix) from error


def text_lines(text: str) -> list[tuple[int, str]]:
    """Return a text's lines that are not blank, with their numbers from 1; only line feeds end a line."""
    return [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def parse_json(text: str, where: str, *, line: int = 1, expected: str | None = None) -> Any:
    """Parse one JSON value.

    Args:
        text: to parse.
        where: file, for errors.
        line: number of the text's first line in it.
        expected: what the file should hold, for errors.

    Raises:
        DataError: not JSON (names line and column), a key that stands twice in one object, nesting too deep to read,
            or a number of thousands of digits.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        number = line + error.lineno - 1
        raise DataError(
            f"broken JSON: {error.msg}",
            where=f"{where}:{number}:{error.colno}",
            got=error.doc[error.pos : error.pos + 20],
            expected=expected,
            fix=f"Correct line {number}, column {error.colno}.",
        ) from error
    except RepeatedKeyError as error:
        raise DataError("a key stands twice in one object", where=f"{where}:{line}", got=str(error)[:60]) from None
    except RecursionError:
        raise DataError("JSON is nested too deeply", where=f"{where}:{line}", expected="a few levels") from None
    except ValueError as error:
        raise DataError("JSON that cannot be read", where=f"{where}:{line}", got=str(error)) from error


def read_json(path: str | os.PathLike[str], *, what: str = "file cannot be read") -> Any:
    """Parse a JSON file.

    Raises:
        DataError: see `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, what=what), str(path))


class RepeatedKeyError(Exception):
    """A key stands twice in one object; Python would keep the last and say nothing."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's pairs as a dict; an `object_pairs_hook`.

    Raises:
        RepeatedKeyError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RepeatedKeyError(next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)
