"""A fingerprint of training rows, by column: rows that were changed since a run began are told from the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["changed_rows", "rows_fingerprint"]

_BATCH = 1000
_HEAD = 4096  # of a long binary value its length, its beginning and its end count


def rows_fingerprint(rows: Any) -> dict[str, str] | None:
    """Return a hash of the values of each column, in the rows' order; None where rows are not held in memory or Arrow.

    A path counts by its last name and the size of the file: data may be moved.

    Args:
        rows: a `datasets.Dataset`, a list of dicts, or something with such `rows` inside (`EpochRows`).
    """
    from datasets import Dataset

    while not isinstance(rows, Dataset | list | tuple) and hasattr(rows, "rows"):
        rows = rows.rows
    digests: dict[str, Any] = {}
    if isinstance(rows, Dataset):
        for batch in rows.with_format("arrow").iter(_BATCH):
            for name in batch.column_names:
                _add_column(digests.setdefault(name, _digest()), batch.column(name))
    elif isinstance(rows, list | tuple) and rows and all(isinstance(row, Mapping) for row in rows):
        for row in rows:
            for name, value in row.items():
                _add(digests.setdefault(str(name), _digest()), value)
    else:
        return None
    return {name: digest.hexdigest() for name, digest in sorted(digests.items())}


def _digest() -> Any:
    return hashlib.blake2b(digest_size=12)


def _add_column(digest: Any, column: Any) -> None:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind):
        values = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
        digest.update(f"{kind}|{len(values)}|{values.null_count}|".encode())
        digest.update(
            values.to_numpy(zero_copy_only=False).tobytes()
            if not values.null_count
            else repr(values.to_pylist()).encode()
        )
        return
    for value in column.to_pylist():
        _add(digest, value)


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, bytes):
        digest.update(f"b{len(value)}|".encode())
        digest.update(value if len(value) <= 2 * _HEAD else value[:_HEAD] + value[-_HEAD:])
    elif isinstance(value, str):
        digest.update(f"s{_portable(value)}|".encode("utf-8", "surrogatepass"))
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(f"k{key}|".encode("utf-8", "surrogatepass"))
            _add(digest, value[key])
    elif isinstance(value, Sequence):
        digest.update(f"l{len(value)}|".encode())
        for part in value:
            _add(digest, part)
    elif hasattr(value, "detach") or hasattr(value, "dtype"):
        array = value.detach().cpu().contiguous() if hasattr(value, "detach") else value
        digest.update(f"a{array.dtype}{tuple(array.shape)}|".encode())
        digest.update(repr(array.tolist()).encode())
    else:
        digest.update(json.dumps(value, default=str).encode())


def _portable(text: str) -> str:
    """Return a text; of one that is the path of a file, its last name and the file's size."""
    if len(text) > 4096 or not text.startswith("/") or "\n" in text or "\0" in text:
        return text
    try:
        path = Path(text)
        return f"{path.name}:{path.stat().st_size}" if path.is_file() else path.name
    except (OSError, ValueError):
        return text


def changed_rows(before: Mapping[str, str] | None, after: Mapping[str, str] | None) -> list[str]:
    """Return the columns that differ between two fingerprints; none where one of them is not known."""
    if not before or not after:
        return []
    return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
