"""The records of a file, whatever its kind, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.json_files import parse_json
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.json_stream import iterate_json, iterate_lines
from hfvla.data.sources.vision_language.reading import Reading
from hfvla.data.sources.vision_language.tables import parquet_records, separated_records
from hfvla.errors import DataError

__all__ = ["Taken", "iterate_records"]


@dataclass(frozen=True)
class Taken:
    """Files that are read together, and what for.

    Attributes:
        format: name of the format.
        source: name of the set, for samples.
        heads: the files: those with records first, those that are joined to them behind.
    """

    format: str
    source: str
    heads: tuple[Head, ...]


def iterate_records(head: Head, reading: Reading, section: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (place, record); a line that cannot be parsed is counted, and reading goes on.

    Args:
        head: of the file.
        reading: counts what cannot be read.
        section: of a JSON object, the list that is read; in a list and in a table, "".

    Raises:
        DataError: a JSON file or a table that is broken as a whole.
    """
    name = reading.name(head.path)
    if head.kind == "jsonl":
        yield from _lines(head, reading, name)
    elif head.kind == "parquet":
        yield from ((f"{name}:{number}", record) for number, record in enumerate(parquet_records(head.path)))
    elif head.kind in ("tsv", "csv"):
        yield from ((f"{name}:{number}", record) for number, record in separated_records(head.path, head.kind))
    else:
        for part in iterate_json(head.path):
            if part.section == section and part.number is not None:
                yield f"{name}:{part.number}", part.value


def _lines(head: Head, reading: Reading, name: str) -> Iterator[tuple[str, Any]]:
    for number, line in iterate_lines(head.path):
        try:
            record = parse_json(line, name, line=number)
        except DataError as error:
            problem = UnusableError("line that is no JSON", f"{error.what}; got {line[:60]!r}")
            reading.reject(f"{name}:{number}", "", problem)
            continue
        yield f"{name}:{number}", record
