"""Where the files of an episode are, in the new layout and in the old one.

New: `<task>/episode_*/` with metadata.json, images/<view>/<time>.jpg, robot_states.csv and, where there was a sensor,
sensor_data.npz. Old: `<task>/recv_all_*/` with a folder of pictures a view, robot_state_*.csv and sensor_data_*.npz;
where a recording was cut into several files, they follow one another in the order of their names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hfvla.data.sources.census import UnusableError
from hfvla.errors import DataError

__all__ = ["EpisodeFiles", "Layout", "find_episodes", "list_pictures", "open_episode"]

Layout = Literal["auto", "new", "old"]

_PREFIXES = {"new": "episode_", "old": "recv_all_"}
_PICTURES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class EpisodeFiles:
    """What an episode consists of.

    Attributes:
        layout: "new" or "old".
        task: its name: metadata.json's where it has one, else the name of the folder that holds the episode.
        views: camera to the folder of its pictures.
        states: CSV files, in order.
        sensors: npz files, in order; none without a sensor.
    """

    layout: str
    task: str
    views: dict[str, Path]
    states: list[Path]
    sensors: list[Path]


def find_episodes(root: Path, layout: Layout) -> list[tuple[str, Path]]:
    """Return (name, folder) of every episode at or below a folder, by name.

    Raises:
        DataError: no such folder.
    """
    if not root.is_dir():
        raise DataError("no such folder", where=str(root))
    prefixes = tuple(_PREFIXES.values()) if layout == "auto" else (_PREFIXES[layout],)
    found = []
    for folder, folders, _ in os.walk(root):
        path = Path(folder)
        if path.name.startswith(prefixes):
            found.append(("/".join([root.name, *path.relative_to(root).parts]), path))
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(found)


def open_episode(path: Path) -> EpisodeFiles:
    """Look for the files of an episode.

    Raises:
        UnusableError: the metadata or the states are missing, or the metadata are no JSON object.
    """
    if path.name.startswith(_PREFIXES["old"]):
        parts, sensors = sorted(path.glob("robot_state_*.csv")), sorted(path.glob("sensor_data_*.npz"))
        if not parts:
            raise UnusableError("robot states are missing", "no robot_state_*.csv")
        folders = [*_folders(path), *_folders(path / "images")]
        views = {folder.name: folder for folder in folders if next(_pictures(folder), None)}
        return EpisodeFiles("old", path.parent.name, views, parts, sensors)
    states, sensor = path / "robot_states.csv", path / "sensor_data.npz"
    task = _metadata(path / "metadata.json").get("task", path.parent.name)
    if not isinstance(task, str) or not task:
        raise UnusableError("metadata are broken", f"metadata.json: task {task!r} is no text")
    if not states.is_file():
        raise UnusableError("robot states are missing", "no robot_states.csv")
    views = {folder.name: folder for folder in _folders(path / "images")}
    return EpisodeFiles("new", task, views, [states], [sensor] if sensor.exists() else [])


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a view.

    Raises:
        UnusableError: there is none, or one is an empty file.
    """
    found = []
    for entry in _pictures(folder):
        if not entry.stat().st_size:
            raise UnusableError("picture cannot be read", f"{folder.name}/{entry.name}: empty file")
        found.append(Path(entry.path))
    if not found:
        raise UnusableError("view without pictures", folder.name)
    return found


def _pictures(folder: Path) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if os.path.splitext(entry.name)[1].lower() in _PICTURES and not entry.name.startswith("."):
            yield entry


def _folders(path: Path) -> list[Path]:
    return [one for one in sorted(path.glob("*")) if one.is_dir() and not one.name.startswith(".")]


def _metadata(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UnusableError("metadata are missing", "no metadata.json") from None
    except (OSError, ValueError) as error:
        raise UnusableError("metadata are broken", f"metadata.json: {error}") from error
    if not isinstance(content, dict):
        raise UnusableError("metadata are broken", f"metadata.json: {type(content).__name__}, expected an object")
    return content
