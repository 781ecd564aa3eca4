"""One column of rows, read at once."""

from __future__ import annotations

from typing import Any

__all__ = ["column"]


def column(rows: Any, name: str) -> list[Any]:
    """Return all values of a column.

    To go through `rows[name]` of a `datasets.Dataset` reads and decodes row by row, much slower than the
    column alone in one piece. Pictures are better read where they are needed: here all are held in memory.

    Args:
        rows: a `datasets.Dataset`, or a mapping of columns.
        name: of the column.

    Raises:
        KeyError: the rows have no such column.
    """
    if hasattr(rows, "select_columns"):
        if name not in rows.column_names:
            raise KeyError(name)
        values: list[Any] = rows.select_columns([name])[:][name]
        return values
    return list(rows[name])
