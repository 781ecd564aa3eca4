"""Rows of parquet tables by number: memory-mapped files, recently read row groups remembered."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hfvla.data.video.cache import RecentItems
from hfvla.errors import DataError

__all__ = ["ParquetRows", "check_once", "check_regular", "to_array"]


class ParquetRows:
    """Reads spans of rows, a row group at a time; safe for several threads and for pickling.

    Args:
        cache_bytes: of row groups to remember, one column each; one row group is remembered even when larger.
        open_files: tables to keep open. A changed file is opened anew.
    """

    def __init__(self, *, cache_bytes: int = 1 << 28, open_files: int = 256) -> None:
        self._cache_bytes, self._open_files = cache_bytes, open_files
        self._tables: RecentItems[Any] = RecentItems(open_files)
        self._groups: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"cache_bytes": self._cache_bytes, "open_files": self._open_files}

    def __setstate__(self, settings: dict[str, Any]) -> None:
        self.__init__(**settings)  # type: ignore[misc]

    def columns(self, path: str | os.PathLike[str]) -> list[str]:
        """Return the names of a table's columns.

        Raises:
            DataError: see `read`.
        """
        with self._lock:
            return list(self._open(path)[1].schema_arrow.names)

    def count(self, path: str | os.PathLike[str]) -> int:
        """Return the number of rows of a table.

        Raises:
            DataError: see `read`.
        """
        with self._lock:
            return int(self._open(path)[1].metadata.num_rows)

    def read(self, path: str | os.PathLike[str], column: str, first: int = 0, count: int | None = None) -> Any:
        """Read one column of consecutive rows as a `pyarrow.ChunkedArray`.

        Args:
            path: parquet file.
            column: by name.
            first: row to start from.
            count: rows; all up to the end when absent.

        Raises:
            DataError: missing or broken file, no such column, or rows past the end.
        """
        import pyarrow as pa

        with self._lock:
            key, table = self._open(path)
            names = table.schema_arrow.names
            if column not in names:
                raise DataError(f"the table has no column '{column}'", where=os.fspath(path), expected=sorted(names))
            check_once([name for name in names if name == column], where=path)
            total = table.metadata.num_rows
            count = total - first if count is None else count
            if first < 0 or count < 0 or first + count > total:
                raise DataError(
                    "rows lie past the table's end",
                    where=os.fspath(path),
                    got=f"rows {first} to {first + count}",
                    expected=f"0 to {total}",
                )
            parts, start = [], 0
            for group in range(table.metadata.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                low, high = max(first, start), min(first + count, start + rows)
                if low < high:
                    parts.append(
                        self._group((*key, column, group), table, column, group).slice(low - start, high - low)
                    )
                start += rows
            kind = table.schema_arrow.field(column).type
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=kind)

    def _open(self, path: str | os.PathLike[str]) -> tuple[tuple[Any, ...], Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        where = os.fspath(path)
        try:
            status = check_regular(where)
            key = (os.path.abspath(where), status.st_mtime_ns, status.st_size)
            table = self._tables.get(key)
            if table is None:
                table = pq.ParquetFile(where, memory_map=True)
                self._tables.put(key, table)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError("table cannot be read", where=where, got=reason, fix="Check the path.") from error
        except (pa.ArrowException, ValueError) as error:
            raise DataError("not a parquet table", where=where, got=str(error).splitlines()[0]) from error
        return key, table

    def _group(self, key: tuple[Any, ...], table: Any, column: str, group: int) -> Any:
        import pyarrow as pa

        found = self._groups.get(key)
        if found is None:
            try:
                found = table.read_row_group(group, columns=[column], use_threads=False).column(0)
            except (OSError, pa.ArrowException, ValueError) as error:
                raise DataError(
                    f"row group {group} is damaged", where=str(key[0]), got=str(error).splitlines()[0]
                ) from error
            self._groups[key] = found
            self._held_bytes += found.nbytes
        self._groups.move_to_end(key)
        while len(self._groups) > 1 and self._held_bytes > self._cache_bytes:
            self._held_bytes -= self._groups.popitem(last=False)[1].nbytes
        return found


def check_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Return what the system knows of a file.

    Raises:
        OSError: missing, or no regular file: a pipe would wait for ever.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return status


def check_once(names: Sequence[str], where: str | os.PathLike[str]) -> None:
    """Refuse a table that has a column twice: which of them is meant, nobody can tell.

    Raises:
        DataError: names the column.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError("the table has a column twice", where=os.fspath(where), got=twice)


def to_array(column: Any, *, where: str) -> np.ndarray:
    """Turn an Arrow column of numbers, or of (nested) lists of equal lengths, into one array.

    Args:
        column: `pyarrow.ChunkedArray` of N rows.
        where: names the column in errors.

    Returns:
        [N, ...] array of the column's number type.

    Raises:
        DataError: a value is missing, lists differ in length, or the column does not hold numbers.
    """
    import pyarrow as pa

    values = column.combine_chunks()
    values = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
    shape = [len(values)]
    while True:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if values.null_count:
            raise DataError("a value is missing", where=where, got=f"{values.null_count} null")
        if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or _is_fixed(values.type)):
            break
        flat = values.flatten()
        lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False)) if len(values) else np.zeros(1)
        if len(lengths) > 1:
            raise DataError(
                "lists of a column differ in length",
                where=where,
                got=[int(length) for length in lengths[:4]],
                expected="one length",
            )
        shape.append(int(lengths[0]))
        values = flat
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)):
        raise DataError("a column does not hold numbers", where=where, got=str(values.type))
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _is_fixed(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))
