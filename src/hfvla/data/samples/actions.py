"""Time steps of robot episodes, as every action source yields them, and their `datasets` features.

A row holds numbers (state, action chunk) and points to what is large (pictures, sensor series): a data set of a
million steps fits into memory, and `FrameLoader` and `SensorLoader` read the rest when it is needed.

Shapes: S state channels, H horizon steps, A action channels, T sensor samples, C sensor channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = ["ActionSample", "FrameRef", "SensorRef", "action_features", "build_action_dataset"]


@dataclass(frozen=True)
class FrameRef:
    """Where one picture is.

    Attributes:
        path: of a video, of a picture, or of a parquet table or HDF5 file (.h5, .hdf5) that pictures are stored in.
        time_s: seconds from the video's first frame; None for anything else.
        column: of the table, or dataset of the HDF5 file; "" for a video and a picture.
        row: of the table or dataset, from 0; -1 for a video and a picture.
    """

    path: str
    time_s: float | None = None
    column: str = ""
    row: int = -1


@dataclass(frozen=True)
class SensorRef:
    """Where the window of a sensor series is that ends at a step's time, never later.

    A table holds one sample a row, its time beside it, or (with `rate_hz`) the same number of evenly spaced samples in
    every row, the last of the window taken at `end_s`.

    Attributes:
        path: parquet table.
        column: of the samples.
        first: number of the window's first sample in the table.
        count: samples in the window, at least 1; fewer than asked for where the series began too late.
        end_s: the step's time, seconds from the episode's start.
        rate_hz: of the samples; 0.0 when `time_column` tells their times.
        time_column: of the samples' times, seconds from the episode's start; "" when `rate_hz` tells them.
    """

    path: str
    column: str
    first: int
    count: int
    end_s: float
    rate_hz: float = 0.0
    time_column: str = ""


@dataclass(frozen=True, eq=False)
class ActionSample:
    """One time step of an episode.

    Attributes:
        episode: unique over all data sets of a mixture, e.g. "peg/episode_000004".
        index: of the step in its episode.
        timestamp: float64 seconds from the episode's start.
        task: what the robot is told to do.
        views: camera name to its picture at `timestamp`.
        state: [S] float32, in the robot's units; S = 0 when the source has none.
        actions: [H, A] float32, in the robot's units: this step's action and the next ones, zero past the end.
        action_mask: [H] bool; False past the episode's end.
        sensor: the series up to `timestamp`; None when the episode has no sensor.
        group: the episode: what must not cross a split.
        source: name of the reader or generator.
        details: further facts as strings, e.g. {"offset": "hidden"}.
        previous_action: [A] float32, the action of the step before this one in the recording, also where `stride` or
            a filter leaves that step out; None at an episode's first step.
    """

    episode: str
    index: int
    timestamp: float
    task: str
    views: dict[str, FrameRef]
    state: np.ndarray
    actions: np.ndarray
    action_mask: np.ndarray
    sensor: SensorRef | None = None
    group: str = ""
    source: str = ""
    details: dict[str, str] = field(default_factory=dict)
    previous_action: np.ndarray | None = None

    @property
    def id(self) -> str:
        """Unique name of the step: "episode:index"."""
        return f"{self.episode}:{self.index}"

    def to_row(self) -> dict[str, Any]:
        """Return a plain dict for `datasets` (arrays become lists, details one `key=value;...` string)."""
        return {
            "id": self.id,
            "episode": self.episode,
            "index": self.index,
            "timestamp": self.timestamp,
            "task": self.task,
            "views": [{"name": name, **vars(frame)} for name, frame in self.views.items()],
            "state": self.state.tolist(),
            "actions": self.actions.tolist(),
            "action_mask": self.action_mask.tolist(),
            "sensor": asdict(self.sensor) if self.sensor else None,
            "group": self.group or self.episode,
            "source": self.source,
            "details": ";".join(f"{key}={value}" for key, value in self.details.items()),
            "previous_action": [] if self.previous_action is None else self.previous_action.tolist(),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ActionSample:
        """Rebuild the sample of a row of `build_action_dataset`."""
        views = {view["name"]: FrameRef(**{k: v for k, v in view.items() if k != "name"}) for view in row["views"]}
        return cls(
            episode=row["episode"],
            index=row["index"],
            timestamp=row["timestamp"],
            task=row["task"],
            views=views,
            state=np.asarray(row["state"], dtype=np.float32),
            actions=np.asarray(row["actions"], dtype=np.float32),
            action_mask=np.asarray(row["action_mask"], dtype=bool),
            sensor=SensorRef(**row["sensor"]) if row["sensor"] else None,
            group=row["group"],
            source=row["source"],
            details=dict(part.split("=", 1) for part in row["details"].split(";") if part),
            previous_action=np.asarray(row["previous_action"], np.float32) if row.get("previous_action") else None,
        )


def action_features() -> Features:
    """Return the features of a step's row, the same for every source."""
    from datasets import Features, List, Value

    text, count, seconds, number = Value("string"), Value("int64"), Value("float64"), Value("float32")
    frame = {"name": text, "path": text, "time_s": seconds, "column": text, "row": count}
    series = {
        "path": text,
        "column": text,
        "first": count,
        "count": count,
        "end_s": seconds,
        "rate_hz": seconds,
        "time_column": text,
    }
    return Features(
        {
            "id": text,
            "episode": text,
            "index": count,
            "timestamp": seconds,
            "task": text,
            "views": List(frame),
            "state": List(number),
            "actions": List(List(number)),
            "action_mask": List(Value("bool")),
            "sensor": series,
            "group": text,
            "source": text,
            "details": text,
            "previous_action": List(number),
        }
    )


