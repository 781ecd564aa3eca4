"""Writes LeRobot v3.0 data sets, an episode at a time, a frame at a time."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.sources.lerobot.episode_stats import episode_stats, thumbnail
from hfvla.data.sources.lerobot.episodes import Stats, aggregate_stats
from hfvla.data.sources.lerobot.info import Feature
from hfvla.data.sources.lerobot.recorded import checked_features, checked_value, encode_png, feature_entry
from hfvla.data.sources.lerobot.sensors import SENSOR_FILE, TIME_COLUMN, VALUE_COLUMN
from hfvla.data.sources.lerobot.table_files import STEP_FEATURES, TableFiles, arrow_features
from hfvla.data.sources.lerobot.video_files import VIDEO_SETTINGS, VideoFiles
from hfvla.errors import DataError, did_you_mean

__all__ = ["LeRobotWriter"]

_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_DATA, _VIDEO, _EPISODES = (
    f"data/{_FILE}.parquet",
    f"videos/{{video_key}}/{_FILE}.mp4",
    f"meta/episodes/{_FILE}.parquet",
)


class LeRobotWriter:
    """Records episodes; the folder appears under its name only once `finalize` has written all of it.

    Use it in a `with` block: the end of the block finalizes, an exception in it leaves nothing behind.

    Args:
        path: folder that must not exist yet (or be empty).
        fps: steps and frames a second.
        features: name to `Feature` or {"dtype", "shape", "names"}; dtype "video" or "image" (shape (H, W, 3)), or a
            numpy number type. The step's own columns (timestamp, index, ...) are added.
        robot_type: any text.
        data_file_mb: a table that holds as much takes no further episode.
        video_file_mb: a video that holds as much takes no further episode.
        chunks_size: files a folder.
        video_settings: of x264, over `VIDEO_SETTINGS`.

    Raises:
        DataError: the folder is there already, or a feature cannot be written.
        MissingExtraError: a camera is a video and PyAV is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float,
        features: Mapping[str, Feature | Mapping[str, Any]],
        robot_type: str = "",
        data_file_mb: float = 100,
        video_file_mb: float = 200,
        chunks_size: int = 1000,
        video_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise DataError("the folder is there already", where=str(self.path), fix="Remove it or choose another.")
        if not (math.isfinite(fps) and fps > 0):
            raise DataError("no such frame rate", where=str(self.path), got=fps, expected="fps > 0")
        self.features = checked_features(features, str(self.path))
        self.fps = float(fps)
        self._limits = {"data_files_size_in_mb": data_file_mb, "video_files_size_in_mb": video_file_mb}
        self._robot_type, self._chunks_size = robot_type, chunks_size
        self._work = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:12]}.part")
        self._work.mkdir(parents=True)
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[Stats] = []
        self._steps = 0
        self._tables = TableFiles(
            self._work / _DATA, arrow_features(self.features), int(data_file_mb * 2**20), chunks_size
        )
        self._videos = {
            name: VideoFiles(
                str(self._work / _VIDEO.replace("{video_key}", name)),
                fps=Fraction(fps).limit_denominator(1001),
                size=(feature.shape[0], feature.shape[1]),
                max_bytes=int(video_file_mb * 2**20),
                chunks_size=chunks_size,
                settings={**VIDEO_SETTINGS, **(video_settings or {})},
            )
            for name, feature in self.features.items()
            if feature.dtype == "video"
        }
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in self.features}
        self._thumbnails: dict[str, list[np.ndarray]] = {n: [] for n, f in self.features.items() if f.is_camera}
        self._step_tasks: list[int] = []
        self._sensors: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.finalize()
        else:
            self.abandon()

    def __len__(self) -> int:
        return len(self._episodes)

    def add_frame(self, frame: Mapping[str, Any], task: str) -> None:
        """Add one step to the episode.

        Args:
            frame: every feature's value; cameras [H, W, 3] uint8 RGB.
            task: what the robot is told to do.

        Raises:
            DataError: a feature is missing or unknown, of another shape or type, or not finite. The step is then not
                added.
        """
        self._check_open()
        where = f"{self.path}: episode {len(self)}, step {len(self._step_tasks)}"
        unknown = sorted(set(frame) - set(self.features))
        if unknown:
            raise DataError(
                "no such feature", where=where, got=unknown[0], fix=did_you_mean(unknown[0], self.features)
            )
        if not isinstance(task, str) or not task:
            raise DataError("a step has no task", where=where, got=task, expected="a text")
        values = {}
        for name, feature in self.features.items():
            if name not in frame:
                raise DataError("a feature is missing", where=where, got=sorted(frame), expected=name)
            values[name] = checked_value(frame[name], feature, f"{where}: {name}")
        for name, value in values.items():
            kind = self.features[name].dtype
            if kind == "video":
                self._videos[name].add(value)
            self._columns[name].append(encode_png(value) if kind == "image" else value if kind != "video" else None)
            if self.features[name].is_camera:
                self._thumbnails[name].append(thumbnail(value))
        self._step_tasks.append(self._tasks.setdefault(task, len(self._tasks)))

    def add_sensor(self, name: str, times_s: np.ndarray, values: np.ndarray) -> None:
        """Add a series at a rate of its own to the episode, kept beside the data (`sensors/<name>/`).

        Args:
            name: of the folder.
            times_s: [N] seconds from the episode's first step, ascending.
            values: [N, C].

        Raises:
            DataError: shapes that do not fit, times that do not ascend, a value that is not finite, a name that a
                feature has, or a series given twice.
        """
        self._check_open()
        where = f"{self.path}: episode {len(self)}, sensor {name}"
        times, numbers = np.asarray(times_s, dtype=np.float64), np.asarray(values, dtype=np.float32)
        if name in self.features or name in self._sensors or not name.replace("_", "").replace(".", "").isalnum():
            raise DataError("no such name for a sensor", where=where, got=name, expected="a new name of letters")
        if times.ndim != 1 or numbers.ndim != 2 or len(times) != len(numbers) or not len(times):
            raise DataError(
                "not a sensor series", where=where, got=(times.shape, numbers.shape), expected="[N], [N, C]"
            )
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise DataError("sensor times do not ascend", where=where)
        if not np.isfinite(numbers).all():
            raise DataError(
                "a sensor value is not finite", where=where, got=f"sample {np.argwhere(~np.isfinite(numbers))[0][0]}"
            )
        self._sensors[name] = (times, numbers)

    def discard_episode(self) -> None:
        """Throw the steps since the last episode away."""
        self._check_open()
        for video in self._videos.values():
            video.discard()
        self._clear()

    def save_episode(self) -> int:
        """Keep the steps since the last episode as one, and return its number.

        Raises:
            DataError: there is no step.
        """
        self._check_open()
        index, length = len(self), len(self._step_tasks)
        if not length:
            raise DataError("the episode is empty", where=f"{self.path}: episode {index}", got="0 steps")
        columns = {name: np.stack(self._columns[name]) for name, one in self.features.items() if not one.is_camera}
        columns |= {
            "timestamp": (np.arange(length, dtype=np.float64) / self.fps).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, index),
            "index": np.arange(self._steps, self._steps + length),
            "task_index": np.array(self._step_tasks),
        }
        pictures = {name: self._columns[name] for name, one in self.features.items() if one.dtype == "image"}
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": [task for task, number in self._tasks.items() if number in self._step_tasks],
            "length": length,
            **{f"data/{key}": value for key, value in self._tables.add(columns, pictures).items()},
            "dataset_from_index": self._steps,
            "dataset_to_index": self._steps + length,
        }
        for name, video in self._videos.items():
            row |= {f"videos/{name}/{key}": value for key, value in video.keep().items()}
        for name, (times_s, values) in self._sensors.items():
            self._write_sensor(name, index, times_s, values)
        stats = episode_stats(columns, self._thumbnails)
        for name, entry in stats.items():
            row |= {f"stats/{name}/{key}": value.tolist() for key, value in entry.items()}
        self._episodes.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._stats.append(stats)
        self._steps += length
        self._clear()
        return index

    def finalize(self) -> Path:
        """Write the meta files and give the folder its name.

        Raises:
            DataError: no episode, or steps that were neither saved nor discarded. Nothing is left behind then.
        """
        self._check_open()
        try:
            if not self._episodes or self._step_tasks:
                raise DataError(
                    "no episode was saved"
                    if not self._episodes
                    else "the last episode was neither saved nor discarded",
                    where=str(self.path),
                    got=f"{len(self._step_tasks)} steps",
                    fix="Call save_episode().",
                )
            self._close_files()
            self._write_meta()
            if self.path.exists():
                self.path.rmdir()
            self._work.rename(self.path)
        except BaseException:
            self.abandon()
            raise
        return self.path

    def abandon(self) -> None:
        """Stop and leave nothing behind."""
        self._close_files()
        shutil.rmtree(self._work, ignore_errors=True)

    def _close_files(self) -> None:
        self._tables.close()
        for video in self._videos.values():
            video.close()

    def _check_open(self) -> None:
        if not self._work.exists():
            raise DataError("the writer is closed", where=str(self.path), fix="Open another one.")

    def _write_sensor(self, name: str, index: int, times_s: np.ndarray, values: np.ndarray) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._work / SENSOR_FILE.format(name=name, episode_index=index)
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = pa.array(values.reshape(-1))
        table = {
            TIME_COLUMN: pa.array(times_s),
            VALUE_COLUMN: pa.FixedSizeListArray.from_arrays(flat, values.shape[1]),
        }
        pq.write_table(pa.table(table), path)

    def _write_meta(self) -> None:
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._work / _EPISODES.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), path)
        frame = pd.DataFrame({"task_index": list(self._tasks.values())}, index=pd.Index(list(self._tasks)))
        frame.to_parquet(self._work / "meta/tasks.parquet")
        stats = {
            name: {
                key: value.astype(np.int64 if key == "count" else np.float64).tolist() for key, value in one.items()
            }
            for name, one in aggregate_stats(self._stats).items()
        }
        _write_json(self._work / "meta/stats.json", stats)
        info = {
            "codebase_version": "v3.0",
            "robot_type": self._robot_type,
            "total_episodes": len(self),
            "total_frames": self._steps,
            "total_tasks": len(self._tasks),
            "chunks_size": self._chunks_size,
            **self._limits,
            "fps": int(self.fps) if self.fps.is_integer() else self.fps,
            "splits": {"train": f"0:{len(self)}"},
            "data_path": _DATA,
            "video_path": _VIDEO if self._videos else None,
            "features": {name: feature_entry(one, self.fps) for name, one in (self.features | STEP_FEATURES).items()},
        }
        _write_json(self._work / "meta/info.json", info)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
