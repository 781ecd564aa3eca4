"""Windows of sensor series by reference: values and their times, never later than the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfvla.data.samples.actions import SensorRef
from hfvla.data.sources.parquet_rows import ParquetRows, to_array
from hfvla.errors import DataError

__all__ = ["CLOCK_SLACK_S", "SensorLoader", "SensorSamples"]

CLOCK_SLACK_S = 1e-9
"""Two float64 clocks that mean the same moment differ by less."""


@dataclass(frozen=True, eq=False)
class SensorSamples:
    """A stretch of a sensor series.

    Attributes:
        times_s: [T] float64, ascending, seconds from the episode's start.
        values: [T, C] float32, in the sensor's units.
    """

    times_s: np.ndarray
    values: np.ndarray


class SensorLoader:
    """Reads sensor windows; tables stay open, and recently read row groups in memory.

    Args:
        tables: how to read them.
    """

    def __init__(self, tables: ParquetRows | None = None) -> None:
        self.tables = tables or ParquetRows()

    def load(self, ref: SensorRef) -> SensorSamples:
        """Read one window.

        Raises:
            DataError: missing or broken table, samples past its end, or a sample later than the step.
        """
        where = f"{ref.path}:{ref.column}"
        per_row = 1
        if ref.rate_hz:
            shape = to_array(self.tables.read(ref.path, ref.column, 0, 1), where=where).shape
            per_row = shape[1] if len(shape) == 3 else 1
        first_row, last_row = ref.first // per_row, (ref.first + ref.count - 1) // per_row
        rows = self.tables.read(ref.path, ref.column, first_row, last_row - first_row + 1)
        values = to_array(rows, where=where).astype(np.float32)
        if per_row > 1:
            values = values.reshape(-1, values.shape[-1])
        values = values.reshape(len(values), -1)[ref.first - first_row * per_row :][: ref.count]
        if ref.rate_hz:
            times_s = ref.end_s - np.arange(ref.count - 1, -1, -1) / ref.rate_hz
        else:
            column = self.tables.read(ref.path, ref.time_column, ref.first, ref.count)
            times_s = to_array(column, where=f"{ref.path}:{ref.time_column}").astype(np.float64)
        if times_s[-1] > ref.end_s + CLOCK_SLACK_S:
            raise DataError(
                "the sensor window reaches past the step", where=where, got=float(times_s[-1]), expected=ref.end_s
            )
        return SensorSamples(times_s, values)
