"""Rows of tables as records (Parquet, CSV, TSV), a batch of them in memory at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hfvla.data.sources.vision_language.json_stream import iterate_lines
from hfvla.errors import DataError

__all__ = ["parquet_records", "separated_records"]

_ROWS = 256
_LONGEST_NAME = 32
_NAMES = frozenset(
    ("caption", "text", "txt", "url", "image", "image_path", "file_name", "filename", "filepath", "path", "img")
    + ("title", "question", "answer", "id")
)


def parquet_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table.

    Raises:
        DataError: broken table, or a column twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hfvla.data.sources.parquet_rows import check_once

    try:
        with pq.ParquetFile(path, memory_map=True) as table:
            check_once(table.schema_arrow.names, where=path)
            for batch in table.iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError("table cannot be read", where=str(path), got=str(error).splitlines()[0]) from error


def separated_records(path: Path, kind: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, record) of a "csv" or "tsv" file; without a line of names, columns are called "0", "1", ...

    Captions hold quotes: in a TSV they are letters like any other.
    """
    lines = (line for _, line in iterate_lines(path))
    tabs = kind == "tsv"
    rows = csv.reader(lines, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
    columns: list[str] | None = None
    try:
        for number, row in enumerate(rows, 1):
            if columns is None:
                named = _has_names(row)
                columns = row if named else [str(place) for place in range(len(row))]
                if named:
                    continue
            yield number, dict(zip(columns, row, strict=False))
    except csv.Error as error:
        raise DataError("table cannot be read", where=f"{path}:{rows.line_num}", got=str(error)) from error


def _has_names(row: list[str]) -> bool:
    """Tell whether the first line of a table holds names: short words, one of them a usual one."""
    words = [cell.replace("_", "").replace(" ", "") for cell in row]
    short = all(word.isalnum() and len(word) <= _LONGEST_NAME for word in words)
    return short and any(cell.casefold() in _NAMES for cell in row)
