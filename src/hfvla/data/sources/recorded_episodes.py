"""What every source of recorded episodes shares: options, the way from an episode's arrays to rows, and the census.

The record that is counted and refused is the episode: one NaN in it, or clocks that do not fit, take the whole episode
out, by name and reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from hfvla.data.samples.actions import ActionSample, FrameRef, build_action_dataset
from hfvla.data.sources.census import Census, UnusableError
from hfvla.data.sources.sensor_series import SensorSeries, check_clock
from hfvla.data.walking import FoundPaths, named_paths
from hfvla.errors import DataError, did_you_mean
from hfvla.family import SourceData
from hfvla.paths import UserPath

__all__ = ["RecordedEpisode", "RecordedOptions", "choose_views", "collect_episodes", "finite_numbers"]


class RecordedOptions(BaseModel):
    """Options that sources of recorded episodes share.

    Attributes:
        path: folder that holds the episodes, at any depth.
        horizon: actions a chunk: the step's own and those after it.
        fps: steps and actions a second.
        views: cameras by name, of which every episode must have all; all that any of them has when absent.
        task: text with {task} in it, where the task's name goes.
        window_s: a step at time t sees the sensor's samples in (t - window_s, t]; absent: the sensor is not read.
        max_gap_s: time without a sample, inside the series or at an episode's end, above which an episode is refused.
        short: steps so early that the series does not fill their window yet: "keep" gives what there is, "drop" leaves
            them out; both are counted.
        stride: take every n-th step.
        action_dim: channels an action must have; those of the first usable episode when absent.
        max_bad_fraction: share of unusable episodes above which reading fails.
        cache_folder: where sensor series are kept as tables; `hfvla/sensor_series` in the Hugging Face home when
            absent.
    """

    model_config = ConfigDict(extra="forbid")

    path: UserPath
    horizon: int = Field(default=8, ge=1)
    fps: float = Field(default=10.0, gt=0.0, allow_inf_nan=False)
    views: list[str] | None = None
    task: str = "Perform {task} insertion task"
    window_s: float | None = Field(default=None, gt=0.0)
    max_gap_s: float = Field(default=0.1, gt=0.0)
    short: Literal["keep", "drop"] = "keep"
    stride: int = Field(default=1, ge=1)
    action_dim: int | None = Field(default=None, ge=1)
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    cache_folder: UserPath | None = None

    @field_validator("task")
    @classmethod
    def _is_template(cls, text: str) -> str:
        try:
            text.format(task="x")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(f"no text with {{task}} in it ({type(error).__name__}: {error})") from error
        parts = [part for part in Formatter().parse(text) if part[1] is not None]
        if any(part[1:] != ("task", "", None) for part in parts):  # a width of millions would fill the memory
            raise ValueError("a field that is not {task} as it stands")
        return text

    @property
    def series_folder(self) -> Path:
        """Where sensor series are kept."""
        from huggingface_hub.constants import HF_HOME

        return Path(self.cache_folder or Path(HF_HOME) / "hfvla" / "sensor_series").expanduser().absolute()


@dataclass(frozen=True, eq=False)
class RecordedEpisode:
    """One usable episode. N steps.

    Attributes:
        task: name of the task, for the template.
        times_s: [N] float64 seconds from the first step.
        views: camera to N pictures.
        state: [N, S] float32.
        actions: [N, A] float32.
        series: of the sensor, on the same clock; None when there is none.
        details: further facts.
        instruction: what the robot was told, in full, where the recording says it; the template is for names.
    """

    task: str
    times_s: np.ndarray
    views: Mapping[str, Sequence[FrameRef]]
    state: np.ndarray
    actions: np.ndarray
    series: SensorSeries | None = None
    details: dict[str, str] = field(default_factory=dict)
    instruction: str | None = None


def finite_numbers(values: np.ndarray, name: str, unit: str = "step") -> np.ndarray:
    """Return [N, C] float32 of [N, ...] numbers.

    Raises:
        UnusableError: not numbers, or a value that is not finite, with its place.
    """
    if values.dtype.kind not in "iufb" or not values.ndim:
        raise UnusableError("not numbers", f"{name}: {values.dtype} of shape {values.shape}")
    flat: np.ndarray = values.reshape(len(values), -1).astype(np.float32)
    bad = np.argwhere(~np.isfinite(flat))
    if len(bad):
        row, channel = (int(place) for place in bad[0])
        raise UnusableError("value is not finite", f"{name}[{channel}] of {unit} {row}: {flat[row, channel]}")
    return flat


def choose_views(found: Iterable[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the cameras to read of those that an episode has.

    Raises:
        UnusableError: one that is asked for is missing, or there is none and none were asked for by name.
    """
    found = sorted(found)
    if wanted is None:
        if not found:
            raise UnusableError("no view", "no camera; views: [] reads none")
        return found
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UnusableError("view is missing", f"{', '.join(missing)}. {did_you_mean(missing[0], found)}")
    return list(wanted)


