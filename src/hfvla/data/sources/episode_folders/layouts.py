"""Where the files of an episode are, in the new layout and in the old one.

New: `<task>/episode_*/` with metadata.json, images/<view>/<time>.jpg, robot_states.csv and, where there was a sensor,
sensor_data.npz. Old: `<task>/recv_all_*/` with a folder of pictures a view, robot_state_*.csv and sensor_data_*.npz;
where a recording was cut into several files, they follow one another in the order of their names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.json_files import read_json
from hfvla.data.text import clean_text, text_problem
from hfvla.data.walking import FoundPaths, find_folders, named_paths, natural_key
from hfvla.errors import DataError

__all__ = ["EpisodeFiles", "Layout", "find_episodes", "list_pictures", "open_episode", "walk_episodes"]

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
    """Return (name, folder) of every episode at or below a folder, by name; links to folders are followed.

    Raises:
        DataError: no such folder.
    """
    return named_paths(root, walk_episodes(root, layout).paths)


def walk_episodes(root: Path, layout: Layout) -> FoundPaths:
    """Look for the folders of episodes; see `find_episodes`, and `FoundPaths` for what is of no use.

    Raises:
        DataError: no such folder.
    """
    if not os.path.isdir(root):
        raise DataError("no such folder", where=str(root)[:200])
    prefixes = tuple(_PREFIXES.values()) if layout == "auto" else (_PREFIXES[layout],)
    return find_folders(root, lambda name: name.startswith(prefixes))


def open_episode(path: Path) -> EpisodeFiles:
    """Look for the files of an episode.

    Raises:
        UnusableError: the metadata or the states are missing, or the metadata are no JSON object.
    """
    if path.name.startswith(_PREFIXES["old"]):
        parts, sensors = (_parts(path, pattern) for pattern in ("robot_state_*.csv", "sensor_data_*.npz"))
        if not parts:
            raise UnusableError("robot states are missing", "no robot_state_*.csv")
        folders = [*_folders(path), *_folders(path / "images")]
        views = {folder.name: folder for folder in folders if next(_pictures(folder), None)}
        return EpisodeFiles("old", path.parent.name, views, parts, sensors)
    states, sensor = path / "robot_states.csv", path / "sensor_data.npz"
    task = _metadata(path / "metadata.json").get("task", path.parent.name)
    if not isinstance(task, str) or not clean_text(task) or text_problem(task):
        raise UnusableError("metadata are broken", f"metadata.json: task {task!r} is no text")
    if not states.is_file():
        raise UnusableError("robot states are missing", "no robot_states.csv")
    views = {folder.name: folder for folder in _folders(path / "images")}
    there = sensor.exists() or sensor.is_symlink()  # a link to nothing is a sensor that is lost, not one never had
    return EpisodeFiles("new", clean_text(task), views, [states], [sensor] if there else [])


def _parts(path: Path, pattern: str) -> list[Path]:
    """Files that follow one another, whether their numbers have leading zeros or not."""
    return sorted(path.glob(pattern), key=lambda part: natural_key(part.name))


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a view.

    Raises:
        UnusableError: there is none, or one is an empty file.
    """
    found = []
    for entry in _pictures(folder):
        try:
            status = entry.stat()
        except OSError as error:
            got = error.strerror or str(error)
            raise UnusableError("picture cannot be read", f"{folder.name}/{entry.name}: {got}") from error
        if not stat.S_ISREG(status.st_mode):
            raise UnusableError("picture cannot be read", f"{folder.name}/{entry.name}: not a regular file")
        if not status.st_size:
            raise UnusableError("picture cannot be read", f"{folder.name}/{entry.name}: empty file")
        found.append(Path(entry.path))
    if not found:
        raise UnusableError("view without pictures", folder.name)
    return found


def _pictures(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UnusableError("view cannot be read", f"{folder.name}: {error.strerror or error}") from error
    for entry in entries:
        if os.path.splitext(entry.name)[1].lower() in _PICTURES and not entry.name.startswith("."):
            yield entry


def _folders(path: Path) -> list[Path]:
    """Folders by name, and links that lead nowhere: a camera behind one must not vanish."""
    found = (one for one in sorted(path.glob("*")) if not one.name.startswith("."))
    return [one for one in found if one.is_dir() or (one.is_symlink() and not one.exists() and not one.suffix)]


def _metadata(path: Path) -> dict[str, object]:
    try:
        content = read_json(path)
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UnusableError("metadata are missing", "no metadata.json") from None
        raise UnusableError("metadata are broken", f"metadata.json: {error}") from error
    if not isinstance(content, dict):
        raise UnusableError("metadata are broken", f"metadata.json: {type(content).__name__}, expected an object")
    return content