def build_action_dataset(samples: Iterable[ActionSample]) -> Dataset:
    """Put steps into an in-memory `datasets.Dataset` with `action_features`; also for none at all.

    Raises:
        DataError: a step's state, actions or mask has another shape than the first step's.
    """
    import pyarrow as pa
    from datasets import Dataset

    samples = list(samples)
    _check_shapes(samples)
    schema = action_features().arrow_schema
    arrays = ("state", "actions", "action_mask")
    columns: dict[str, Any] = {}
    for name in schema.names:
        if name in arrays:
            columns[name] = _list_column([getattr(sample, name) for sample in samples], schema.field(name).type)
        else:
            columns[name] = pa.array([_plain(sample, name) for sample in samples], type=schema.field(name).type)
    return Dataset(pa.table(columns, schema=schema))


def _plain(sample: ActionSample, name: str) -> Any:
    """One value of `to_row`, without turning the arrays into lists."""
    if name == "views":
        return [{"name": view, **vars(frame)} for view, frame in sample.views.items()]
    if name == "sensor":
        return vars(sample.sensor) if sample.sensor else None
    if name == "group":
        return sample.group or sample.episode
    if name == "details":
        return ";".join(f"{key}={value}" for key, value in sample.details.items())
    if name == "previous_action":
        return () if sample.previous_action is None else sample.previous_action
    return getattr(sample, name)


def _check_shapes(samples: Sequence[ActionSample]) -> None:
    for sample in samples:
        horizon = sample.action_mask.shape
        if sample.state.ndim != 1 or sample.actions.ndim != 2 or sample.actions.shape[:1] != horizon:
            raise DataError(
                "a step's arrays have impossible shapes",
                where=sample.id,
                got={"state": sample.state.shape, "actions": sample.actions.shape, "action_mask": horizon},
                expected="state [S], actions [H, A], action_mask [H]",
            )
        before = sample.previous_action
        if before is not None and before.shape != sample.actions.shape[1:]:
            raise DataError(
                "the action before a step has another shape than its actions", where=sample.id, got=before.shape,
                expected=sample.actions.shape[1:],
            )  # fmt: skip
        for name in ("state", "actions"):
            got, expected = getattr(sample, name).shape, getattr(samples[0], name).shape
            if got != expected:
                raise DataError(
                    f"{name} of another shape than in the first step", where=sample.id, got=got, expected=expected
                )


def _list_column(arrays: Sequence[np.ndarray], kind: Any) -> Any:
    """Make an Arrow list column of equally shaped arrays, without a Python object a number."""
    import pyarrow as pa

    if not arrays:
        return pa.array([], type=kind)
    stacked = np.stack(arrays)
    column = pa.array(np.ascontiguousarray(stacked).reshape(-1))
    for depth in range(stacked.ndim - 1, 0, -1):
        lists = int(np.prod(stacked.shape[:depth]))
        column = pa.ListArray.from_arrays(np.arange(lists + 1, dtype=np.int32) * stacked.shape[depth], column)
    return column.cast(kind)
