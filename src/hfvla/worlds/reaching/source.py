"""The data source `reaching`: episodes drawn once into a LeRobot data set, then read like any other."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.sources.lerobot import LeRobotOptions, LeRobotWriter, build_lerobot
from hfvla.data.sources.lerobot.sensors import SensorOptions
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.paths import UserPath
from hfvla.worlds.reaching.episodes import FPS, SENSOR_HZ, draw_episode
from hfvla.worlds.versions import source_version

__all__ = ["ReachingOptions", "build_reaching", "count_reaching"]

logger = logging.getLogger(__name__)

_SENSOR = "force"


class ReachingOptions(BaseModel):
    """What a recipe may say about drawn reaching episodes.

    Attributes:
        episodes: how many.
        steps: of each.
        image_size: side of the pictures in pixels; a multiple of 4.
        horizon: actions a chunk.
        with_sensor: share of the episodes that have a sensor, the first ones.
        window_s: seconds of the sensor window.
        seed: of the data set; the run's when absent.
        folder: where the data set is kept; by default beside the hub's cache.
    """

    model_config = ConfigDict(extra="forbid")

    episodes: int = Field(default=16, ge=1)
    steps: int = Field(default=16, ge=2)
    image_size: int = Field(default=32, ge=16, multiple_of=4)
    horizon: int = Field(default=4, ge=1)
    with_sensor: float = Field(default=0.75, ge=0.0, le=1.0)
    window_s: float = Field(default=0.04, gt=0.0)
    seed: int | None = None
    folder: UserPath | None = None


def count_reaching(options: ReachingOptions) -> int:
    """Return how many rows `build_reaching` will yield, without drawing them."""
    return options.episodes * options.steps


def build_reaching(options: ReachingOptions, *, seed: int = 0) -> SourceData:
    """Draw the episodes unless they are on disk, and read them.

    Args:
        options: see `ReachingOptions`.
        seed: of the run, unless the options have their own.

    Returns:
        `SourceData`: see `hfvla.data.sources.lerobot.build_lerobot`; its census has the "folder".

    Raises:
        DataError: the folder cannot be written.
    """
    seed = options.seed if options.seed is not None else seed
    folder = _folder(options, seed)
    if not (folder / "meta" / "info.json").exists():
        try:
            _write(folder, options, seed)
        except (DataError, OSError) as error:
            if not (folder / "meta" / "info.json").exists():  # another process has not written it meanwhile
                if isinstance(error, DataError):
                    raise
                raise DataError("drawn episodes cannot be written", where=str(folder),
                                got=error.strerror or str(error)) from error  # fmt: skip
    found = build_lerobot(
        LeRobotOptions(
            path=str(folder),
            horizon=options.horizon,
            sensor=SensorOptions(name=_SENSOR, window_s=options.window_s) if _sensors(options) else None,
        )
    )
    return SourceData(found.dataset, {**found.census, "folder": str(folder)}, found.rejected)


def _sensors(options: ReachingOptions) -> int:
    """Return how many episodes have a sensor."""
    return round(options.with_sensor * options.episodes)


def _folder(options: ReachingOptions, seed: int) -> Path:
    drawn = {"seed": seed, "version": source_version(__file__)}
    drawn |= {name: getattr(options, name) for name in ("episodes", "steps", "image_size", "with_sensor")}
    key = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:12]
    if options.folder is None:
        from huggingface_hub.constants import HF_HOME

        root = Path(HF_HOME) / "hfvla" / "reaching"
    else:
        root = Path(options.folder)
    return root.expanduser().absolute() / f"{seed}-{key}"


def _write(folder: Path, options: ReachingOptions, seed: int) -> None:
    size = options.image_size
    numbers = {"dtype": "float32", "shape": (4,)}
    camera = {"dtype": "image", "shape": (size, size, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.state": {**numbers, "names": ["x", "y", "height", "opening"]},
        "action": {**numbers, "names": ["dx", "dy", "dheight", "gripper"]},
        "observation.images.front": camera,
        "observation.images.wrist": camera,
    }
    with LeRobotWriter(folder, fps=FPS, features=features, robot_type="drawn") as writer:
        for index in range(options.episodes):
            task, steps = draw_episode(seed, index, size, options.steps)
            series = []
            for step in steps:
                frame = {f"observation.images.{view}": picture for view, picture in step.views.items()}
                writer.add_frame({**frame, "observation.state": step.state, "action": step.action}, task)
                series.append(step.sensor)
            if index < _sensors(options):
                values = np.concatenate(series)
                per_step = len(series[0])
                times_s = (np.arange(len(values)) - (per_step - 1)) / SENSOR_HZ  # the last of a step at its time
                started = times_s >= 0  # so that the first windows are short, as on a robot
                writer.add_sensor(_SENSOR, times_s[started], values[started])
            writer.save_episode()
    logger.info("drew %d reaching episodes into %s", options.episodes, folder)
