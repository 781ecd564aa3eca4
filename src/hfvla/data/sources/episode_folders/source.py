"""Episode folders as rows of time steps: three recordings with clocks of their own, laid to one.

Steps lie at the control rate from the first moment at which every camera and the robot's state are there. At time t a
step sees the last picture of each camera, the last state and the sensor's window **up to** t, as a live robot would;
what is older than the tolerance takes the episode out. Its action leads to the pose one step later, so the last moment
of an episode gives no step. Nothing is matched by position in a file.

Sensor series lie in npz files, out of which no row can be read without the rest. Each is therefore written once to a
table in a cache folder, under a hash of its files. The reference stays a span of a table's rows, as for any other
source, and a damaged series or one with NaN in it is found when it is written, not in the middle of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from hfvla.data.samples.actions import FrameRef
from hfvla.data.signals.clocks import Clock, seconds_since
from hfvla.data.signals.rotations import REPRESENTATIONS, Frame, Representation, pose_delta
from hfvla.data.signals.sensor_loader import CLOCK_SLACK_S
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.episode_folders.layouts import EpisodeFiles, Layout, find_episodes, open_episode, walk_episodes
from hfvla.data.sources.episode_folders.streams import hash_files, load_picture_times, load_sensor, load_states
from hfvla.data.sources.recorded_episodes import RecordedEpisode, RecordedOptions, choose_views, collect_episodes
from hfvla.data.sources.sensor_series import SensorSeries, keep_series
from hfvla.errors import DataError
from hfvla.family import SourceData

__all__ = ["EpisodeFoldersOptions", "build_episode_folders", "count_episode_folders"]

_SERIES_FORMAT = "episode folder series 1"
_MICROSECOND = 1e-6


class EpisodeFoldersOptions(RecordedOptions):
    """What a recipe may say about episode folders; further options in `RecordedOptions`.

    Attributes:
        layout: "new" (`episode_*`), "old" (`recv_all_*`), or "auto": both, told apart by the folder's name.
        tolerance_s: oldest picture and state that a step may stand on; more than the time between two pictures.
        time_column: of the states' times.
        state: columns of the state, in this order; the pose's and the gripper's when absent.
        pose: columns of the position (3), then of the rotation.
        rotation: what the rotation's columns are.
        position_unit: of the position's columns; actions are in mm.
        gripper: column that is added to the action; absent: there is no gripper.
        action: "delta": from the pose at the step to the pose a step later, a rotation vector in degrees; "absolute":
            the pose a step later, its rotation as recorded. The gripper's value is that of a step later.
        frame: axes of a delta: the world's, or the body's at the step.
        picture_clock: unit of the pictures' names.
        state_clock: unit of the states' times.
        sensor_clock: unit of the sensor's times.
    """

    layout: Layout = "auto"
    tolerance_s: float = Field(default=0.15, gt=0.0)
    time_column: str = "timestamp"
    state: list[str] | None = None
    pose: list[str] = ["x", "y", "z", "rx", "ry", "rz"]
    rotation: Representation = "euler_degrees"
    position_unit: Literal["mm", "m"] = "mm"
    gripper: str | None = None
    action: Literal["delta", "absolute"] = "delta"
    frame: Frame = "world"
    picture_clock: Clock = "auto"
    state_clock: Clock = "auto"
    sensor_clock: Clock = "auto"

    @model_validator(mode="after")
    def _pose_fits_rotation(self) -> EpisodeFoldersOptions:
        expected = 3 + REPRESENTATIONS[self.rotation]
        if len(self.pose) != expected:
            raise ValueError(f"pose has {len(self.pose)} columns; {self.rotation} needs {expected}")
        return self

    @property
    def moving(self) -> list[str]:
        """Columns that actions are made of."""
        return [*self.pose, *([self.gripper] if self.gripper else [])]


@dataclass(frozen=True, eq=False)
class _Clocks:
    """Recordings of one episode on one clock, in seconds from its start.

    Attributes:
        start_ns: of the episode, on the recorded clock.
        steps_s: [N] float64, ascending, of the steps.
        states_s: [M] float64, of the states.
        states: [M, C] float64: the state's columns, then those of `moving`.
        pictures: camera to times [P] float64 and paths.
    """

    start_ns: int
    steps_s: np.ndarray
    states_s: np.ndarray
    states: np.ndarray
    pictures: Mapping[str, tuple[np.ndarray, list[Path]]]


def count_episode_folders(options: EpisodeFoldersOptions) -> int:
    """Return how many rows the usable episodes give, from their clocks alone (sensors are not read).

    Raises:
        DataError: no such folder.
    """
    count = 0
    for _, path in find_episodes(Path(options.path).expanduser().absolute(), options.layout):
        try:
            count += -(-len(_read_clocks(open_episode(path), options).steps_s) // options.stride)
        except (UnusableError, DataError):  # building names and counts it
            continue
    return count


def build_episode_folders(options: EpisodeFoldersOptions, *, seed: int = 0) -> SourceData:
    """Read episode folders into rows (`action_features`); pictures and sensor values stay on disk.

    Args:
        options: see `EpisodeFoldersOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`, see `collect_episodes`.

    Raises:
        DataError: no such folder, no episode in it, or too many unusable.
    """
    root = Path(options.path).expanduser().absolute()
    found = walk_episodes(root, options.layout)
    return collect_episodes(options, root, found, lambda path, _: _read(path, options), "episode_folders")


def _read(path: Path, options: EpisodeFoldersOptions) -> RecordedEpisode:
    files = open_episode(path)
    clocks = _read_clocks(files, options)
    views = {}
    for view, (times_s, paths) in clocks.pictures.items():
        chosen = _last_before(times_s, clocks.steps_s, options.tolerance_s, f"pictures of {view}")
        views[view] = [FrameRef(str(paths[place])) for place in chosen]
    next_s = round(len(clocks.steps_s) / options.fps, 6)
    chosen = _last_before(clocks.states_s, np.append(clocks.steps_s, next_s), options.tolerance_s, "states")
    states = clocks.states[chosen]
    width = states.shape[1] - len(options.moving)
    return RecordedEpisode(
        task=files.task,
        times_s=clocks.steps_s,
        views=views,
        state=states[:-1, :width].astype(np.float32),
        actions=_actions(states[:, width:], options),
        series=_series(files, clocks.start_ns, options) if options.window_s and files.sensors else None,
        details={"layout": files.layout},
    )


def _read_clocks(files: EpisodeFiles, options: EpisodeFoldersOptions) -> _Clocks:
    """Read states and picture times, and lay the steps.

    Raises:
        UnusableError: a file that cannot be used, clocks that do not overlap, or less than a step.
    """
    state = options.moving if options.state is None else options.state
    states_ns, states = load_states(files.states, [*state, *options.moving], options.time_column, options.state_clock)
    views = choose_views(files.views, options.views)
    pictures_ns = {view: load_picture_times(files.views[view], options.picture_clock) for view in views}
    starts = {"states": states_ns, **{view: times_ns for view, (times_ns, _) in pictures_ns.items()}}
    start_ns = int(max(times_ns[0] for times_ns in starts.values()))
    if min(times_ns[-1] for times_ns in starts.values()) < start_ns:
        ranges = (f"{name} {times[0] / 1e9:.3f} to {times[-1] / 1e9:.3f} s" for name, times in starts.items())
        raise UnusableError("clocks do not overlap", ", ".join(ranges))
    states_s = seconds_since(states_ns, start_ns)
    pictures = {view: (seconds_since(times, start_ns), paths) for view, (times, paths) in pictures_ns.items()}
    last_s = min([states_s[-1] - 1 / options.fps, *(times_s[-1] for times_s, _ in pictures.values())])
    count = int(np.floor((last_s + _MICROSECOND) * options.fps)) + 1
    if count < 1:
        raise UnusableError("empty episode", f"{states_s[-1]:.3f} s of states is less than a step")
    return _Clocks(start_ns, np.round(np.arange(count) / options.fps, 6), states_s, states, pictures)


def _last_before(times_s: np.ndarray, steps_s: np.ndarray, tolerance_s: float, name: str) -> np.ndarray:
    """Return [N]: the last entry of `times_s` at or before each step.

    Raises:
        UnusableError: it is older than the tolerance.
    """
    places = np.searchsorted(times_s, steps_s + CLOCK_SLACK_S, side="right") - 1
    late = np.flatnonzero(steps_s - times_s[places] > tolerance_s + CLOCK_SLACK_S)
    if late.size:
        step = int(late[0])
        raise UnusableError(
            "gap in a recording",
            f"{name}: the last before {steps_s[step]:.3f} s is at {times_s[places[step]]:.3f} s, tolerance_s "
            f"{tolerance_s}",
        )
    return places


def _actions(moving: np.ndarray, options: EpisodeFoldersOptions) -> np.ndarray:
    """Return [N, A] float32 from the N + 1 poses at the steps and one step after the last."""
    width = len(options.pose)
    poses, grip = moving[:, :width].copy(), moving[1:, width:]
    if options.position_unit == "m":
        poses[:, :3] *= 1000.0
    if options.action == "absolute":
        moved = poses[1:]
    else:
        moved = pose_delta(poses[1:], poses[:-1], options.rotation, options.frame)
        if options.rotation != "euler_degrees":
            moved[:, 3:] = np.rad2deg(moved[:, 3:])
    return np.concatenate([moved, grip], axis=1).astype(np.float32)


def _series(files: EpisodeFiles, start_ns: int, options: EpisodeFoldersOptions) -> SensorSeries:
    facts = f"{_SERIES_FORMAT} {files.layout} {options.sensor_clock} {start_ns} {hash_files(files.sensors)}"
    key = hashlib.sha256(facts.encode()).hexdigest()[:40]

    def read() -> tuple[np.ndarray, np.ndarray]:
        times_ns, values = load_sensor(files.sensors, files.layout, options.sensor_clock)
        return seconds_since(times_ns, start_ns), values

    return keep_series(options.series_folder, key, str(files.sensors[0]), read)
