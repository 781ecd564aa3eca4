"""Parquet tables that hold many episodes one after the other, one row group each, as LeRobot v3.0 has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.sources.lerobot.info import Feature

if TYPE_CHECKING:
    from datasets import Features

__all__ = ["STEP_FEATURES", "TableFiles", "arrow_features"]

STEP_FEATURES = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
"""Columns that every step has."""


def arrow_features(features: Mapping[str, Feature]) -> Features:
    """Return the `datasets` features of the tables' columns; videos are not in the tables."""
    from datasets import Array2D, Image, List, Value
    from datasets import Features as DatasetFeatures

    columns: dict[str, Any] = {}
    for name, feature in {**features, **STEP_FEATURES}.items():
        if feature.dtype == "image":
            columns[name] = Image()
        elif feature.dtype != "video" and feature.shape == (1,):
            columns[name] = Value(feature.dtype)
        elif feature.dtype != "video" and len(feature.shape) == 1:
            columns[name] = List(Value(feature.dtype), length=feature.shape[0])
        elif feature.dtype != "video":
            columns[name] = Array2D(shape=feature.shape, dtype=feature.dtype)
    return DatasetFeatures(columns)


class TableFiles:
    """Writes episodes into numbered tables.

    Args:
        template: path with the fields chunk_index and file_index.
        features: of `arrow_features`.
        max_bytes: a table that holds as much, before compression, takes no further episode.
        chunks_size: files a folder.
    """

    def __init__(self, template: Path, features: Features, max_bytes: int, chunks_size: int) -> None:
        self._template, self._features = str(template), features
        self._max_bytes, self._chunks_size = max_bytes, chunks_size
        self._number, self._bytes = -1, 0
        self._writer: Any = None

    def add(self, columns: Mapping[str, np.ndarray], pictures: Mapping[str, list[bytes]]) -> dict[str, int]:
        """Write one episode.

        Args:
            columns: feature to [N, ...].
            pictures: feature to N encoded pictures.

        Returns:
            {"chunk_index", "file_index"} of its table.
        """
        import pyarrow.parquet as pq
        from datasets import Dataset

        content: dict[str, Any] = {name: list(values) for name, values in columns.items()}
        content |= {name: [{"bytes": one, "path": None} for one in encoded] for name, encoded in pictures.items()}
        ordered = {name: content[name] for name in self._features}
        table = Dataset.from_dict(ordered, features=self._features).data.table
        if self._writer is None or self._bytes >= self._max_bytes:
            self.close()
            self._number, self._bytes = self._number + 1, 0
            chunk, file = divmod(self._number, self._chunks_size)
            path = Path(self._template.format(chunk_index=chunk, file_index=file))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, table.schema, compression="snappy")
        self._writer.write_table(table, row_group_size=len(table))
        self._bytes += table.nbytes
        return {"chunk_index": self._number // self._chunks_size, "file_index": self._number % self._chunks_size}

    def close(self) -> None:
        """Finish the open table."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
