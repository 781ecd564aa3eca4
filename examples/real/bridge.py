"""Real robot episodes with instructions (BridgeData V2), from RLDS files to a LeRobot data set.

The files are those of RLDS (`<name>-<split>.tfrecord-*`), which Open X-Embodiment, OpenVLA and Octo use. They are read
without TensorFlow: a record is its length, a checksum, a `tf.train.Example` and a checksum. No package carries them;
`--bridge` names their folder, such as the debug data set in the sources of Octo: 25 episodes of ten steps with four
instructions.

Whole episodes are held out, a fifth of those of each instruction; another seed holds out others.
"""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hfvla.data.sources.lerobot import LeRobotWriter

FPS, HORIZON, TEST_SHARE = 5, 4, 0.2
MOTION = ("x_m", "y_m", "z_m", "roll_rad", "pitch_rad", "yaw_rad")
CHANNELS = (*MOTION, "gripper")
_LENGTH, _CHECKSUM = 8, 4  # bytes around a record
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types of protocol buffers


def records(file: Path) -> Iterator[bytes]:
    """Yield the records of a tfrecord file.

    Raises:
        ValueError: the file ends inside a record.
    """
    with file.open("rb") as opened:
        while head := opened.read(_LENGTH + _CHECKSUM):
            size = struct.unpack("<Q", head[:_LENGTH])[0] if len(head) == _LENGTH + _CHECKSUM else -1
            body = opened.read(max(size, 0) + _CHECKSUM)
            if len(body) != size + _CHECKSUM:
                raise ValueError(f"{file}: it ends inside a record")
            yield body[:size]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, place


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of each field of a message: bytes, or an integer."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        size = {_EIGHT: 8, _FOUR: 4}.get(kind)
        if kind == _BYTES:
            size, place = _varint(data, place)
        if size is None:
            raise ValueError(f"no such wire type in a record: {kind}")
        yield tag >> 3, data[place : place + size]
        place += size


def example(record: bytes) -> dict[str, list[bytes] | np.ndarray]:
    """Return the features of a `tf.train.Example`: lists of bytes, and arrays of float32 or int64."""
    found: dict[str, list[bytes] | np.ndarray] = {}
    features = next(value for number, value in _fields(record) if number == 1)
    for _, entry in _fields(features):
        named = dict(_fields(entry))
        kind, values = next(_fields(named[2]), (1, b""))
        parts = [value for _, value in _fields(values)]
        if kind == 1:
            found[named[1].decode()] = parts
        elif kind == 2:
            found[named[1].decode()] = np.frombuffer(b"".join(parts), "<f4")
        else:
            found[named[1].decode()] = np.array([one for part in parts for one in _integers(part)])
    return found


def _integers(part: int | bytes) -> Iterator[int]:
    place = 0
    if isinstance(part, int):
        yield part
        return
    while place < len(part):
        value, place = _varint(part, place)
        yield value


def build_bridge(source: Path, target: Path) -> Path:
    """Write the episodes of a folder of RLDS files as a LeRobot data set, pictures unchanged; a whole one is kept.

    Args:
        source: folder of `*.tfrecord-*`.
        target: folder to make.

    Raises:
        ValueError: there are no such files.
    """
    if (target / "meta" / "info.json").is_file():
        return target
    files = sorted(source.glob("*train.tfrecord-*"))
    if not files:
        raise ValueError(f"{source}: no *train.tfrecord-* in it")
    numbers = {"dtype": "float32", "shape": (len(CHANNELS),), "names": list(CHANNELS)}
    episodes = [example(record) for file in files for record in records(file)]
    side = Image.open(io.BytesIO(episodes[0]["steps/observation/image_0"][0])).size[0]
    camera = {"dtype": "image", "shape": (side, side, 3)}
    features = {"observation.images.front": camera, "observation.state": numbers, "action": numbers}
    with LeRobotWriter(target, fps=FPS, features=features, robot_type="widowx") as writer:
        for episode in episodes:
            pictures = episode["steps/observation/image_0"]
            said = episode["steps/language_instruction"]
            state, action = (
                np.asarray(episode[f"steps/{name}"]).reshape(len(pictures), len(CHANNELS))
                for name in ("observation/state", "action")
            )
            for step, picture in enumerate(pictures):
                with Image.open(io.BytesIO(picture)) as opened:
                    shown = np.asarray(opened.convert("RGB"))
                frame = {"observation.images.front": shown, "observation.state": state[step], "action": action[step]}
                writer.add_frame(frame, task=said[step].decode())
            writer.save_episode()
    return target


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the steps of all episodes, as `sensor_vla` reads them."""
    from hfvla.data.sources.lerobot import LeRobotOptions, build_lerobot

    return [dict(row) for row in build_lerobot(LeRobotOptions(path=str(folder), horizon=HORIZON)).dataset]


def episode_of(row: Mapping[str, Any]) -> int:
    """Return the number of a row's episode."""
    return int(str(row["group"]).rsplit("episode_", 1)[-1])


def split_episodes(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, list[int]]:
    """Divide episodes into "train" and "test": a fifth of those of each instruction, at least one."""
    tasks: dict[str, set[int]] = {}
    for row in rows:
        tasks.setdefault(row["task"], set()).add(episode_of(row))
    test: list[int] = []
    for task, numbers in sorted(tasks.items()):
        own = sorted(numbers)
        random.Random(f"bridge/{seed}/{task}").shuffle(own)
        test += own[: max(1, round(TEST_SHARE * len(own)))]
    return {"train": sorted({episode_of(row) for row in rows} - set(test)), "test": sorted(test)}