def collect_episodes(
    options: RecordedOptions,
    root: Path,
    found: FoundPaths,
    read: Callable[[Path, str], RecordedEpisode],
    source: str,
    parts: Callable[[Path], Sequence[str]] = lambda path: ("",),
) -> SourceData:
    """Read episodes into rows and count those that cannot be used.

    Args:
        options: of the source.
        root: folder of the episodes, or the one episode itself.
        found: paths of the episodes; those that are lost count as unusable.
        read: one episode: the part of that name in a path.
        source: its name.
        parts: names of the episodes in a path, "" for one that is all of it.

    Returns:
        `SourceData`: a row a step, group = episode. Its census counts episodes, and "steps", "without_sensor" (usable
        episodes), "short_windows" (steps whose window the series does not fill yet) and "steps_left_out" (of those,
        with `short: drop`); where there are some, "hidden" files and links that were "passed_over".

    Raises:
        DataError: no episode, or too many unusable.
    """
    found.log(root)
    if not found.paths and not found.lost:
        raise DataError("no episode", where=options.path, fix="Check the path and the layout.")
    census, episodes = Census(), dict[str, RecordedEpisode]()
    widths: dict[str, int] = {"action": options.action_dim} if options.action_dim else {}
    reasons = {path: reason for path, reason in found.lost}
    for name, path in named_paths(root, [*found.paths, *reasons]):
        with _counted(census, path, name) as whole:
            if path in reasons:
                raise UnusableError("episode cannot be read", reasons[path])
            whole.extend(parts(path))
        for part in whole:
            own = f"{name}/{part}" if part else name
            with _counted(census, path, own):
                episode = read(path, part)
                _check(episode, options, widths)
                episodes[own] = episode
    census.found = len(episodes) + census.bad
    _refuse_lost_views(root, episodes, census)
    samples, counts = list[ActionSample](), Counter[str]()
    for name, episode in episodes.items():
        samples += _samples(name, episode, options, source, counts)
    more = {key: counts[key] for key in ("without_sensor", "short_windows", "steps_left_out")}
    more = {"steps": len(samples), **more}
    census.log(options.path, more.items())
    census.refuse_if_too_bad(options.max_bad_fraction, options.path)
    summary = {"found": census.found, "usable": census.usable, "rejected": census.rejected(), **more}
    summary |= found.census()
    rejected = {one.id: f"{one.reason}: {one.detail}" for one in census.rejections}
    return SourceData(build_action_dataset(samples), summary, rejected)


@contextmanager
def _counted(census: Census, path: Path, name: str) -> Iterator[list[str]]:
    """Count what cannot be used under the name of its episode."""
    try:
        yield []
    except (UnusableError, DataError) as error:
        problem = UnusableError(error.what, _detail(error)) if isinstance(error, DataError) else error
        census.reject(str(path), name, problem)


def _refuse_lost_views(root: Path, episodes: dict[str, RecordedEpisode], census: Census) -> None:
    """Take episodes out that lack a camera which others have: one whose pictures are gone must not go unseen."""
    cameras = {view for episode in episodes.values() for view in episode.views}
    for name in [name for name, episode in episodes.items() if len(episode.views) < len(cameras)]:
        missing = sorted(cameras - set(episodes.pop(name).views))
        detail = f"{', '.join(missing)}, which other episodes have; views names the cameras that all of them have"
        census.reject(str(root.parent / name), name, UnusableError("view is missing", detail))


def _detail(error: DataError) -> str:
    parts = [error.where, f"got {error.got}" if error.got is not None else None]
    parts += [f"expected {error.expected}" if error.expected is not None else None, error.fix]
    return "; ".join(part for part in parts if part)


def _check(episode: RecordedEpisode, options: RecordedOptions, widths: dict[str, int]) -> None:
    """Compare an episode with its sensor's clock, and its channels with those of the episodes before it.

    Args:
        episode: to check.
        options: of the source.
        widths: channels by what they are of; those of a first usable episode are added.
    """
    if not len(episode.times_s):
        raise UnusableError("empty episode", "0 steps")
    found = {"action": episode.actions.shape[1], "state": episode.state.shape[1]}
    if options.window_s and episode.series is not None:
        check_clock(episode.series, float(episode.times_s[-1]), options.max_gap_s)
        times_s, found["sensor"] = episode.series.times_s, episode.series.channels
        length_s = float(times_s[-1] - times_s[0]) + episode.series.period_s(0.0)
        if length_s < options.window_s - 1e-6:
            raise UnusableError(
                "sensor is shorter than the window", f"{length_s:.3f} s of samples, window_s {options.window_s}"
            )
    for name, channels in found.items():
        if channels != widths.get(name, channels):
            raise UnusableError(f"wrong {name} dimension", f"{channels} channels, expected {widths[name]}")
    widths |= found


def _samples(
    name: str, episode: RecordedEpisode, options: RecordedOptions, source: str, counts: Counter[str]
) -> list[ActionSample]:
    length, horizon = len(episode.times_s), options.horizon
    padded = np.concatenate([episode.actions, np.zeros((horizon - 1, episode.actions.shape[1]), np.float32)])
    ahead, samples = np.arange(horizon), []
    in_full = episode.instruction is not None and "task" not in options.model_fields_set
    task = str(episode.instruction) if in_full else options.task.format(task=episode.instruction or episode.task)
    counts["without_sensor"] += episode.series is None and options.window_s is not None
    for step in range(0, length, options.stride):
        time_s, sensor = float(episode.times_s[step]), None
        if episode.series is not None and options.window_s:
            sensor, short = episode.series.window(time_s, options.window_s)
            counts["short_windows"] += short
            if short and options.short == "drop":
                counts["steps_left_out"] += 1
                continue
        samples.append(
            ActionSample(
                episode=name,
                index=step,
                timestamp=time_s,
                task=task,
                views={view: frames[step] for view, frames in episode.views.items()},
                state=episode.state[step],
                actions=padded[step : step + horizon],
                action_mask=step + ahead < length,
                sensor=sensor,
                group=name,
                source=source,
                details=episode.details,
                previous_action=episode.actions[step - 1] if step else None,
            )
        )
    return samples
