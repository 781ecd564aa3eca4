"""Sensor series that run faster than the frames: where a data set keeps them, and which samples a step may see.

Two ways of keeping them:

- a feature of shape (K, C): each step holds the K samples since the step before, evenly spaced, the last one taken at
  the step's time; a feature of shape (C,) is one sample a step;
- a table an episode beside the data, `sensors/<name>/episode_000000.parquet`, with columns "timestamp" (float64
  seconds from the episode's start, ascending) and "values" (lists of C numbers). LeRobot itself passes over it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.sources.lerobot.reader import LeRobotEpisodes
from hfvla.data.sources.parquet_rows import to_array
from hfvla.data.sources.sensor_series import TIME_COLUMN, VALUE_COLUMN, SensorSeries, check_clock, check_finite
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
        series, values = _of_feature(episodes, episode, options.name)
    else:
        path = episodes.root / SENSOR_FILE.format(name=options.name, episode_index=episode)
        if not path.exists() and not path.is_symlink():  # a link to nothing is a series that is lost
            return None
        series, values = _of_table(episodes, path)
    check_clock(series, float(episodes.times_s(episode)[-1]), options.max_gap_s)
    check_finite(values, series.times_s, series.path)
    return series


def _of_feature(episodes: LeRobotEpisodes, episode: int, name: str) -> tuple[SensorSeries, np.ndarray]:
    entry, shape = episodes.entry(episode), episodes.feature(name).shape
    per_step = shape[0] if len(shape) == 2 else 1
    rate_hz = per_step * episodes.fps
    values = episodes.column(episode, name).reshape(entry.length * per_step, shape[-1]).astype(np.float32)
    ends_s = np.arange(entry.length, dtype=np.float64) / episodes.fps
    times_s = (ends_s[:, None] - np.arange(per_step - 1, -1, -1) / rate_hz).reshape(-1)
    series = SensorSeries(times_s, shape[-1], str(entry.table), name, entry.first_row * per_step, rate_hz)
    return series, values


def _of_table(episodes: LeRobotEpisodes, path: Path) -> tuple[SensorSeries, np.ndarray]:
    where = str(path)
    times_s = to_array(episodes.tables.read(path, TIME_COLUMN), where=f"{where}: {TIME_COLUMN}").astype(np.float64)
    values = to_array(episodes.tables.read(path, VALUE_COLUMN), where=f"{where}: {VALUE_COLUMN}").astype(np.float32)
    if values.ndim != 2 or times_s.ndim != 1:
        raise DataError("not a sensor series", where=where, got=values.shape, expected="lists of C numbers")
    return SensorSeries(times_s, values.shape[1], where), values
