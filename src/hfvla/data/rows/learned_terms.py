"""Which loss terms learn from a row: what a source of a recipe says with `losses`, carried by the row itself.

A later stage that sees rows of an earlier one again must not make of each row all that its own terms could: a task for
robots has a caption and a dialogue, too, and a caption is no reason to write a chain of thought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hfvla.data.rows.mixing import is_stream

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["LEARNED_TERMS", "learned_terms", "with_learned_terms"]

LEARNED_TERMS = "learned_terms"
"""Column that names the loss terms that learn from a row, with blanks between; empty or missing: all of the stage."""

_CHUNK = 10_000


def learned_terms(row: Mapping[str, Any], losses: Sequence[str]) -> tuple[str, ...]:
    """Return those of a stage's loss terms that learn from a row, in the stage's order."""
    named = row.get(LEARNED_TERMS)
    return tuple(losses) if not named else tuple(name for name in losses if name in named.split())


def with_learned_terms(rows: Any, terms: Sequence[str] | None) -> Any:
    """Return rows that name the loss terms that learn from them.

    Args:
        rows: a `datasets.Dataset`, whose rows are neither copied nor read, or a stream.
        terms: None leaves the rows as they are.
    """
    if not terms:
        return rows
    named = " ".join(terms)
    return rows.map(partial(_named, named=named)) if is_stream(rows) else _with_column(rows, named)


def _named(row: dict[str, Any], named: str) -> dict[str, Any]:
    return {**row, LEARNED_TERMS: named}


def _with_column(rows: Dataset, named: str) -> Dataset:
    """Return a table with one more column; `Dataset.add_column` would copy a table of which rows were chosen."""
    import pyarrow as pa
    from datasets import Dataset, Value
    from datasets.table import InMemoryTable, concat_tables

    size = len(rows.data)
    chunk = pa.array([named] * min(size, _CHUNK), pa.string())
    whole, rest = divmod(size, len(chunk)) if size else (0, 0)
    column = pa.chunked_array([chunk] * whole + [chunk[:rest]], pa.string())  # of one chunk in memory
    table = concat_tables([rows.data, InMemoryTable(pa.table({LEARNED_TERMS: column}))], axis=1)
    info = rows.info.copy()
    info.features[LEARNED_TERMS] = Value("string")
    return Dataset(table, info=info, split=rows.split, indices_table=rows._indices)
