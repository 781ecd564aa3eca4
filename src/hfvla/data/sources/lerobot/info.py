"""What a LeRobot data set says about itself: meta/info.json of versions v2.0, v2.1 and v3.0."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from hfvla.data.sources.json_files import parse_json, read_text, text_lines
from hfvla.errors import DataError

__all__ = ["VERSIONS", "DatasetInfo", "Feature", "load_info", "load_json", "load_json_lines"]

VERSIONS = ("v2.0", "v2.1", "v3.0")
"""Formats that can be read; v3.0 is also written."""

_INFO = "meta/info.json"
_FIX = "Is this the folder of a LeRobot data set (it holds meta/, data/ and videos/)?"
_FIELD = re.compile(r"[a-z_]+:(0?\d{1,2}d?)?")  # a width of millions would fill the memory
_PATH_FIELDS = {
    "v2": {"episode_chunk": 0, "episode_index": 0, "video_key": "k"},
    "v3": {"chunk_index": 0, "file_index": 0, "video_key": "k"},
}


@dataclass(frozen=True)
class Feature:
    """One column of the episodes.

    Attributes:
        dtype: "float32", "int64", "bool", "string", ..., or "video" or "image".
        shape: of one step; (H, W, 3) or (3, H, W) of a camera.
        names: of the channels, as the file has them; None when it has none.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    @property
    def is_camera(self) -> bool:
        """Whether the steps are pictures."""
        return self.dtype in ("video", "image")


@dataclass(frozen=True)
class DatasetInfo:
    """Content of meta/info.json.

    Attributes:
        version: one of `VERSIONS`.
        fps: steps and video frames a second.
        episodes: how many it names; fewer may be on disk.
        frames: steps of all of them.
        chunks_size: v2: episodes a folder; v3: files a folder.
        data_path: template of the tables' paths.
        video_path: template of the videos' paths; "" when there is no video.
        features: by name.
        robot_type: "" when not told.
    """

    version: str
    fps: float
    episodes: int
    frames: int
    chunks_size: int
    data_path: str
    video_path: str
    features: dict[str, Feature]
    robot_type: str = ""

    @property
    def cameras(self) -> list[str]:
        """Names of the features that are pictures."""
        return [name for name, feature in self.features.items() if feature.is_camera]


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: missing, unreadable, not UTF-8, or not JSON (names line and column).
    """
    return parse_json(read_text(path, fix=_FIX), str(path))


def load_json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read a JSON-lines file of objects as ("file:line", object) pairs; blank lines are passed over.

    Raises:
        DataError: as `load_json`, or a line is no object.
    """
    for number, line in text_lines(read_text(path, fix=_FIX)):
        entry = parse_json(line, str(path), line=number)
        if not isinstance(entry, Mapping):
            raise DataError("not an object", where=f"{path}:{number}", got=type(entry).__name__)
        yield f"{path}:{number}", entry


def load_info(root: Path) -> DatasetInfo:
    """Read meta/info.json.

    Raises:
        DataError: missing or broken file, another version, or a value that cannot be (one error, naming the key).
    """
    path = root / _INFO
    content = load_json(path)
    if not isinstance(content, Mapping):
        raise DataError("not an object", where=str(path), got=type(content).__name__)
    version = content.get("codebase_version")
    if version not in VERSIONS:
        raise DataError(
            "another version of the format",
            where=f"{path}: codebase_version",
            got=version,
            expected=f"one of {', '.join(VERSIONS)}",
            fix="Convert it with the scripts of the lerobot package.",
        )
    features = _features(content, path)
    has_video = any(feature.dtype == "video" for feature in features.values())
    return DatasetInfo(
        version=version,
        fps=_number(content, "fps", path, positive=True),
        episodes=int(_number(content, "total_episodes", path)),
        frames=int(_number(content, "total_frames", path)),
        chunks_size=int(_number(content, "chunks_size", path, positive=True)),
        data_path=_template(content, "data_path", version, path),
        video_path=_template(content, "video_path", version, path) if has_video else "",
        features=features,
        robot_type=str(content.get("robot_type") or ""),
    )


def _number(content: Mapping[str, Any], key: str, path: Path, *, positive: bool = False) -> float:
    value: Any = content.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**62  # NaN is not either
    if not good or value < 0 or (positive and value == 0):
        raise DataError(
            "no such number", where=f"{path}: {key}", got=value, expected="above 0" if positive else "0 or more"
        )
    return float(value)


def _template(content: Mapping[str, Any], key: str, version: str, path: Path) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise DataError("no template of a path", where=f"{path}: {key}", got=value)
    try:
        fields = [f"{name}:{spec}" for _, name, spec, _ in Formatter().parse(value) if name is not None]
        if not all(map(_FIELD.fullmatch, fields)):
            raise ValueError("a field is formatted in another way than episode_index:06d")
        value.format(**_PATH_FIELDS[version[:2]])
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(
            "template of a path has an unknown field",
            where=f"{path}: {key}",
            got=value,
            expected=f"fields {sorted(_PATH_FIELDS[version[:2]])}",
        ) from error
    if Path(value).is_absolute() or ".." in Path(value).parts:
        raise DataError("path outside the data set", where=f"{path}: {key}", got=value)
    return value


def _features(content: Mapping[str, Any], path: Path) -> dict[str, Feature]:
    entries = content.get("features")
    if not isinstance(entries, Mapping) or not entries:
        raise DataError("no features", where=f"{path}: features", got=entries, expected="an object of features")
    features = {}
    for name, entry in entries.items():
        where = f"{path}: features.{name}"
        shape = entry.get("shape") if isinstance(entry, Mapping) else None
        if not isinstance(shape, list) or not all(
            isinstance(size, int) and not isinstance(size, bool) and 0 < size < 2**31 for size in shape
        ):
            raise DataError("a feature has no shape", where=where, got=shape, expected="a list of sizes above 0")
        if not isinstance(entry.get("dtype"), str):
            raise DataError("a feature has no dtype", where=where, got=entry.get("dtype"))
        if entry["dtype"] in ("video", "image") and len(shape) != 3:
            raise DataError("a camera's shape has three sizes", where=where, got=shape)
        features[name] = Feature(entry["dtype"], tuple(shape), entry.get("names"))
    return features
