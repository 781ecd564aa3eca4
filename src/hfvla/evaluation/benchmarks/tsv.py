"""TSV files of benchmarks, as VLMEvalKit publishes them: one question a line, pictures in base64."""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import string
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import ChatSample, ImageRef
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.inside import inside_root
from hfvla.errors import DataError
from hfvla.evaluation.benchmarks.catalog import Benchmark
from hfvla.evaluation.benchmarks.wording import benchmark_sample

__all__ = ["read_tsv"]

_NEEDED = ("index", "question", "answer")
_REFERENCE_LETTERS = 64  # a shorter "picture" is the index of the line that has it
_KEPT = ("split", "l2-category", "set_id", "figure_id", "question_id", "image_path")


def read_tsv(path: Path, benchmark: Benchmark) -> Iterator[ChatSample]:
    """Yield the questions of a file one by one, so that no more pictures than needed are in memory.

    A line's `image` holds base64, a list of it, or the index of another line that has the picture; `image_path` names
    files beside the TSV file instead. Copies of a question with its choices rotated have an index a million, or
    more, above the question's; they share its `group`.

    Args:
        path: the TSV file.
        benchmark: whose file it is.

    Raises:
        DataError: a column is missing, or a line's picture or answer cannot be read; with the line's number.
    """
    shared = _referred(path)
    kept: dict[str, str] = {}
    for number, row in _rows(path):
        where = f"{path}:{number}"
        index = (row.get("index") or "").strip()
        image = row.get("image") or ""
        if index in shared:
            kept[index] = image
        if 0 < len(image) <= _REFERENCE_LETTERS:
            if image.strip() not in kept:
                raise DataError("a picture that is another line's, which comes later or never", where=where, got=image)
            image = kept[image.strip()]
        yield _sample(row, index, _pictures(image, row, path.parent, where), benchmark, where)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                got = ", ".join(reader.fieldnames or ()) or "an empty file"
                raise DataError(f"a benchmark's file lacks {', '.join(missing)}", where=str(path), got=got[:200])
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("a benchmark's file cannot be read", where=str(path), got=str(error)) from error


def _referred(path: Path) -> set[str]:
    """Return the indices of lines whose picture other lines show."""
    found = set()
    for _, row in _rows(path):
        image = (row.get("image") or "").strip()
        if 0 < len(image) <= _REFERENCE_LETTERS:
            found.add(image)
    return found


def _as_list(text: str) -> list[str]:
    """Return the members of a list as Python writes it, or the text alone."""
    stripped = text.strip()
    if stripped.startswith("[") and stripped.endswith("]"):
        try:
            found = ast.literal_eval(stripped)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [text]
        if isinstance(found, list):
            return [str(member) for member in found]
    return [text]


def _pictures(image: str, row: Mapping[str, Any], root: Path, where: str) -> list[ImageRef]:
    if image:
        return [ImageRef(data=_decoded(member, where)) for member in _as_list(image)]
    try:
        names = [name for name in _as_list(row.get("image_path") or "") if name]
        return [ImageRef(path=str(inside_root(root, name, "image"))) for name in names]
    except UnusableError as error:
        raise DataError("a picture's path cannot be followed", where=where, got=str(error)) from error


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError("a picture is no base64", where=where, got=text[:40]) from error


def _sample(
    row: Mapping[str, Any], index: str, images: list[ImageRef], benchmark: Benchmark, where: str
) -> ChatSample:
    letters = [letter for letter in string.ascii_uppercase if (row.get(letter) or "").strip() not in ("", "nan")]
    choices = [row[letter].strip() for letter in letters] if benchmark.scorer == "choice" else []
    answer = (row.get("answer") or "").strip()
    if choices:
        if letters != list(string.ascii_uppercase[: len(letters)]):
            raise DataError("letters of the choices with a gap", where=where, got=", ".join(letters))
        if answer and answer not in letters:
            raise DataError("the answer is none of the choices", where=where, got=answer, expected=", ".join(letters))
    base = int(index) % 1_000_000 if index.isdecimal() else index
    details = {name: str(row[name]) for name in _KEPT if row.get(name)}
    return benchmark_sample(
        index or where,
        (row.get("question") or "").strip(),
        images,
        scorer=benchmark.scorer,
        choices=choices,
        answer=answer,
        answers=() if choices else tuple(_as_list(answer)) if answer else (),
        hint="" if (row.get("hint") or "").strip() in ("", "nan") else row["hint"].strip(),
        category=(row.get("category") or "").strip(),
        details=details,
        source=benchmark.name,
        group=str(base),
    )
