"""Rows with cached features beside them, and the collator that must use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hfvla.data.rows.epoch import row_seed
from hfvla.errors import DataError
from hfvla.family import CACHED_FEATURES, FeatureCut

if TYPE_CHECKING:
    import numpy as np

    from hfvla.cache.store import FeatureStore

__all__ = ["CachedCollator", "CachedRows"]


class CachedRows:
    """Map-style rows; each has `cached_features`, the stored output of the frozen prefix, or None.

    Args:
        rows: the rows.
        store: where the features are.
        positions: [rows, views] place of each in the store, -1 for a row that has nothing to encode.
        seed: with the epoch and the row's number, decides which view is seen.
    """

    def __init__(self, rows: Any, store: FeatureStore, positions: np.ndarray, seed: int) -> None:
        self.rows, self.store, self.positions, self.seed = rows, store, positions, seed
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Choose the views of an epoch."""
        self.epoch = epoch
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)

    def view(self, index: int) -> int:
        """Return which view of a row this epoch sees: a draw from (seed, epoch, index)."""
        views = self.positions.shape[1]
        return row_seed(self.seed, self.epoch, int(index)) % views if views > 1 else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row with its features."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows with their features; the features are read in one go."""
        places = [int(self.positions[index, self.view(index)]) for index in indices]
        found = iter(self.store.read([place for place in places if place >= 0]))
        return [
            {**row, CACHED_FEATURES: next(found) if place >= 0 else None}
            for row, place in zip(self._plain(indices), places, strict=True)
        ]

    def _plain(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        if hasattr(self.rows, "__getitems__"):
            return self.rows.__getitems__([int(index) for index in indices])
        return [self.rows[int(index)] for index in indices]


class CachedCollator:
    """A family's collator on cached rows; refuses a batch in which the cached part would be computed again.

    Args:
        collator: the family's collator.
        cut: the cut whose features the rows carry.
    """

    def __init__(self, collator: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]], cut: FeatureCut) -> None:
        self.collator, self.cut = collator, cut

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch.

        Raises:
            DataError: the batch holds an input that the features replace.
        """
        batch = self.collator(rows)
        again = [name for name in self.cut.replaces if name in batch]
        if again:
            raise DataError(
                "the collator prepared an input that cached features replace",
                where=type(self.collator).__name__,
                got=", ".join(again),
                expected=", ".join(self.cut.provides),
                fix=f"Let it read row['{CACHED_FEATURES}'] where rows have that key.",
            )
        return batch
