"""LeRobot data sets of v2.1 and v3.0 through one interface."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from hfvla.data.samples.actions import FrameRef
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.sources.lerobot.episodes import EpisodeEntry, Stats, load_episodes, load_stats, load_tasks
from hfvla.data.sources.lerobot.info import Feature, load_info
from hfvla.data.sources.parquet_rows import ParquetRows, to_array
from hfvla.errors import DataError, did_you_mean

__all__ = ["LeRobotEpisodes"]


class LeRobotEpisodes:
    """The episodes of a LeRobot data set on disk.

    A step's time is its number over the frame rate, in float64 seconds: the format records at a fixed rate. Recorded
    timestamps must agree with it within the tolerance (plus what float32 cannot hold), and so must video frames.

    Args:
        path: folder that holds meta/, data/ and videos/.
        tolerance_s: how far a timestamp may lie from its step's time; below half a step.
        loader: of pictures; one with the same tolerance when absent.

    Attributes:
        name: the folder's.
        info: content of meta/info.json.
        entries: every episode that the data set names, by number; not all of them need be on disk.
        tasks: texts by number.

    Raises:
        DataError: no LeRobot data set, another version, broken meta files, or an impossible tolerance.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, tolerance_s: float = 1e-4, loader: FrameLoader | None = None
    ) -> None:
        self.root = Path(path).expanduser().absolute()
        self.name = self.root.name
        self.info = load_info(self.root)
        if not 0 < tolerance_s < 0.5 / self.info.fps:
            raise DataError(
                "no such tolerance",
                where=str(self.root),
                got=tolerance_s,
                expected=f"0 < tolerance_s < {0.5 / self.info.fps:.6f} (half a step)",
            )
        self.tolerance_s = tolerance_s
        self.entries = load_episodes(self.root, self.info)
        self.tasks = load_tasks(self.root, self.info)
        self.tables = ParquetRows()
        self.loader = loader or FrameLoader(tolerance_s=tolerance_s)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def fps(self) -> float:
        """Steps a second."""
        return self.info.fps

    @property
    def features(self) -> dict[str, Feature]:
        """Columns of the episodes by name, with dtype and shape."""
        return self.info.features

    @cached_property
    def stats(self) -> Stats:
        """Statistics of the whole data set as it was recorded.

        Raises:
            DataError: the data set has none, or they are broken.
        """
        return load_stats(self.root, self.info)

    @cached_property
    def present(self) -> list[int]:
        """Numbers of the episodes whose table is on disk."""
        there = {entry.table: os.path.isfile(entry.table) for entry in self.entries.values()}
        return [index for index, entry in self.entries.items() if there[entry.table]]

    @property
    def absent(self) -> list[int]:
        """Numbers of the episodes that are named, and not on disk."""
        return sorted(set(self.entries) - set(self.present))

    def entry(self, episode: int) -> EpisodeEntry:
        """Return where an episode lies.

        Raises:
            DataError: no such episode.
        """
        if episode not in self.entries:
            raise DataError("no such episode", where=str(self.root), got=episode, expected=f"0 to {len(self) - 1}")
        return self.entries[episode]

    def column(self, episode: int, name: str) -> np.ndarray:
        """Read one column of an episode.

        Args:
            episode: number.
            name: a feature of numbers.

        Returns:
            [N, *feature shape] array of the column's number type; [N] for a feature of shape (1,).

        Raises:
            DataError: no such episode or feature, a picture, or a table that does not hold what the meta files say.
        """
        entry = self.entry(episode)
        feature = self.feature(name)
        if feature.is_camera:
            raise DataError("a camera has no numbers", where=str(self.root), got=name, fix="Use frames().")
        where = f"{entry.table}: {name} of episode {episode}"
        values = to_array(self.tables.read(entry.table, name, entry.first_row, entry.length), where=where)
        expected = () if feature.shape == (1,) and values.ndim == 1 else feature.shape
        if values.shape[1:] != expected:
            raise DataError("a column has another shape than meta/info.json says", where=where, got=values.shape[1:],
                            expected=expected)  # fmt: skip
        return values

    def columns(self, episode: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read several columns of an episode; see `column`."""
        return {name: self.column(episode, name) for name in names}

    def feature(self, name: str) -> Feature:
        """Return a feature.

        Raises:
            DataError: no such feature.
        """
        if name not in self.features:
            raise DataError("no such feature", where=str(self.root), got=name, fix=did_you_mean(name, self.features))
        return self.features[name]

    def times_s(self, episode: int) -> np.ndarray:
        """Return the steps' times, after comparing them with the recorded ones.

        Returns:
            [N] float64 seconds from the episode's start.

        Raises:
            DataError: an empty episode, rows of another one, steps out of order, or a timestamp out of tolerance
                (names the first).
        """
        entry = self.entry(episode)
        where = f"{entry.table}: episode {episode}"
        if not entry.length:
            raise DataError("the episode is empty", where=where, got="0 steps", expected="at least one")
        numbers, owners = self.column(episode, "frame_index"), self.column(episode, "episode_index")
        end = entry.first_row + entry.length
        if end < self.tables.count(entry.table):
            beyond = int(to_array(self.tables.read(entry.table, "episode_index", end, 1), where=where).reshape(-1)[0])
            if beyond == episode:
                raise DataError("the episode is longer than meta/ says", where=where, got=f"over {entry.length} steps",
                                expected=f"{entry.length}", fix="meta/ and data/ do not belong together.")  # fmt: skip
        if (owners != episode).any():
            raise DataError("rows of another episode", where=where, got=int(owners[owners != episode][0]),
                            expected=episode, fix="meta/ and data/ do not belong together.")  # fmt: skip
        wrong = np.flatnonzero(numbers != np.arange(entry.length))
        if wrong.size:
            first = int(wrong[0])
            raise DataError("steps are not in order", where=where, got=f"frame_index {int(numbers[first])}",
                            expected=f"{first}")  # fmt: skip
        recorded = self.column(episode, "timestamp")
        rounding_s = np.abs(np.spacing(recorded)).astype(np.float64) if recorded.dtype != np.float64 else 0.0
        times_s: np.ndarray = np.arange(entry.length, dtype=np.float64) / self.fps
        late = np.flatnonzero(~(np.abs(recorded.astype(np.float64) - times_s) <= self.tolerance_s + rounding_s))
        if late.size:
            first = int(late[0])
            raise DataError(
                "a timestamp is out of tolerance",
                where=where,
                got=f"frame {first} at {float(recorded[first]):.6f} s",
                expected=f"{times_s[first]:.6f} s within {self.tolerance_s} s",
                fix="Correct fps or the timestamps, or raise tolerance_s.",
            )
        return times_s

    def frame_ref(self, episode: int, camera: str, step: int) -> FrameRef:
        """Say where the picture of a step is.

        Raises:
            DataError: no such episode, camera or step.
        """
        entry = self.entry(episode)
        if not self.feature(camera).is_camera:
            raise DataError("not a camera", where=str(self.root), got=camera, expected=self.info.cameras)
        if not 0 <= step < entry.length:
            raise DataError("no such step", where=f"{self.root}: episode {episode}", got=step,
                            expected=f"0 to {entry.length - 1}")  # fmt: skip
        if camera in entry.videos:
            path, from_s = entry.videos[camera]
            return FrameRef(str(path), from_s + step / self.fps)
        return FrameRef(str(entry.table), None, camera, entry.first_row + step)

    def frames(
        self,
        episode: int,
        steps: Sequence[int],
        cameras: Sequence[str] | None = None,
        *,
        short_side: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Read pictures of steps, cameras side by side.

        Args:
            episode: number.
            steps: any order, repeats allowed.
            cameras: all when absent.
            short_side: scale video frames down to this short side; never up.

        Returns:
            camera to [T, H, W, 3] uint8 RGB.

        Raises:
            DataError: no such step or camera, a missing or broken file, or a frame out of tolerance.
        """
        cameras = self.info.cameras if cameras is None else list(cameras)
        refs = [self.frame_ref(episode, camera, step) for camera in cameras for step in steps]
        pictures = self.loader.load(refs, short_side=short_side)
        count = len(steps)
        return {
            camera: np.stack(pictures[place * count : (place + 1) * count]) for place, camera in enumerate(cameras)
        }

    def task_of(self, episode: int) -> list[str]:
        """Return the task of every step.

        Raises:
            DataError: a step names a task that meta/ does not.
        """
        numbers = self.column(episode, "task_index")
        unknown = sorted(set(numbers.tolist()) - set(self.tasks))
        if unknown:
            raise DataError("no such task", where=f"{self.entry(episode).table}: episode {episode}", got=unknown[0],
                            expected=sorted(self.tasks))  # fmt: skip
        return [self.tasks[int(number)] for number in numbers]
