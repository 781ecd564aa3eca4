"""JSON files of any size, a record at a time: a list, or an object whose parts are lists or objects of records.

    [{...}, {...}]                                   ("", 0, {...}), ("", 1, {...})
    {"info": {...}, "annotations": [{...}, {...}]}   ("info", None, {...}), ("annotations", 0, {...}), ...
    {"07333408": {...}, "07333409": {...}}           ("07333408", None, {...}), ...

Bytes that are no UTF-8 become half characters, so that the record that holds them is counted and the file is read on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from hfvla.data.sources.json_files import RepeatedKeyError, unique_keys
from hfvla.errors import DataError

__all__ = ["JsonPart", "iterate_json", "iterate_lines", "open_text"]

_CHUNK = 1 << 20
_LARGEST = 1 << 28  # letters of one record
_BLANK = re.compile(r"[ \t\n\r]*")


class JsonPart(NamedTuple):
    """One value of a file.

    Attributes:
        section: key of the file's object; "" in a list.
        number: position within the list; None for a value that is not part of one.
        value: parsed.
    """

    section: str
    number: int | None
    value: Any


def open_text(path: str | os.PathLike[str]) -> IO[str]:
    """Open a text of which single letters may be broken; a byte-order mark is left out, and lines stay as they are.

    Raises:
        DataError: missing, or no regular file.
    """
    place = Path(path)
    try:
        if not place.is_file():
            raise DataError("file cannot be read", where=str(path), got="not a regular file", fix="Check the path.")
        return open(place, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    except OSError as error:
        raise DataError("file cannot be read", where=str(path), got=error.strerror or str(error)) from error


def iterate_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield a text's lines that are not blank, with their numbers from 1; only line feeds end a line.

    Raises:
        DataError: see `open_text`.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def iterate_json(path: str | os.PathLike[str]) -> Iterator[JsonPart]:
    """Yield the records of a JSON file, holding one of them and a megabyte of text.

    Raises:
        DataError: see `open_text`; broken JSON (names line and column), a key twice in an object, nesting too deep.
    """
    with open_text(path) as file:
        text = _Text(file, str(path))
        opening = text.letter()
        if opening == "[":
            yield from _elements(text, "")
        elif opening == "{":
            yield from _sections(text)
        else:
            text.broken("neither a list nor an object")
        if text.letter():
            text.broken("more text behind the end")


def _elements(text: _Text, section: str) -> Iterator[JsonPart]:
    text.skip("[")
    number = 0
    while text.letter() != "]":
        if number:
            text.skip(",")
        yield JsonPart(section, number, text.value())
        number += 1
    text.skip("]")


def _sections(text: _Text) -> Iterator[JsonPart]:
    text.skip("{")
    first = True
    while text.letter() != "}":
        if not first:
            text.skip(",")
        first = False
        key = text.value()
        if not isinstance(key, str):
            text.broken("a key that is no text")
        text.skip(":")
        if text.letter() == "[":
            yield from _elements(text, key)
        else:
            yield JsonPart(key, None, text.value())
    text.skip("}")


class _Text:
    """A window on a file's text, moved on as values are taken."""

    def __init__(self, file: IO[str], where: str) -> None:
        self._file, self._where = file, where
        self._text, self._at, self._ended, self._lines, self._column = "", 0, False, 1, 1
        self._decoder = json.JSONDecoder(object_pairs_hook=unique_keys)

    def letter(self) -> str:
        """Return the next letter that is not blank, "" at the end."""
        while True:
            self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more(_CHUNK)

    def skip(self, letter: str) -> None:
        if self.letter() != letter:
            self.broken(f"expected {letter!r}")
        self._at += 1

    def value(self) -> Any:
        self.letter()
        size = _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # A value that is cut by the window's end fails there, or as a text without end.
                cut = error.pos > len(self._text) - 16 or error.msg.startswith("Unterminated string")
                if self._ended or not cut or len(self._text) - self._at > _LARGEST:
                    self.broken(error.msg, error.pos)
            except RepeatedKeyError as error:
                self.broken(f"the key {str(error)!r} stands twice in one object")
            except RecursionError:
                self.broken("nested too deeply")
            except ValueError as error:
                self.broken(str(error))
            else:
                # Of "1.5" a window may hold "1." alone, of which "1" is a number, too.
                cut = end == len(self._text) or self._text[end] in ".eE"
                if self._ended or not (cut and isinstance(value, int | float)):
                    self._at = end
                    return value
            self._more(size)
            size *= 2

    def broken(self, problem: str, at: int | None = None) -> None:
        at = min(self._at if at is None else at, len(self._text))
        passed = self._text[:at]
        line = self._lines + passed.count("\n")
        column = at - passed.rfind("\n") if "\n" in passed else self._column + at
        raise DataError(
            f"broken JSON: {problem}",
            where=f"{self._where}:{line}:{column}",
            got=self._text[at : at + 20].encode(errors="backslashreplace").decode(),
            fix="Correct the file, or fetch it anew: it may be cut short.",
        )

    def _more(self, size: int) -> None:
        passed = self._text[: self._at]
        lines = passed.count("\n")
        self._column = len(passed) - passed.rfind("\n") if lines else self._column + len(passed)
        self._lines += lines
        chunk = self._file.read(size)
        self._text, self._at, self._ended = self._text[self._at :] + chunk, 0, not chunk
