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

A sensor series is copied once into a table in a cache folder, as that of an episode folder is: force and aline stand
side by side in it, times count from the episode's start, and its values are checked.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydantic import Field

from hfvla.data.samples.actions import FrameRef
from hfvla.data.signals.clocks import Clock, seconds_since, to_nanoseconds
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.hdf5_episodes.contents import EpisodeContents
from hfvla.data.sources.hdf5_rows import HDF5_SUFFIXES, decode_picture, import_h5py, open_hdf5
from hfvla.data.sources.recorded_episodes import (
    RecordedEpisode,
    RecordedOptions,
    choose_views,
    collect_episodes,
    finite_numbers,
)
from hfvla.data.sources.sensor_series import SensorSeries, keep_series
from hfvla.errors import DataError
from hfvla.family import SourceData

__all__ = ["Hdf5EpisodesOptions", "build_hdf5_episodes", "count_hdf5_episodes"]

_SERIES_FORMAT = "hdf5 series 1"


class Hdf5EpisodesOptions(RecordedOptions):
    """What a recipe may say about HDF5 episodes; further options in `RecordedOptions`. `path` may be one file.

    Attributes:
        tolerance_s: how far the time from one step to the next may lie from 1 / fps.
        state: datasets under observations/ to put together, in this order; [] for none.
        action: dataset.
        clock: unit of the timestamps, the sensor's included.
    """

    tolerance_s: float = Field(default=0.02, gt=0.0)
    state: list[str] = ["qpos"]
    action: str = "action"
    clock: Clock = "auto"


def count_hdf5_episodes(options: Hdf5EpisodesOptions) -> int:
    """Return how many rows the files give if all are usable, from the actions' shapes alone.

    Raises:
        DataError: no such folder or file.
        MissingExtraError: h5py is not installed.
    """
    import_h5py()
    count = 0
    for _, path in _find(options.path):
        try:
            with open_hdf5(path) as file:
                action = EpisodeContents(file).datasets.get(options.action)
                length = action.shape[0] if action is not None and action.shape else 0
        except (DataError, UnusableError):  # building names and counts it
            continue
        count += -(-length // options.stride)
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
    return collect_episodes(options, _find(options.path), lambda path: _read(path, options), "hdf5_episodes")


def _find(path: str) -> list[tuple[str, Path]]:
    root = Path(path).expanduser().absolute()
    if root.is_file():
        return [(root.name, root)]
    if not root.is_dir():
        raise DataError("no such file or folder", where=str(root))
    files = (file for file in root.rglob("*") if file.suffix.lower() in HDF5_SUFFIXES and file.is_file())
    return sorted(
        (f"{root.name}/{file.relative_to(root).as_posix()}", file) for file in files if not file.name.startswith(".")
    )


def _read(path: Path, options: Hdf5EpisodesOptions) -> RecordedEpisode:
    with open_hdf5(path) as file:
        contents = EpisodeContents(file)
        actions = contents.read(options.action)
        if actions.ndim != 2:
            raise UnusableError("actions are not vectors", f"{options.action}: shape {actions.shape}")
        if not len(actions):
            raise UnusableError("empty episode", f"{options.action}: shape {actions.shape}")
        times_ns = _step_times(contents, len(actions), options)
        return RecordedEpisode(
            task=contents.task or path.parent.name,
            times_s=seconds_since(times_ns, int(times_ns[0])),
            views=_views(contents, path, len(actions), options),
            state=_state(contents, len(actions), options),
            actions=finite_numbers(actions, options.action),
            series=_series(contents, path, int(times_ns[0]), options) if options.window_s else None,
        )


def _same_length(found: int, expected: int, name: str, options: Hdf5EpisodesOptions) -> None:
    if found != expected:
        raise UnusableError("lengths differ", f"{found} of {name}, {expected} of {options.action}")


def _step_times(contents: EpisodeContents, length: int, options: Hdf5EpisodesOptions) -> np.ndarray:
    """Return [N] int64 nanoseconds, checked against the control rate."""
    stamps = contents.read("timestamp")
    _same_length(stamps.size, length, "timestamp", options)
    times_ns = to_nanoseconds(stamps.reshape(-1), options.clock, "timestamp")
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
    for name in options.state:
        values = contents.read(f"observations/{name}")
        _same_length(len(values) if values.ndim else 0, length, f"observations/{name}", options)
        parts.append(finite_numbers(values, f"observations/{name}"))
    return np.concatenate(parts, axis=1)


def _views(
    contents: EpisodeContents, path: Path, length: int, options: Hdf5EpisodesOptions
) -> dict[str, list[FrameRef]]:
    """Return the cameras' pictures by reference; the first of each is decoded."""
    views = {}
    for view in choose_views(contents.views, options.views):
        dataset = contents.views[view]
        name = dataset.name.lstrip("/")
        _same_length(dataset.shape[0] if dataset.shape else 0, length, name, options)
        decode_picture(dataset, 0, name)
        views[view] = [FrameRef(str(path), None, name, row) for row in range(length)]
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
