"""Rows of packed sequences: each is a list of the samples that share a sequence in this epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from hfvla.data.packing.bins import PackingReport, pack, packing_report
from hfvla.errors import DataError

__all__ = ["PACK", "PackedRows", "unpacked"]

logger = logging.getLogger(__name__)

PACK = "pack"
"""Key under which a row of `PackedRows` holds the samples that share a sequence, in order."""


def unpacked(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]] | None:
    """Return the samples of each sequence of a collator's rows, or None where they are not packed."""
    if not rows or PACK not in rows[0]:
        return None
    return [list(row[PACK]) for row in rows]


class PackedRows:
    """A map-style dataset whose items are `{"pack": [row, ...]}`; the packs of an epoch follow from (seed, epoch).

    Its length is the same in every epoch, so that the steps of a stage are known before it begins.

    Args:
        rows: a map-style dataset of dicts.
        lengths: tokens of each row, those of its pictures among them.
        max_length: tokens of a sequence, at most.
        seed: seed of the run.
        too_long: what becomes of a row that is longer: "refuse" it, or "leave_out" and count it. None is ever cut.
        batch_rows: rows of a batch without packing, for `report`.

    Attributes:
        report (`PackingReport`): padding before and after.

    Raises:
        DataError: another number of lengths than of rows, a row that is too long, or no row that is short enough.
    """

    def __init__(
        self,
        rows: Any,
        lengths: Sequence[int],
        max_length: int,
        seed: int = 0,
        too_long: Literal["refuse", "leave_out"] = "refuse",
        batch_rows: int = 8,
    ) -> None:
        self.rows, self.max_length, self.seed, self.epoch = rows, max_length, seed, 0
        sizes = np.asarray(lengths, dtype=np.int64)
        if len(sizes) != len(rows):
            raise DataError("packing needs the length of each row", got=len(sizes), expected=len(rows))
        short = sizes <= max_length
        if too_long == "refuse" and not short.all():
            first = int(np.flatnonzero(~short)[0])
            raise DataError(
                f"{int((~short).sum())} of {len(sizes)} rows are longer than a packed sequence, and none is ever cut",
                where=str(_name(rows, first)),
                got=f"{int(sizes[first])} tokens",
                expected=f"at most packing.max_length {max_length}",
                fix="Raise packing.max_length, or say packing.too_long: leave_out.",
            )
        if not short.any():
            raise DataError(
                "no row fits into a packed sequence", got=max_length, expected=f"{int(sizes.min())} or more"
            )
        self._kept = np.flatnonzero(short)
        self._sizes = sizes[self._kept]
        self._bins = self._packed(0)
        self._packed_epoch = 0
        self.report: PackingReport = packing_report(
            self._sizes, self._bins, max_length, batch_rows, int((~short).sum())
        )

    def _packed(self, epoch: int) -> list[list[int]]:
        return pack(self._sizes, self.max_length, self.seed, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next; the trainer does it before the workers of an epoch start."""
        self.epoch = epoch
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)
        if epoch != self._packed_epoch:
            self._bins, self._packed_epoch = self._packed(epoch), epoch

    def __len__(self) -> int:
        """Return the number of packed sequences, the same in every epoch."""
        return len(self._bins)

    def row_numbers(self, index: int) -> list[int]:
        """Return the numbers of the rows in one sequence of this epoch."""
        return [int(self._kept[position]) for position in self._bins[index]]

    def __getitem__(self, index: int) -> dict[str, list[dict[str, Any]]]:
        """Return the samples of one sequence."""
        return {PACK: self._read(self.row_numbers(index))}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, list[dict[str, Any]]]]:
        """Return several sequences; their rows are read at once where the dataset can."""
        numbers = [self.row_numbers(index) for index in indices]
        found = iter(self._read([number for members in numbers for number in members]))
        return [{PACK: [next(found) for _ in members]} for members in numbers]

    def _read(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        if hasattr(self.rows, "__getitems__"):
            return list(self.rows.__getitems__(list(numbers)))
        return [self.rows[number] for number in numbers]


def _name(rows: Any, number: int) -> Any:
    row = rows[number]
    return row.get("id") or f"row {number}" if isinstance(row, Mapping) else f"row {number}"
