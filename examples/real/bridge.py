"""Real robot episodes with instructions (BridgeData V2), from RLDS files to a LeRobot data set.

The files are those of RLDS (`<name>-<split>.tfrecord-*`), which Open X-Embodiment, OpenVLA and Octo use. They are read
without TensorFlow: a record is its length, a checksum, a `tf.train.Example` and a checksum, and protobuf reads the
message. No package carries them;
`--bridge` names their folder, such as the debug data set in the sources of Octo: 25 episodes of ten steps with four
instructions.

Whole episodes are held out, a fifth of those of each instruction; another seed holds out others.
"""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from PIL import Image

from hfvla.data.sources.lerobot import LeRobotWriter

FPS, HORIZON, TEST_SHARE = 5, 4, 0.2
MOTION = ("x_m", "y_m", "z_m", "roll_rad", "pitch_rad", "yaw_rad")
CHANNELS = (*MOTION, "gripper")
_LENGTH, _CHECKSUM = 8, 4  # bytes around a record
_EXAMPLE = """
name: "rlds_example.proto" package: "rlds" syntax: "proto3"
message_type { name: "BytesList" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "FloatList" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "Int64List" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Int64List" oneof_index: 0 }
}
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "FeatureEntry" }
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Feature" }
  }
}
message_type { name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Features" }
}
"""  # tensorflow/core/example/example.proto and feature.proto


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


@cache
def example_class() -> type[Message]:
    """Return `tf.train.Example`, which protobuf makes of its description."""
    described = text_format.Parse(_EXAMPLE, FileDescriptorProto())
    pool = DescriptorPool()  # its own: where TensorFlow is there, it has registered the same name elsewhere
    pool.Add(described)
    return GetMessageClass(pool.FindMessageTypeByName("rlds.Example"))


def example(record: bytes) -> dict[str, list[bytes] | np.ndarray]:
    """Return the features of a `tf.train.Example`: lists of bytes, and arrays of float32 or int64.

    Raises:
        ValueError: the bytes are no such message.
    """
    try:
        features = example_class().FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(f"a record is no tf.train.Example: {error}") from error
    found: dict[str, list[bytes] | np.ndarray] = {}
    for name, feature in features.items():
        if feature.HasField("float_list"):
            found[name] = np.array(feature.float_list.value, dtype=np.float32)
        elif feature.HasField("int64_list"):
            found[name] = np.array(feature.int64_list.value, dtype=np.int64)
        else:
            found[name] = list(feature.bytes_list.value)
    return found


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
