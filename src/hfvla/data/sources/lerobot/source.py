"""LeRobot data sets as rows of time steps: pictures, state, action chunk and sensor window on one clock.

The record that is counted and refused is the episode: one NaN in it, a broken video or a clock that does not fit takes
the whole episode out, by name and reason. Episodes that meta/ names and that are not on disk are "absent", not
refused: a subset of a data set is an ordinary thing to have. Each video file is opened once, its length compared and
its first frame decoded; damage further inside shows when that frame is read, as an error that names the file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.samples.actions import ActionSample, SensorRef, build_action_dataset
from hfvla.data.sources.census import Census, UnusableError
from hfvla.data.sources.lerobot.reader import LeRobotEpisodes
from hfvla.data.sources.lerobot.sensors import SensorOptions, SensorSeries, check_sensor, load_series
from hfvla.data.video import VideoInfo
from hfvla.errors import DataError, did_you_mean
from hfvla.family import SourceData
from hfvla.paths import UserPath

__all__ = ["LeRobotOptions", "build_lerobot", "count_lerobot"]

logger = logging.getLogger(__name__)

_CAMERA_PREFIX = "observation.images."
_MOST_COUNTED = 100_000  # a header may promise any number


class LeRobotOptions(BaseModel):
    """What a recipe may say about a LeRobot data set.

    Attributes:
        path: folder that holds meta/, data/ and videos/.
        horizon: actions a chunk: the step's own and those after it.
        views: cameras by feature name, with or without "observation.images."; all when absent.
        state: features to put together, in this order; [] for none.
        action: feature.
        sensor: series to add; none when absent.
        episodes: numbers to read; all that are on disk when absent.
        stride: take every n-th step.
        tolerance_s: how far timestamps and video frames may lie from their step's time.
        max_bad_fraction: share of unusable episodes above which reading fails.
    """

    model_config = ConfigDict(extra="forbid")

    path: UserPath
    horizon: int = Field(default=8, ge=1)
    views: list[str] | None = None
    state: list[str] = ["observation.state"]
    action: str = "action"
    sensor: SensorOptions | None = None
    episodes: list[int] | None = None
    stride: int = Field(default=1, ge=1)
    tolerance_s: float = Field(default=1e-4, gt=0.0)
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)


def count_lerobot(options: LeRobotOptions) -> int:
    """Return how many rows the episodes on disk give if all are usable, from the meta files alone.

    Raises:
        DataError: no LeRobot data set, broken meta files, or no episode on disk.
    """
    episodes = LeRobotEpisodes(options.path, tolerance_s=options.tolerance_s)
    lengths = (episodes.entry(index).length for index in _selected(episodes, options))
    return sum(-(-length // options.stride) for length in lengths)


def build_lerobot(options: LeRobotOptions, *, seed: int = 0) -> SourceData:
    """Read a LeRobot data set into rows (`action_features`); pictures and sensor values stay on disk.

    Args:
        options: see `LeRobotOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`: a row a step, group = episode. Its census counts episodes, and "steps", "absent" episodes,
        "without_sensor" (usable episodes), "short_windows" (steps whose sensor window the series does not fill yet)
        and "steps_left_out" (of those, with `short: drop`).

    Raises:
        DataError: no LeRobot data set, broken meta files, no such feature, no episode on disk, or too many unusable.
        MissingExtraError: PyAV is not installed.
    """
    episodes = LeRobotEpisodes(options.path, tolerance_s=options.tolerance_s)
    builder = _Builder(episodes, options)
    census, samples = Census(), list[ActionSample]()
    if options.episodes is None:
        _count_unnamed(episodes, census)
    for index in _selected(episodes, options):
        census.found += 1
        try:
            samples += builder.steps(index)
        except (UnusableError, DataError) as error:
            problem = UnusableError(error.what, _detail(error)) if isinstance(error, DataError) else error
            census.reject(str(episodes.entry(index).table), builder.name_of(index), problem)
    counts = {"steps": len(samples), "absent": len(episodes.absent), **builder.counts}
    census.log(options.path, counts.items())
    census.refuse_if_too_bad(options.max_bad_fraction, options.path)
    summary = {"found": census.found, "usable": census.usable, "rejected": census.rejected(), **counts}
    rejected = {one.id: f"{one.reason}: {one.detail}" for one in census.rejections if one.id}
    return SourceData(build_action_dataset(samples), summary, rejected)


def _count_unnamed(episodes: LeRobotEpisodes, census: Census) -> None:
    """Count the episodes that meta/info.json promises and the list of episodes does not name: it was cut off."""
    named, promised = len(episodes), episodes.info.episodes
    for _ in range(min(promised - named, _MOST_COUNTED)):
        census.found += 1
        problem = UnusableError("episode is not named", f"{named} episodes are, total_episodes says {promised}")
        census.reject(str(episodes.root / "meta"), "", problem)
    if named > promised:
        logger.warning("%s: %d episodes are named, total_episodes says %d", episodes.root, named, promised)


def _selected(episodes: LeRobotEpisodes, options: LeRobotOptions) -> Sequence[int]:
    if options.episodes is not None:
        for index in options.episodes:
            episodes.entry(index)
    chosen = episodes.present if options.episodes is None else sorted(set(options.episodes) & set(episodes.present))
    if not chosen:
        raise DataError(
            "no episode is on disk",
            where=options.path,
            got=f"{len(episodes.absent)} of {len(episodes)} episodes absent",
            expected=f"tables such as {next(iter(episodes.entries.values())).table}" if len(episodes) else "episodes",
        )
    return chosen


def _detail(error: DataError) -> str:
    parts = [error.where, f"got {error.got}" if error.got is not None else None]
    parts.append(f"expected {error.expected}" if error.expected is not None else None)
    return "; ".join(part for part in parts if part)


class _Builder:
    """Turns episodes into samples; looks at each video once."""

    def __init__(self, episodes: LeRobotEpisodes, options: LeRobotOptions) -> None:
        self.episodes, self.options = episodes, options
        self.views = _views(episodes, options.views)
        for name in (*options.state, options.action):
            if episodes.feature(name).is_camera:
                raise DataError("a camera is neither state nor action", where=options.path, got=name)
        shape = episodes.feature(options.action).shape
        if len(shape) != 1:
            raise DataError("actions are not vectors", where=f"{options.path}: {options.action}", got=shape)
        if options.sensor:
            check_sensor(episodes, options.sensor)
        self.counts = {"without_sensor": 0, "short_windows": 0, "steps_left_out": 0}
        self._channels = 0
        self._videos: dict[str, VideoInfo | UnusableError] = {}

    def name_of(self, episode: int) -> str:
        return f"{self.episodes.name}/episode_{episode:06d}"

    def steps(self, episode: int) -> list[ActionSample]:
        """Build the samples of one episode.

        Raises:
            DataError: what the tables hold does not fit the meta files, or timestamps are out of tolerance.
            UnusableError: NaN, a missing, broken or short video, or a sensor series that does not fit.
        """
        times_s = self.episodes.times_s(episode)
        state = self._numbers(episode, self.options.state, len(times_s))
        actions = self._numbers(episode, [self.options.action], len(times_s))
        tasks = self.episodes.task_of(episode)
        for camera in self.views.values():
            self._check_video(episode, camera)
        series = None
        if self.options.sensor:
            series = load_series(self.episodes, episode, self.options.sensor)
            self.counts["without_sensor"] += series is None
            self._check_channels(series)
        horizon = self.options.horizon
        padded = np.concatenate([actions, np.zeros((horizon - 1, actions.shape[1]), np.float32)])
        ahead = np.arange(horizon)
        samples = []
        for step in range(0, len(times_s), self.options.stride):
            sensor, keep = self._window(series, float(times_s[step]))
            if not keep:
                continue
            samples.append(
                ActionSample(
                    episode=self.name_of(episode),
                    index=step,
                    timestamp=float(times_s[step]),
                    task=tasks[step],
                    views={name: self.episodes.frame_ref(episode, key, step) for name, key in self.views.items()},
                    state=state[step],
                    actions=padded[step : step + horizon],
                    action_mask=step + ahead < len(times_s),
                    sensor=sensor,
                    group=self.name_of(episode),
                    source="lerobot",
                    previous_action=actions[step - 1] if step else None,
                )
            )
        return samples

    def _check_channels(self, series: SensorSeries | None) -> None:
        """Compare a sensor's channels with those of the first episode that has it."""
        if series is None:
            return
        self._channels = self._channels or series.channels
        if series.channels != self._channels:
            detail = f"{series.name}: {series.channels} channels, expected {self._channels}"
            raise UnusableError("wrong sensor dimension", detail)

    def _window(self, series: SensorSeries | None, time_s: float) -> tuple[SensorRef | None, bool]:
        """Return a step's sensor window, and whether the step is kept."""
        options = self.options.sensor
        if series is None or options is None:
            return None, True
        sensor, short = series.window(time_s, options.window_s)
        self.counts["short_windows"] += short
        drop = short and options.short == "drop"
        self.counts["steps_left_out"] += drop
        return sensor, not drop

    def _numbers(self, episode: int, names: Sequence[str], length: int) -> np.ndarray:
        """Return [N, sum of channels] float32, checked for NaN and infinity."""
        parts = [np.zeros((length, 0), np.float32)]
        for name in names:
            values = self.episodes.column(episode, name).reshape(length, -1).astype(np.float32)
            bad = ~np.isfinite(values)
            if bad.any():
                step, channel = (int(place) for place in np.argwhere(bad)[0])
                raise UnusableError(
                    "value is not finite", f"{name}[{channel}] of step {step}: {values[step, channel]}"
                )
            parts.append(values)
        return np.concatenate(parts, axis=1)

    def _check_video(self, episode: int, camera: str) -> None:
        entry = self.episodes.entry(episode)
        if camera not in entry.videos:
            return
        path, from_s = entry.videos[camera]
        info = self._video(str(path))
        end_s = from_s + (entry.length - 1) / self.episodes.fps
        if end_s > info.duration_s + self.options.tolerance_s:
            raise UnusableError(
                "video is shorter than the episode", f"{path}: {info.duration_s:.3f} s, last step at {end_s:.3f} s"
            )

    def _video(self, path: str) -> VideoInfo:
        if path not in self._videos:
            try:
                self._videos[path] = self.episodes.loader.reader.probe(path)
            except DataError as error:
                self._videos[path] = UnusableError(error.what, _detail(error))
        found = self._videos[path]
        if isinstance(found, UnusableError):
            raise UnusableError(found.reason, found.detail)
        return found


def _views(episodes: LeRobotEpisodes, wanted: Sequence[str] | None) -> dict[str, str]:
    """Return {view name: feature}; the name is the feature's, without the prefix that all cameras share."""
    cameras = episodes.info.cameras
    short: dict[str, str] = {}
    for camera in cameras:
        name = camera.removeprefix(_CAMERA_PREFIX)
        short[camera if name in short or (name != camera and name in cameras) else name] = camera
    if wanted is None:
        return short
    views = {}
    for name in wanted:
        camera = name if name in cameras else short.get(name, "")
        if not camera:
            raise DataError("no such camera", where=str(episodes.root), got=name, fix=did_you_mean(name, short))
        views[next(key for key, value in short.items() if value == camera)] = camera
    return views
