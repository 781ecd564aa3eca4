"""Insertion demonstrations as a source of a recipe: recorded once, kept on disk, read like any LeRobot data set."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.sources.lerobot import LeRobotOptions, build_lerobot, count_lerobot
from hfvla.data.sources.lerobot.sensors import SensorOptions
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.paths import UserPath
from hfvla.worlds.insertion.cameras import VIEWS
from hfvla.worlds.insertion.environment import IMAGE_SIZE, WINDOW_S, Start, Variant
from hfvla.worlds.insertion.recording import ACTION_NOISE_M, SENSOR_NAME, SUMMARY_FILE, Split, record
from hfvla.worlds.versions import source_version

__all__ = ["InsertionOptions", "build_insertion", "count_insertion", "ensure_recording"]

logger = logging.getLogger(__name__)

_USUAL_STEPS = {
    ("plain", "grasped"): 25,
    ("plain", "table"): 53,
    ("hidden_offset", "grasped"): 31,
    ("hidden_offset", "table"): 59,
}
"""Control steps of a demonstration, the mean of 100."""


class InsertionOptions(BaseModel):
    """What a recipe may say about demonstrations of the insertion task.

    Attributes:
        episodes: demonstrations, all of them successes.
        variant: "plain", or "hidden_offset" with a hole that lies beside where it is seen.
        start: "grasped": the peg is in the hand; "table": it lies on the table.
        split: "train" and "test" share no episode; closed-loop evaluation has seeds of its own beside both.
        seed: overrides the run's seed.
        image_size: pixels a side; even.
        views: cameras to read, all of which are recorded; both when absent.
        horizon: actions a chunk.
        stride: take every n-th step.
        sensor: read the force and torque series.
        window_s: of the sensor before each step.
        action_noise_m: on executed actions, never on recorded ones.
        folder: where recordings are kept, each set of options in a subfolder; by default beside the hub's cache.
    """

    model_config = ConfigDict(extra="forbid")

    episodes: int = Field(default=200, ge=1, le=20_000)
    variant: Variant = "plain"
    start: Start = "grasped"
    split: Split = "train"
    seed: int | None = Field(default=None, ge=0)
    image_size: int = Field(default=IMAGE_SIZE, ge=32, le=640, multiple_of=2)
    views: list[str] | None = Field(default=None, min_length=1)
    horizon: int = Field(default=8, ge=1)
    stride: int = Field(default=1, ge=1)
    sensor: bool = True
    window_s: float = Field(default=WINDOW_S, gt=0.0)
    action_noise_m: float = Field(default=ACTION_NOISE_M, ge=0.0, le=0.01)
    folder: UserPath | None = None


def _folder(options: InsertionOptions, seed: int) -> Path:
    names = ("episodes", "variant", "start", "split", "image_size", "action_noise_m")
    facts = {name: getattr(options, name) for name in names} | {"seed": seed, "version": source_version(__file__)}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    if options.folder is None:
        from huggingface_hub.constants import HF_HOME

        root = Path(HF_HOME) / "hfvla" / "insertion"
    else:
        root = Path(options.folder)
    return root.expanduser().absolute() / f"{options.variant}-{options.start}-{options.split}-{seed}-{key}"


def ensure_recording(options: InsertionOptions, *, seed: int = 0) -> Path:
    """Return the folder of these options' recording, made now unless it is there.

    Args:
        options: see `InsertionOptions`.
        seed: of the run, unless the options have their own.

    Raises:
        DataError: the folder cannot be written, or the demonstrations fail.
        MissingExtraError: metaworld, mujoco or PyAV is not installed.
        HfvlaError: the machine has no library that draws.
    """
    seed = options.seed if options.seed is not None else seed
    folder = _folder(options, seed)
    if (folder / SUMMARY_FILE).exists():
        return folder
    # Recorded under a name of its own, so that a recording that is there is whole.
    work = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        record(
            work,
            options.episodes,
            variant=options.variant,
            start=options.start,
            image_size=options.image_size,
            seed=seed,
            split=options.split,
            action_noise_m=options.action_noise_m,
        )
        if not (folder / SUMMARY_FILE).exists():  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
    except OSError as error:
        if not (folder / SUMMARY_FILE).exists():
            raise DataError("demonstrations cannot be recorded", where=str(folder), got=error.strerror or str(error),
                            fix="Name another folder in the source's options, or make room.") from error  # fmt: skip
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _lerobot_options(options: InsertionOptions, folder: Path) -> LeRobotOptions:
    sensor = SensorOptions(name=SENSOR_NAME, window_s=options.window_s) if options.sensor else None
    return LeRobotOptions(
        path=str(folder), horizon=options.horizon, stride=options.stride, views=options.views or list(VIEWS),
        sensor=sensor,
    )  # fmt: skip


def count_insertion(options: InsertionOptions) -> int:
    """Return how many rows `build_insertion` yields; an estimate while the recording is not on disk.

    Raises:
        DataError: the recording is on disk and broken.
    """
    folder = _folder(options, options.seed or 0)
    if (folder / SUMMARY_FILE).exists():
        return count_lerobot(_lerobot_options(options, folder))
    return options.episodes * -(-_USUAL_STEPS[options.variant, options.start] // options.stride)


def build_insertion(options: InsertionOptions, *, seed: int = 0) -> SourceData:
    """Read demonstrations into rows (`action_features`), recorded now unless they are on disk.

    Args:
        options: see `InsertionOptions`.
        seed: of the run, unless the options have their own.

    Returns:
        `SourceData`; the group of a row is its episode, its details name the environment to run a
        policy in. The census has, beside LeRobot's, "failed" demonstrations,
        "directions" of the hidden offset and "folder".

    Raises:
        DataError: the folder cannot be written, no such view, or the demonstrations fail.
        MissingExtraError: metaworld, mujoco or PyAV is not installed.
        HfvlaError: the machine has no library that draws.
    """
    folder = ensure_recording(options, seed=seed)
    data = build_lerobot(_lerobot_options(options, folder))
    facts: dict[str, Any] = json.loads((folder / SUMMARY_FILE).read_text("utf-8"))
    census = {
        **data.census,
        "failed": facts["failed"],
        "directions": dict(sorted(Counter(facts["directions"]).items())),
        "folder": str(folder),
    }
    logger.info("insertion demonstrations (%s, %s): %d episodes, %d steps, in %s", options.variant, options.split,
                facts["episodes"], facts["steps"], folder)  # fmt: skip
    told = f"environment=insertion;variant={options.variant};start={options.start};image_size={options.image_size}"
    rows = data.dataset.remove_columns("details").add_column("details", [told] * data.dataset.num_rows)
    return SourceData(rows, census, data.rejected)
