"""Records demonstrations of the insertion task as a LeRobot v3.0 data set."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from hfvla.data.signals.observation import Observation
from hfvla.data.sources.lerobot import LeRobotWriter
from hfvla.errors import DataError
from hfvla.worlds.insertion.cameras import VIEWS
from hfvla.worlds.insertion.environment import (
    IMAGE_SIZE,
    SENSOR_NOISE,
    TASK,
    InsertionEnv,
    SensorNoise,
    Start,
    Variant,
)
from hfvla.worlds.insertion.expert import Demonstrator

__all__ = [
    "ACTION_NOISE_M",
    "SENSOR_NAME",
    "SUMMARY_FILE",
    "Recording",
    "Split",
    "evaluation_seeds",
    "record",
    "recording_seed",
]

logger = logging.getLogger(__name__)

Split = Literal["train", "test"]

SENSOR_NAME = "wrench"
SUMMARY_FILE = "meta/insertion.json"
ACTION_NOISE_M = 0.0015
_EVALUATION, _PER_SEED, _PER_SPLIT = 1_000_000, 100_000, 50_000
_MAX_FAILED_SHARE = 0.5
_VIDEO = {"preset": "superfast", "crf": "14"}


@dataclass(frozen=True)
class Recording:
    """What a recording holds.

    Attributes:
        path: of the data set.
        episodes: demonstrations kept, all of them successes.
        steps: of these.
        failed: demonstrations thrown away.
        seeds: of the episodes kept, in their order.
        directions: of the hidden offset in each; "" without one.
        seconds: that recording took.
        megabytes: on disk.
    """

    path: str
    episodes: int
    steps: int
    failed: int
    seeds: list[int]
    directions: list[str]
    seconds: float
    megabytes: float


def evaluation_seeds(count: int, first: int = 0) -> list[int]:
    """Return seeds of episodes that no recording ever uses.

    Raises:
        DataError: the seeds would leave their range.
    """
    if count < 1 or first < 0 or first + count > _EVALUATION:
        raise DataError("no such evaluation seeds", where="insertion", got=(first, count),
                        expected=f"1 or more within 0 to {_EVALUATION - 1}")  # fmt: skip
    return list(range(first, first + count))


def recording_seed(seed: int, split: Split, attempt: int) -> int:
    """Return the seed of one demonstration: another for every recording seed, split and attempt.

    Raises:
        DataError: a negative seed, or too many attempts.
    """
    if seed < 0 or not 0 <= attempt < _PER_SPLIT:
        raise DataError("no such recording seed", where="insertion", got=(seed, attempt),
                        expected=f"seed >= 0, at most {_PER_SPLIT} demonstrations")  # fmt: skip
    return _EVALUATION + seed * _PER_SEED + (_PER_SPLIT if split == "test" else 0) + attempt


def record(
    path: str | os.PathLike[str],
    episodes: int,
    *,
    variant: Variant = "plain",
    start: Start = "grasped",
    image_size: int = IMAGE_SIZE,
    views: tuple[str, ...] = tuple(VIEWS),
    seed: int = 0,
    split: Split = "train",
    sensor_noise: SensorNoise | None = SENSOR_NOISE,
    action_noise_m: float = ACTION_NOISE_M,
    progress: bool | None = None,
) -> Recording:
    """Record demonstrations; the same arguments give the same data set to the byte.

    Executed actions carry noise and recorded ones do not (DART, Laskey et al. 2017), so that the data set tells how
    to come back from small errors.

    Args:
        path: folder that must not exist yet.
        episodes: successes to record.
        variant: see `InsertionEnv`.
        start: see `InsertionEnv`.
        image_size: pixels a side; even.
        views: cameras.
        seed: of the recording.
        split: recordings of one seed share no episode between "train" and "test".
        sensor_noise: None for none.
        action_noise_m: standard deviation a control step and axis.
        progress: show a bar with the time left; None where there is a terminal.

    Raises:
        DataError: the folder is there already, no such view, or more than half of the demonstrations fail.
        MissingExtraError: metaworld, mujoco or PyAV is not installed.
        HfvlaError: the machine has no library that draws.
    """
    began = time.perf_counter()
    kept: list[int] = []
    directions: list[str] = []
    steps = attempt = 0
    bar = tqdm(
        total=episodes, desc=f"record {variant}", unit="episode", disable=None if progress is None else not progress
    )
    writer = LeRobotWriter(
        path,
        fps=InsertionEnv.control_hz,
        features=_features(image_size, views),
        robot_type="sawyer",
        video_settings=_VIDEO,
    )
    with writer, InsertionEnv(variant, start, image_size=image_size, views=views, noise=sensor_noise) as env, bar:
        demonstrator = Demonstrator()
        while len(kept) < episodes:
            one = recording_seed(seed, split, attempt)
            attempt += 1
            length = _demonstrate(env, demonstrator, writer, one, action_noise_m)
            if not length:
                writer.discard_episode()
                _refuse_if_failing(attempt - len(kept), attempt, f"insertion, {variant}, {start}")
                continue
            writer.save_episode()
            kept.append(one)
            directions.append(env.direction)
            steps += length
            bar.update()
    result = _summarise(
        Path(path), began, Recording("", len(kept), steps, attempt - len(kept), kept, directions, 0, 0)
    )
    logger.info("recorded %d episodes (%s, %s start, %d steps, %d failed) in %.1f s, %.1f MB, in %s", result.episodes,
                variant, start, result.steps, result.failed, result.seconds, result.megabytes, path)  # fmt: skip
    return result


def _refuse_if_failing(failed: int, attempts: int, where: str) -> None:
    if failed > max(3, _MAX_FAILED_SHARE * attempts):
        raise DataError("demonstrations fail", where=where, got=f"{failed} of {attempts}")


def _features(image_size: int, views: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    camera = {"dtype": "video", "shape": (image_size, image_size, 3)}
    return {
        "observation.state": {"dtype": "float32", "shape": (4,), "names": ["x", "y", "z", "gripper"]},
        "action": {"dtype": "float32", "shape": (4,), "names": ["dx", "dy", "dz", "gripper"]},
        **{f"observation.images.{name}": camera for name in views},
    }


def _summarise(path: Path, began: float, found: Recording) -> Recording:
    """Write what was recorded beside the data set's own meta files; without the time, which differs every time."""
    facts = {name: value for name, value in asdict(found).items() if name not in ("path", "seconds", "megabytes")}
    (path / SUMMARY_FILE).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Recording(**{**facts, "path": str(path), "seconds": time.perf_counter() - began, "megabytes": size / 1e6})


def _demonstrate(
    env: InsertionEnv, demonstrator: Demonstrator, writer: LeRobotWriter, seed: int, noise_m: float
) -> int:
    """Add one episode's steps to the writer, and return how many; 0 when the demonstrator failed."""
    disturb = np.random.default_rng([seed, 4])
    now, done, success = env.reset(seed), False, False
    demonstrator.reset(seed)
    last_s = 0.0
    while not done:
        action = demonstrator.act(env)
        writer.add_frame(_frame(now, action), TASK)
        last_s = now.time_s
        executed = action.astype(np.float64)
        executed[:3] += noise_m * disturb.normal(size=3)
        now, done, info = env.step(executed)
        success = info["success"]
    if not success:
        return 0
    series = env.sensor
    until = int(np.searchsorted(series.times_s, last_s, side="right"))
    writer.add_sensor(SENSOR_NAME, series.times_s[:until], series.values[:until])
    return env.steps


def _frame(now: Observation, action: np.ndarray) -> dict[str, np.ndarray]:
    views = {f"observation.images.{name}": picture for name, picture in now.views.items()}
    return {"observation.state": now.state, "action": action, **views}
