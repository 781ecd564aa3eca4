"""Sensor series of episodes: which samples a step may see, whether they fit the episode, and series kept as tables."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfvla.data.samples.actions import SensorRef
from hfvla.data.signals.sensor_loader import CLOCK_SLACK_S
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.parquet_rows import ParquetRows, to_array

__all__ = ["TIME_COLUMN", "VALUE_COLUMN", "SensorSeries", "check_clock", "check_finite", "keep_series"]

TIME_COLUMN, VALUE_COLUMN = "timestamp", "values"

_GROUP_BYTES = 1 << 21  # of a row group: a window of 1 s at 650 Hz and 1,026 channels touches two or three


@dataclass(frozen=True, eq=False)
class SensorSeries:
    """Where and when the samples of one episode are.

    Attributes:
        times_s: [N] float64, ascending, seconds from the episode's start.
        channels: C.
        path: table that holds them.
        column: of the table.
        first: number of the episode's first sample in the table.
        rate_hz: of evenly spaced samples; 0.0 when the table tells their times.
        origin: file that errors name, where the table was made of another one.
    """

    times_s: np.ndarray
    channels: int
    path: str
    column: str = VALUE_COLUMN
    first: int = 0
    rate_hz: float = 0.0
    origin: str = ""

    @property
    def name(self) -> str:
        """File that errors name."""
        return self.origin or self.path

    def window(self, time_s: float, window_s: float) -> tuple[SensorRef | None, bool]:
        """Choose the samples in (time_s - window_s, time_s].

        Returns:
            their place, None when there is none; and whether the series began too late to fill the window.
        """
        begin, end = np.searchsorted(self.times_s, [time_s - window_s, time_s], side="right")
        # Clocks that mean the same moment may differ in their last bits.
        while end < len(self.times_s) and self.times_s[end] <= time_s + CLOCK_SLACK_S:
            end += 1
        while begin < end and self.times_s[begin] <= time_s - window_s + CLOCK_SLACK_S:
            begin += 1
        if begin == end:
            return None, True
        short = begin == 0 and self.times_s[0] > time_s - window_s + self.period_s(window_s) + CLOCK_SLACK_S
        ref = SensorRef(
            path=self.path,
            column=self.column,
            first=self.first + int(begin),
            count=int(end - begin),
            end_s=float(time_s),
            rate_hz=self.rate_hz,
            time_column="" if self.rate_hz else TIME_COLUMN,
        )
        return ref, bool(short)

    def period_s(self, of_one: float) -> float:
        """Return the usual time between samples; `of_one` where there is one only."""
        return float(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else of_one


def check_clock(series: SensorSeries, last_s: float, max_gap_s: float) -> None:
    """Compare a series' clock with the episode's, which runs from 0 to `last_s`.

    Raises:
        UnusableError: no sample, times that do not ascend, clocks that do not overlap, an end more than `max_gap_s`
            before the episode's, or a gap that is longer.
    """
    times_s = series.times_s
    _check_order(times_s, series.name)
    if times_s[0] > last_s or times_s[-1] < 0:
        raise UnusableError(
            "sensor clock and frames do not overlap",
            f"{series.name}: sensor {times_s[0]:.3f} to {times_s[-1]:.3f} s, frames 0.000 to {last_s:.3f} s",
        )
    if times_s[-1] < last_s - max_gap_s:
        raise UnusableError(
            "sensor ends before the episode", f"{series.name}: at {times_s[-1]:.3f} s, episode at {last_s:.3f} s"
        )
    gaps_s = np.diff(times_s)
    if (gaps_s > max_gap_s).any():
        place = int(np.argmax(gaps_s > max_gap_s))
        raise UnusableError(
            "gap in the sensor series", f"{series.name}: {gaps_s[place]:.3f} s after {times_s[place]:.3f} s"
        )


def _check_order(times_s: np.ndarray, name: str) -> None:
    if not len(times_s):
        raise UnusableError("empty sensor series", name)
    if not np.isfinite(times_s).all() or (np.diff(times_s) <= 0).any():
        steps = np.diff(times_s)
        place = int(np.argmax(~(steps > 0))) + 1 if len(steps) else 0
        raise UnusableError("sensor times do not ascend", f"{name}: sample {place} at {times_s[place]} s")


def check_finite(values: np.ndarray, times_s: np.ndarray, path: str) -> None:
    """See that every value is a number.

    Args:
        values: [N, C].
        times_s: [N].
        path: of the series, for errors.

    Raises:
        UnusableError: NaN or infinity, with the first sample.
    """
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        place = int(np.argmax(bad))
        raise UnusableError("sensor value is not finite", f"{path}: sample {place} at {times_s[place]:.3f} s")


def keep_series(
    folder: Path, key: str, origin: str, read: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> SensorSeries:
    """Return a series that lies as a table in `folder`, after putting it there once.

    The table has its name only when it is whole and its values are checked, so processes may do this side by side.

    Args:
        folder: made where it is missing.
        key: of the content: another recording, another key.
        origin: file that the series comes from, for errors.
        read: returns times [N] float64 seconds from the episode's start and values [N, C] float32.

    Raises:
        UnusableError: times that do not ascend, or a value that is not finite.
        DataError: the table cannot be written or read.
    """
    path = folder / f"{key}.parquet"
    if not path.exists():
        times_s, values = read()
        _check_order(times_s, origin)
        check_finite(values, times_s, origin)
        _write(path, times_s, values)
    tables = ParquetRows()
    times_s = to_array(tables.read(path, TIME_COLUMN), where=f"{path}: {TIME_COLUMN}").astype(np.float64)
    channels = to_array(tables.read(path, VALUE_COLUMN, 0, 1), where=f"{path}: {VALUE_COLUMN}").shape[1]
    return SensorSeries(times_s, channels, str(path), origin=origin)


def _write(path: Path, times_s: np.ndarray, values: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hfvla.errors import DataError

    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    rows = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.table({TIME_COLUMN: pa.array(times_s), VALUE_COLUMN: rows}),
            part,
            row_group_size=max(64, _GROUP_BYTES // (4 * values.shape[1])),
            compression="zstd",
        )
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError("sensor series cannot be kept", where=str(path), got=error.strerror or str(error),
                        fix="Name another cache_folder.") from error  # fmt: skip
