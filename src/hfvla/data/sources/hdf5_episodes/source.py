"""HDF5 episodes as rows of time steps: a row of the file is a step, the sensor is found by its own timestamps.

```text
action                          [N, A]      what was commanded at each step; used as it stands
timestamp                       [N]         of the steps, on the sensor's clock
observations/qpos, ee_pose, ... [N, S]      put together into the state
observations/images/<camera>    [N, H, W, 3] uint8, or encoded pictures: [N, L] uint8 padded with zeros, [N] of bytes
observations/sensor/force       [M] or [M, F]   optional
observations/sensor/aline       [M, L]          optional
observations/sensor/timestamp   [M]             with either
```

Files without a timestamp (ALOHA) have their steps at `fps`. robomimic's files, several episodes in one, are read as
they are: `data/demo_0/actions`, `data/demo_0/obs/<state or camera>`; task and rate come from their attributes.

A sensor series is copied once into a table in a cache folder, as that of an episode folder is: force and aline stand
side by side in it, times count from the episode's start, and its values are checked.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from hfvla.data.samples.actions import FrameRef
from hfvla.data.signals.clocks import EARLIEST_S, Clock, seconds_since, to_nanoseconds
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.hdf5_episodes.contents import EpisodeContents
from hfvla.data.sources.hdf5_episodes.layouts import ACT, ROBOMIMIC, demos_of, robomimic_facts
from hfvla.data.sources.hdf5_rows import HDF5_SUFFIXES, decode_picture, import_h5py, open_hdf5
from hfvla.data.sources.recorded_episodes import (
    RecordedEpisode,
    RecordedOptions,
    choose_views,
    collect_episodes,
    finite_numbers,
)
from hfvla.data.sources.sensor_series import SensorSeries, keep_series
from hfvla.data.walking import FoundPaths, find_files
from hfvla.errors import DataError
from hfvla.family import SourceData

__all__ = ["Hdf5EpisodesOptions", "build_hdf5_episodes", "count_hdf5_episodes"]

_SERIES_FORMAT = "hdf5 series 1"


class Hdf5EpisodesOptions(RecordedOptions):
    """What a recipe may say about HDF5 episodes; further options in `RecordedOptions`. `path` may be one file.

    Attributes:
        tolerance_s: how far the time from one step to the next may lie from 1 / fps.
        state: datasets of the observations to put together, in this order; [] for none. When absent: qpos; of
            robomimic's files end effector and gripper.
        action: dataset; "actions" in robomimic's files.
        clock: unit of the timestamps, the sensor's included; "auto" also takes small numbers for seconds.
        timestamp: dataset of the steps' times. Where a file has none and `fps` is given (ALOHA), and with null, steps
            lie at `fps`: a sensor, which needs the clock, cannot be read then.
    """

    tolerance_s: float = Field(default=0.02, gt=0.0)
    state: list[str] | None = None
    action: str | None = None
    clock: Clock = "auto"
    timestamp: str | None = "timestamp"

    @model_validator(mode="after")
    def _sensor_needs_a_clock(self) -> Hdf5EpisodesOptions:
        if self.timestamp is None and self.window_s is not None:
            raise ValueError("window_s needs the steps' times, and timestamp is null")
        return self


def count_hdf5_episodes(options: Hdf5EpisodesOptions) -> int:
    """Return how many rows the files give if all are usable, from the actions' shapes alone.

    Raises:
        DataError: no such folder or file.
        MissingExtraError: h5py is not installed.
    """
    import_h5py()
    count = 0
    root = _root(options.path)
    for path in _find(root).paths:
        try:
            with open_hdf5(path) as file:
                for group in demos_of(file) or [""]:
                    with closing(_contents(file, _folder(root), group)) as contents:
                        action = contents.dataset(options.action or contents.layout.action)
                        count += -(-(action.shape[0] if action.shape else 0) // options.stride)
        except (DataError, UnusableError):  # building names and counts it
            continue
    return count


def build_hdf5_episodes(options: Hdf5EpisodesOptions, *, seed: int = 0) -> SourceData:
    """Read HDF5 episodes into rows (`action_features`); pictures and sensor values stay on disk.

    Args:
        options: see `Hdf5EpisodesOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`, see `collect_episodes`.

    Raises:
        DataError: no such folder or file, no episode in it, or too many unusable.
        MissingExtraError: h5py is not installed.
    """
    import_h5py()
    root = _root(options.path)

    def read(path: Path, group: str) -> RecordedEpisode:
        return _read(path, _folder(root), options, group)

    return collect_episodes(options, root, _find(root), read, "hdf5_episodes", _groups)


def _groups(path: Path) -> list[str]:
    """Return the groups of the episodes in a file; one without a name for the whole file."""
    with open_hdf5(path) as file:
        return demos_of(file) or [""]


def _contents(file: Any, folder: Path, group: str) -> EpisodeContents:
    return EpisodeContents(file, folder, group, ROBOMIMIC if group else ACT)


def _root(path: str) -> Path:
    root = Path(path).expanduser().absolute()
    if not os.path.isfile(root) and not os.path.isdir(root):  # False, not an error, for names that none can have
        raise DataError("no such file or folder", where=str(root)[:200])
    return root


def _folder(root: Path) -> Path:
    return root if root.is_dir() else root.parent


def _find(root: Path) -> FoundPaths:
    if root.is_file():
        return FoundPaths(paths=[root])
    return find_files(root, lambda name: name.lower().endswith(HDF5_SUFFIXES))


def _read(path: Path, folder: Path, options: Hdf5EpisodesOptions, group: str) -> RecordedEpisode:
    with open_hdf5(path) as file, closing(_contents(file, folder, group)) as contents:
        words, rate_hz = robomimic_facts(file) if group else (None, None)
        options = _settled(options, contents, rate_hz)
        actions = contents.read(str(options.action))
        if actions.ndim != 2:
            raise UnusableError("actions are not vectors", f"{options.action}: shape {actions.shape}")
        if not len(actions):
            raise UnusableError("empty episode", f"{options.action}: shape {actions.shape}")
        times_ns = _step_times(contents, len(actions), options)
        return RecordedEpisode(
            task=contents.task or path.parent.name,
            instruction=words,
            times_s=seconds_since(times_ns, int(times_ns[0])),
            views=_views(contents, path, len(actions), options),
            state=_state(contents, len(actions), options),
            actions=finite_numbers(actions, str(options.action)),
            series=_series(contents, path, int(times_ns[0]), options) if options.window_s else None,
        )


def _settled(options: Hdf5EpisodesOptions, contents: EpisodeContents, rate_hz: float | None) -> Hdf5EpisodesOptions:
    """Return options with what the layout and the file itself say where the recipe says nothing.

    Raises:
        UnusableError: neither a clock nor a rate, or a rate that is not the file's.
    """
    found: dict[str, Any] = {"action": options.action or contents.layout.action}
    found["state"] = list(contents.layout.state(contents.datasets, options.state))
    has_rate = "fps" in options.model_fields_set
    if rate_hz is not None and not has_rate:
        found["fps"] = rate_hz
    elif rate_hz is not None and abs(rate_hz - options.fps) > 1e-6 * rate_hz:
        raise UnusableError("another control rate", f"the file says {rate_hz:g} Hz, fps {options.fps:g}")
    stamps = options.timestamp
    if stamps is not None and stamps not in contents.datasets and stamps not in contents.lost:
        named = "timestamp" in options.model_fields_set
        if not named and not options.window_s and found["action"] in contents.datasets:
            if not has_rate and rate_hz is None:
                raise UnusableError(
                    "no clock", f"no dataset {stamps} (ALOHA): say the rate of the steps, e.g. fps: 50"
                )
            found["timestamp"] = None
    elif stamps is not None and options.clock == "auto" and _counts_from_zero(contents.read(stamps)):
        found["clock"] = "s"  # what steps at the control rate show to be true, or refuse
    return options.model_copy(update=found)


def _counts_from_zero(stamps: np.ndarray) -> bool:
    """Tell whether times are too small to be since 1970, in any unit."""
    numbers = stamps.dtype.kind in "iuf" and stamps.size
    return bool(numbers) and bool(np.isfinite(stamps).all()) and 0 <= stamps.min() <= stamps.max() < EARLIEST_S


def _same_length(found: int, expected: int, name: str, options: Hdf5EpisodesOptions) -> None:
    if found != expected:
        raise UnusableError("lengths differ", f"{found} of {name}, {expected} of {options.action}")


def _step_times(contents: EpisodeContents, length: int, options: Hdf5EpisodesOptions) -> np.ndarray:
    """Return [N] int64 nanoseconds, checked against the control rate."""
    if options.timestamp is None:
        return np.rint(np.arange(length) * (1e9 / options.fps)).astype(np.int64)
    stamps = contents.read(options.timestamp)
    _same_length(stamps.size, length, options.timestamp, options)
    times_ns = to_nanoseconds(stamps.reshape(-1), options.clock, options.timestamp)
    steps_s = np.diff(times_ns) / 1e9
    if (steps_s <= 0).any():
        step = int(np.argmax(steps_s <= 0)) + 1
        raise UnusableError("timestamps do not ascend", f"step {step} at {stamps.reshape(-1)[step]}")
    off = np.flatnonzero(np.abs(steps_s - 1 / options.fps) > options.tolerance_s + 1e-6)
    if off.size:
        raise UnusableError(
            "steps are not at the control rate",
            f"{steps_s[off[0]]:.3f} s from step {off[0]} to the next, expected {1 / options.fps:.3f} s within "
            f"{options.tolerance_s} s",
        )
    return times_ns


def _state(contents: EpisodeContents, length: int, options: Hdf5EpisodesOptions) -> np.ndarray:
    parts = [np.zeros((length, 0), np.float32)]
    for name in options.state or ():
        place = f"{contents.layout.observations}/{name}"
        values = contents.read(place)
        _same_length(len(values) if values.ndim else 0, length, place, options)
        parts.append(finite_numbers(values, place))
    return np.concatenate(parts, axis=1)


def _views(
    contents: EpisodeContents, path: Path, length: int, options: Hdf5EpisodesOptions
) -> dict[str, list[FrameRef]]:
    """Return the cameras' pictures by reference; the first of each is decoded."""
    views = {}
    for view in choose_views(contents.views, options.views):
        dataset = contents.camera(view)
        name = dataset.name.lstrip("/")
        _same_length(dataset.shape[0] if dataset.shape else 0, length, name, options)
        decode_picture(dataset, 0, name)
        file = dataset.file.filename if dataset.file.filename != contents.file.filename else str(path)
        views[view] = [FrameRef(file, None, name, row) for row in range(length)]
    return views


def _series(contents: EpisodeContents, path: Path, start_ns: int, options: Hdf5EpisodesOptions) -> SensorSeries | None:
    found = contents.read_sensor(options.clock)
    if found is None:
        return None
    times_ns, values = found
    key = hashlib.sha256(f"{_SERIES_FORMAT} {start_ns} {values.shape}".encode())
    key.update(times_ns.tobytes())
    key.update(np.ascontiguousarray(values).tobytes())
    times_s = seconds_since(times_ns, start_ns)
    return keep_series(options.series_folder, key.hexdigest()[:40], str(path), lambda: (times_s, values))
