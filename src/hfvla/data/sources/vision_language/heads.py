"""What a file is, told by its first bytes and records; names decide nothing."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hfvla.data.sources.json_files import parse_json
from hfvla.data.sources.vision_language.image_files import PICTURE_SUFFIXES
from hfvla.data.sources.vision_language.json_stream import iterate_json, iterate_lines, open_text
from hfvla.data.sources.vision_language.tables import parquet_records, separated_records
from hfvla.errors import DataError

__all__ = ["Head", "read_head"]

_RECORDS = 3
_DECISIVE = frozenset({"annotations", "questions", "data"})
_KEYS = 8  # of an object, after which its parts are taken for records
_LINE = 1 << 24  # letters of a line, beyond which a file has none


@dataclass(frozen=True)
class Head:
    """The beginning of a file.

    Attributes:
        path: of the file.
        name: path below the root.
        kind: "list" or "object" (JSON), "jsonl", "parquet", "tsv", "csv", "tar", "pickle", "picture", "text", "".
        records: the first ones of a list or a table, or the members of a tar's first samples by suffix.
        sections: of an object: the first records of each part, or its value in a list.
        problem: why nothing can be told.
    """

    path: Path
    name: str
    kind: str = ""
    records: tuple[Any, ...] = ()
    sections: Mapping[str, list[Any]] = field(default_factory=dict)
    problem: str = ""

    @property
    def first(self) -> Mapping[str, Any]:
        """The first record that is an object; empty when there is none."""
        return next((record for record in self.records if isinstance(record, Mapping)), {})

    def section(self, name: str) -> Mapping[str, Any]:
        """Return the first record of a part; empty when there is none."""
        return next((record for record in self.sections.get(name, ()) if isinstance(record, Mapping)), {})


def read_head(path: Path, name: str) -> Head:
    """Read as much of a file as tells what it is.

    A file that cannot be read gives a head with a `problem`.
    """
    try:
        with open(path, "rb") as file:
            begin = file.read(512)
    except OSError as error:
        return Head(path, name, problem=error.strerror or str(error))
    try:
        kind = _kind(path, begin)
        if kind == "json":
            return _json_head(path, name)
        if kind == "tar":
            return Head(path, name, kind, records=_tar_records(path))
        if kind == "parquet":
            return Head(path, name, kind, records=tuple(islice(parquet_records(path), _RECORDS)))
        if kind in ("tsv", "csv"):
            rows = islice(separated_records(path, kind), _RECORDS)
            return Head(path, name, kind, records=tuple(record for _, record in rows))
        return Head(path, name, kind, problem="" if kind else "no kind of file that is read")
    except DataError as error:
        return Head(path, name, problem=str(error))


def _kind(path: Path, begin: bytes) -> str:
    suffix = path.suffix.casefold()
    if begin.startswith(b"PAR1"):
        return "parquet"
    if begin[257:262] == b"ustar" or suffix == ".tar" or _is_tar_gz(path, begin):
        return "tar"
    if begin[:1] == b"\x80" or suffix in (".p", ".pkl", ".pickle"):
        return "pickle"
    if suffix in PICTURE_SUFFIXES:
        return "picture"
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("text in UTF-16", where=str(path), expected="UTF-8", fix="Convert it.")
    if begin.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{"):
        return "json"
    if suffix in (".tsv", ".csv"):
        return suffix[1:]
    if suffix in (".txt", ".caption", ".md", ""):
        return "text"
    return ""


def _is_tar_gz(path: Path, begin: bytes) -> bool:
    return begin[:2] == b"\x1f\x8b" and path.name.casefold().endswith((".tar.gz", ".tgz"))


def _json_head(path: Path, name: str) -> Head:
    lines = _jsonl_records(path)
    if lines is not None:
        return Head(path, name, "jsonl", records=lines)
    sections: dict[str, list[Any]] = {}
    listed = False
    for part in iterate_json(path):
        listed = not part.section and part.number is not None
        found = sections.setdefault(part.section, [])
        if len(found) < _RECORDS:
            found.append(part.value)
        enough = len(found) == _RECORDS if listed else len(sections) >= _KEYS
        if enough or (part.section in _DECISIVE and part.number is not None):
            break
    if listed:
        return Head(path, name, "list", records=tuple(sections[""]))
    return Head(path, name, "object" if sections else "list", sections=sections)


def _jsonl_records(path: Path) -> tuple[Any, ...] | None:
    """Return the first records of a file of one object a line, or None where it is something else."""
    with open_text(path) as file:
        first = file.readline(_LINE)
        second = file.readline(_LINE)
    if not first.strip().startswith("{") or not first.strip().endswith("}"):
        return None
    if not second.strip() and path.suffix.casefold() not in (".jsonl", ".ndjson"):
        return None
    records = []
    for number, line in islice(iterate_lines(path), _RECORDS):
        try:
            records.append(parse_json(line, str(path), line=number))
        except DataError:  # the line is counted when it is read
            if number == 1:
                return None
    return tuple(records)


def _tar_records(path: Path) -> tuple[Any, ...]:
    """Return {suffix: name} of the first samples of a tar."""
    found: dict[str, dict[str, str]] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in islice(archive, 64):
                folder, _, last = member.name.rpartition("/")
                stem, _, suffix = last.partition(".")
                if member.isfile():
                    found.setdefault(f"{folder}/{stem}", {})[suffix.casefold()] = member.name
                if len(found) > _RECORDS:
                    break
    except (tarfile.TarError, OSError, EOFError) as error:
        if not found:  # one that is cut short later on is counted when it is read
            raise DataError("not a tar", where=str(path), got=str(error)) from error
    return tuple(list(found.values())[:_RECORDS])
