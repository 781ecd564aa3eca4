"""Sensor series that run faster than the frames: where a data set keeps them, and which samples a step may see.

Two ways of keeping them:

- a feature of shape (K, C): each step holds the K samples since the step before, evenly spaced, the last one taken at
  the step's time; a feature of shape (C,) is one sample a step;
- a table an episode beside the data, `sensors/<name>/episode_000000.parquet`, with columns "timestamp" (float64
  seconds from the episode's start, ascending) and "values" (lists of C numbers). LeRobot itself passes over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.parquet_rows import to_array
from hfvla.data.samples_actions import SensorRef
from hfvla.data.sensor_loader import CLOCK_SLACK_S
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.lerobot.reader import LeRobotEpisodes
from hfvla.errors import DataError, did_you_mean

__all__ = [
    "SENSOR_FILE",
    "TIME_COLUMN",
    "VALUE_COLUMN",
    "SensorOptions",
    "SensorSeries",
    "check_sensor",
    "load_series",
]

SENSOR_FILE = "sensors/{name}/episode_{episode_index:06d}.parquet"
TIME_COLUMN, VALUE_COLUMN = "timestamp", "values"


class SensorOptions(BaseModel):
    """Which sensor series a step sees, and how much of it.

    Attributes:
        name: a feature, or a folder under sensors/.
        window_s: the window covers (t - window_s, t] of a step at time t.
        max_gap_s: time without a sample, inside the series or at an episode's end, above which an episode is refused.
        short: steps so early that the series does not fill their window yet: "keep" gives what there is, "drop" leaves
            them out; both are counted.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    window_s: float = Field(gt=0.0)
    max_gap_s: float = Field(default=0.1, gt=0.0)
    short: Literal["keep", "drop"] = "keep"


@dataclass(frozen=True, eq=False)
class SensorSeries:
    """The samples of one episode.

    Attributes:
        times_s: [N] float64, ascending, seconds from the episode's start.
        values: [N, C] float32.
        path: table that holds them.
        column: of the table.
        first: number of the episode's first sample in the table.
        rate_hz: of evenly spaced samples; 0.0 when the table tells their times.
    """

    times_s: np.ndarray
    values: np.ndarray
    path: str
    column: str
    first: int
    rate_hz: float

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
        period_s = float(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else window_s
        short = begin == 0 and self.times_s[0] > time_s - window_s + period_s + CLOCK_SLACK_S
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


def check_sensor(episodes: LeRobotEpisodes, options: SensorOptions) -> None:
    """See that a data set has a sensor.

    Raises:
        DataError: it has not, or its feature is no series.
    """
    folder = episodes.root / "sensors"
    if options.name in episodes.features:
        feature = episodes.features[options.name]
        if feature.is_camera or len(feature.shape) > 2:
            raise DataError("not a sensor series", where=f"{episodes.root}: {options.name}", got=feature.shape,
                            expected="(K, C) or (C,) numbers")  # fmt: skip
    elif not (folder / options.name).is_dir():
        known = [*episodes.features, *(path.name for path in sorted(folder.glob("*")) if path.is_dir())]
        raise DataError(
            "no such sensor", where=str(episodes.root), got=options.name, fix=did_you_mean(options.name, known)
        )


def load_series(episodes: LeRobotEpisodes, episode: int, options: SensorOptions) -> SensorSeries | None:
    """Read the series of one episode and check it against the episode's clock.

    Returns:
        the series; None when the episode has none (possible only with tables beside the data).

    Raises:
        DataError: the data set has no such sensor, or its table is broken.
        UnusableError: clocks that do not overlap, times out of order, a gap, an end before the episode's, or NaN.
    """
    check_sensor(episodes, options)
    if options.name in episodes.features:
        series = _of_feature(episodes, episode, options.name)
    else:
        path = episodes.root / SENSOR_FILE.format(name=options.name, episode_index=episode)
        if not path.exists():
            return None
        series = _of_table(episodes, path)
    _check(series, episodes.times_s(episode), options)
    return series


def _of_feature(episodes: LeRobotEpisodes, episode: int, name: str) -> SensorSeries:
    entry, shape = episodes.entry(episode), episodes.feature(name).shape
    per_step = shape[0] if len(shape) == 2 else 1
    rate_hz = per_step * episodes.fps
    values = episodes.column(episode, name).reshape(entry.length * per_step, shape[-1]).astype(np.float32)
    ends_s = np.arange(entry.length, dtype=np.float64) / episodes.fps
    times_s = (ends_s[:, None] - np.arange(per_step - 1, -1, -1) / rate_hz).reshape(-1)
    return SensorSeries(times_s, values, str(entry.table), name, entry.first_row * per_step, rate_hz)


def _of_table(episodes: LeRobotEpisodes, path: Path) -> SensorSeries:
    where = str(path)
    times_s = to_array(episodes.tables.read(path, TIME_COLUMN), where=f"{where}: {TIME_COLUMN}").astype(np.float64)
    values = to_array(episodes.tables.read(path, VALUE_COLUMN), where=f"{where}: {VALUE_COLUMN}").astype(np.float32)
    if values.ndim != 2 or times_s.ndim != 1:
        raise DataError("not a sensor series", where=where, got=values.shape, expected="lists of C numbers")
    return SensorSeries(times_s, values, where, VALUE_COLUMN, 0, 0.0)


def _check(series: SensorSeries, steps_s: np.ndarray, options: SensorOptions) -> None:
    times_s, last_s = series.times_s, float(steps_s[-1])
    if not len(times_s):
        raise UnusableError("empty sensor series", series.path)
    if not np.isfinite(times_s).all() or (np.diff(times_s) <= 0).any():
        steps = np.diff(times_s)
        place = int(np.argmax(~(steps > 0))) + 1 if len(steps) else 0
        raise UnusableError("sensor times do not ascend", f"{series.path}: sample {place} at {times_s[place]} s")
    if times_s[0] > last_s or times_s[-1] < 0:
        raise UnusableError(
            "sensor clock and frames do not overlap",
            f"{series.path}: sensor {times_s[0]:.3f} to {times_s[-1]:.3f} s, frames 0.000 to {last_s:.3f} s",
        )
    if times_s[-1] < last_s - options.max_gap_s:
        raise UnusableError(
            "sensor ends before the episode", f"{series.path}: at {times_s[-1]:.3f} s, episode at {last_s:.3f} s"
        )
    gaps_s = np.diff(times_s)
    if (gaps_s > options.max_gap_s).any():
        place = int(np.argmax(gaps_s > options.max_gap_s))
        raise UnusableError(
            "gap in the sensor series", f"{series.path}: {gaps_s[place]:.3f} s after {times_s[place]:.3f} s"
        )
    bad = ~np.isfinite(series.values).all(axis=1)
    if bad.any():
        place = int(np.argmax(bad))
        raise UnusableError("sensor value is not finite", f"{series.path}: sample {place} at {times_s[place]:.3f} s")
