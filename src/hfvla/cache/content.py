"""One key a sample: the content that the frozen prefix reads.

`datasets` fingerprints name the history of a table (64 bits over pickled transforms). Here the content itself is
hashed with SHA-256: a feature belongs to bytes, whatever table and row they come from, so that equal pictures are
encoded once, and rows already seen by another stage or split are found again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import ImageRef
from hfvla.data.samples.chat_pictures import encoded_bytes
from hfvla.errors import DataError
from hfvla.family import CutContext, FeatureCut

__all__ = ["content_rows", "sample_keys", "view_key"]

_HASH_LENGTH = 40


def content_rows(rows: Any, fields: Sequence[str], optional: Sequence[str] = ()) -> Any:
    """Return the rows with these fields only; pictures and sounds of a `datasets.Dataset` stay encoded.

    Args:
        rows: map-style rows.
        fields: to keep.
        optional: those of them that need not be there.
    """
    while not hasattr(rows, "select_columns") and hasattr(rows, "rows"):
        rows = rows.rows  # what wraps them adds fields and changes none
    if not hasattr(rows, "select_columns"):
        return rows
    fields = [name for name in fields if name not in optional or name in rows.column_names]
    chosen = rows.select_columns(fields)
    for name in fields:
        feature = chosen.features[name]
        if getattr(feature, "decode", False):
            chosen = chosen.cast_column(name, type(feature)(decode=False))
    return chosen


def sample_keys(
    rows: Any, cut: FeatureCut, context: CutContext, numbers: Sequence[int] | None = None
) -> list[str | None]:
    """Return a key for each row from the content that the prefix reads; None where it has nothing to encode.

    Args:
        rows: map-style rows with the cut's fields.
        cut: the cut.
        context: for the cut's prompt.
        numbers: of the rows; default: all.

    Raises:
        DataError: a field is missing, its file cannot be read, or its type has no stable content.
    """
    prompt = cut.load("prompt") if cut.has("prompt") else None
    whole = rows if prompt else content_rows(rows, cut.fields, cut.optional)
    keys: list[str | None] = []
    for index in range(len(whole)) if numbers is None else numbers:
        row = whole[index]
        if not cut.encodes(row):
            keys.append(None)
            continue
        digest = hashlib.sha256()
        for name in cut.fields:
            if name in cut.optional and not row.get(name):
                continue
            if name not in row:
                raise DataError(f"row {index} lacks the field '{name}' that the cache reads", got=sorted(row))
            digest.update(f"{name}:".encode())
            value = _of_files(row[name], name, index) if name in cut.files else row[name]
            for chunk in _content(value, f"row {index}, field '{name}'"):
                digest.update(chunk)
        if prompt:
            digest.update(b"prompt:")
            digest.update(prompt(context, row).encode())
        keys.append(digest.hexdigest()[:_HASH_LENGTH])
    return keys


def view_key(key: str, view: int | None) -> str:
    """Return the key of one augmented view of a sample; `None` is the sample as it is."""
    return key if view is None else f"{key}.{view}"


def _of_files(paths: Any, name: str, index: int) -> Any:
    """Return what lies in a file, or in each of several; of those, large as they may be, what their bytes hash to."""
    if paths is None:
        return None
    if not isinstance(paths, list | tuple):
        return _file_bytes(paths, name, index)
    return [_file_digest(path, name, index) for path in paths]


def _file_digest(path: Any, name: str, index: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"file of row {index} cannot be read ({error})", where=name, got=str(path)) from None


def _file_bytes(path: Any, name: str, index: int) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"file of row {index} cannot be read ({error})", where=name, got=str(path)) from None


def _picture_bytes(value: Mapping[str, Any], where: str) -> bytes:
    """Return the bytes of a `datasets` picture or of an `ImageRef`, which may be part of a shard."""
    if not value.get("size"):
        return _file_bytes(value["path"], where, 0)
    return encoded_bytes(ImageRef(value["path"], offset=value.get("offset") or 0, size=value["size"]), where)


def _content(value: Any, where: str) -> Iterator[bytes]:
    """Yield bytes that are equal exactly for equal values; each is preceded by its type and length."""
    if value is None:
        yield b"N"
    elif isinstance(value, bytes | bytearray | memoryview):
        yield f"B{len(value)}|".encode()
        yield bytes(value)
    elif isinstance(value, bool | int | float):
        yield f"V{value!r}|".encode()
    elif isinstance(value, str):
        text = value.encode()
        yield f"S{len(text)}|".encode()
        yield text
    elif isinstance(value, Mapping):
        if value.get("bytes") is None and value.get("path"):  # an undecoded picture that lies in a file
            value = {**value, "bytes": _picture_bytes(value, where)}
        if {"bytes", "path"} <= set(value) <= {"bytes", "path", "offset", "size"}:
            value = {"bytes": value["bytes"]}
        yield f"M{len(value)}|".encode()
        for key in sorted(value):
            yield from _content(str(key), where)
            yield from _content(value[key], where)
    elif isinstance(value, list | tuple):
        yield f"L{len(value)}|".encode()
        for part in value:
            yield from _content(part, where)
    elif hasattr(value, "tobytes") and hasattr(value, "size"):  # numpy arrays and pictures
        shape, kind = getattr(value, "shape", value.size), getattr(value, "dtype", getattr(value, "mode", ""))
        yield f"A{shape}{kind}|".encode()
        yield value.tobytes()
    else:
        raise DataError(
            "the cache cannot tell when this value changes",
            where=where,
            got=type(value).__name__,
            expected="bytes, text, numbers, arrays, pictures, lists or mappings of these",
        )
