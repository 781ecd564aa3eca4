"""Robot episodes of any reader as a LeRobot v3.0 set: cameras, state, actions, task, the sensor at its own rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.samples.actions import ActionSample
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.errors import DataError

__all__ = ["convert_episodes", "is_episodes"]

_CLOCK_S = 2e-3
_SENSOR = "sensor"


def is_episodes(rows: Any) -> bool:
    """Tell whether rows are steps of robot episodes."""
    return {"episode", "views", "actions", "action_mask"} <= set(getattr(rows, "column_names", ()))


def convert_episodes(rows: Any, output: str | Path, where: str = "rows", lossless: bool = False) -> dict[str, Any]:
    """Write episodes into a new LeRobot folder, which appears when it is complete.

    Args:
        rows: steps, map-style, episode after episode; every step of an episode, at one rate.
        output: folder, new or empty.
        where: names the rows in errors.
        lossless: cameras as PNG in the tables, in place of videos.

    Returns:
        `dict`: "output", "to", "episodes", "rows", "fps", "cameras", "sensor_samples".

    Raises:
        DataError: steps at another rate, episodes with other cameras, an action that is not there, or windows of a
            sensor that leave samples out.
    """
    from hfvla.data.sources.lerobot import LeRobotWriter

    if not len(rows):
        raise DataError("there is no episode to write", where=where)
    loader, sensors = FrameLoader(), SensorLoader()
    first = ActionSample.from_row(rows[0])
    fps = _rate(rows, where)
    features = _features(first, loader.load(list(first.views.values())), lossless)
    counts = {"episodes": 0, "rows": 0, "sensor_samples": 0}
    with LeRobotWriter(output, fps=fps, features=features) as writer:
        for name, samples in groupby(_samples(rows), key=lambda sample: sample.episode):
            steps = list(samples)
            _check_steps(steps, fps, f"{where}, episode {name}")
            for step in steps:
                pictures = loader.load(list(step.views.values()))
                frame = {f"observation.images.{view}": one for view, one in zip(step.views, pictures, strict=True)}
                frame |= {"observation.state": step.state} if len(step.state) else {}
                writer.add_frame({**frame, "action": step.actions[0]}, task=step.task)
            series = _series(steps, sensors, f"{where}, episode {name}")
            if series is not None:
                writer.add_sensor(_SENSOR, *series)
                counts["sensor_samples"] += len(series[0])
            writer.save_episode()
            counts["episodes"] += 1
            counts["rows"] += len(steps)
    return {"output": str(output), "to": "lerobot", **counts, "fps": fps, "cameras": list(first.views)}


def _samples(rows: Any) -> Iterator[ActionSample]:
    return (ActionSample.from_row(row) for row in rows)


def _rate(rows: Any, where: str) -> float:
    """Return the steps a second of the first episode that has two."""
    names, times = rows["episode"], rows["timestamp"]
    gaps = [
        times[number + 1] - times[number]
        for number in range(min(len(times) - 1, 1000))
        if names[number] == names[number + 1]
    ]
    if not gaps or min(gaps) <= 0:
        raise DataError("no episode has two steps in the order of time", where=where)
    return round(1 / float(np.median(gaps)), 3)


def _features(first: ActionSample, pictures: Sequence[np.ndarray], lossless: bool) -> dict[str, Any]:
    kind = "image" if lossless else "video"
    features: dict[str, Any] = {
        f"observation.images.{view}": {"dtype": kind, "shape": picture.shape}
        for view, picture in zip(first.views, pictures, strict=True)
    }
    if len(first.state):
        features["observation.state"] = {"dtype": "float32", "shape": first.state.shape}
    return {**features, "action": {"dtype": "float32", "shape": first.actions.shape[1:]}}


def _check_steps(steps: Sequence[ActionSample], fps: float, where: str) -> None:
    for number, step in enumerate(steps):
        expected = steps[0].timestamp + number / fps
        if abs(step.timestamp - expected) > _CLOCK_S:
            raise DataError(
                f"step {number} is not at the rate of the set",
                where=where,
                got=f"{step.timestamp:.4f} s",
                expected=f"{expected:.4f} s at {fps:g} steps a second",
                fix="Read it with stride 1 and the fps of its clock.",
            )
        if not step.action_mask[0]:
            raise DataError(f"step {number} has no action of its own", where=where)


def _series(steps: Sequence[ActionSample], sensors: SensorLoader, where: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the whole series that the steps' windows cover: times [N] from the first step, values [N, C]."""
    refs = [step.sensor for step in steps if step.sensor is not None]
    if not refs:
        return None
    times, values, following = [], [], refs[0].first
    for ref in refs:
        if ref.first > following:
            raise DataError(
                "the windows of the sensor leave samples out between two steps",
                where=where,
                got=f"sample {following} to {ref.first}",
                fix="Read it with a window_s of at least the time from one step to the next.",
            )
        new = ref.first + ref.count - following
        if new > 0:
            window = sensors.load(ref)
            times.append(window.times_s[-new:])
            values.append(window.values[-new:])
            following += new
    return np.concatenate(times) - steps[0].timestamp, np.concatenate(values)
