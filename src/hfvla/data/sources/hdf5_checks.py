"""What an HDF5 file may not make a reader do: take zeros for data, look into other files, or fill the memory.

HDF5 answers with zeros where nothing was written: a part of a virtual dataset whose source is missing, a chunk that
the recorder never came to. Such datasets are refused, as is one whose values lie in other files by name.
"""

from __future__ import annotations

import math
from typing import Any

from hfvla.errors import DataError

__all__ = ["HDF5_ERRORS", "MAX_ARRAY_BYTES", "check_dataset", "check_own_values", "dataset_bytes"]

MAX_ARRAY_BYTES = 1 << 32
"""Of what is read at once, 4 GiB: a header may promise any size."""

HDF5_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError)
"""What h5py raises where a file is damaged; UnicodeDecodeError is a ValueError."""


def dataset_bytes(dataset: Any, rows: int | None = None) -> int:
    """Return the size of a dataset in memory, or of some of its rows."""
    shape = dataset.shape if rows is None else (rows, *dataset.shape[1:])
    return math.prod(shape) * dataset.dtype.itemsize


def check_dataset(dataset: Any, where: str) -> None:
    """Refuse a dataset whose values are not all in its own file.

    Args:
        dataset: `h5py.Dataset`.
        where: names it in errors.

    Raises:
        DataError: empty of any shape, never written in full, or see `check_own_values`.
    """
    if dataset.shape is None:
        raise DataError("the dataset is empty", where=where, got="no shape")
    check_own_values(dataset, where)
    if dataset.size and not _all_written(dataset):
        raise DataError(
            "the dataset was never written in full",
            where=where,
            got=f"{dataset.id.get_storage_size()} bytes stored of shape {dataset.shape}",
            expected="a value everywhere: what was not written would be read as zeros",
        )


def check_own_values(dataset: Any, where: str) -> None:
    """Refuse a dataset whose values lie in other files.

    Raises:
        DataError: virtual, or stored in other files.
    """
    if dataset.is_virtual:
        raise DataError(
            "the dataset is virtual",
            where=where,
            got=f"parts of {len(dataset.virtual_sources())} datasets",
            expected="values in the file itself: a missing part would be read as zeros",
            fix="Copy the values into one dataset.",
        )
    if dataset.external:
        got = dataset.external[0][0]
        raise DataError("the dataset lies in other files", where=where, got=got, expected="values in the file itself")


def _all_written(dataset: Any) -> bool:
    if dataset.chunks is None:
        return dataset.id.get_storage_size() > 0
    wanted = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return dataset.id.get_num_chunks() >= wanted
