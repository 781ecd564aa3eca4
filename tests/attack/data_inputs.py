"""Tiny valid inputs of every data source, and how each is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.sources.episode_sets import STATE, recording, write_hdf5, write_new, write_old
from ..data.sources.lerobot_sets import write_v3, write_v21

__all__ = ["INPUTS", "Input"]

_LENGTH_S = 0.4


@dataclass(frozen=True)
class Input:
    """A data source.

    Attributes:
        write: makes a small valid input in a new folder.
        read: reads it with every bad record allowed; returns what builders return.
        bad_pictures_show: whether a damaged picture must be noticed as the source is read, not when its row is.
    """

    write: Callable[[Path], None]
    read: Callable[[Path], list[Any]]
    bad_pictures_show: bool = False


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _write_robots(folder: Path) -> None:
    def task(text: str, **more: Any) -> dict[str, Any]:
        return {"instruction": "Which robots?", "input": f"Task: {text}", **more}

    steps = [
        {"subtask": "Fly over it", "assigned_robot": "Drone", "execution_order": 1},
        {"subtask": "Đi quanh", "assigned_robot": "Robot with Legs", "execution_order": 2},
    ]
    records = [
        task("Kiểm tra đập nước.", output="Drone, Robot with Legs", image="a.png"),
        task("Inspect tower 3.", output=["Drone"], reasoning="Because it flies."),
        task("Mow the lawn.", output="Robot with Wheels"),
    ]
    plans = [task("Kiểm tra đập nước.", original_single_robot_output="Drone", subtasks=steps),
             task("Inspect tower 3.", original_single_robot_output="Drone", subtasks=steps[:1])]  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    lines = "".join(json.dumps(plan, ensure_ascii=False) + "\n" for plan in plans)
    (folder / "plans.jsonl").write_text(lines, encoding="utf-8")
    _picture(folder / "a.png", 0)


def _read_robots(folder: Path) -> list[Any]:
    from hfvla.data.sources.robot_selection import RobotSelectionOptions, build_robot_selection

    paths = {"path": str(folder / "data.json"), "plan_path": str(folder / "plans.jsonl")}
    return [build_robot_selection(RobotSelectionOptions(**paths, max_bad_fraction=1.0))]


def _write_geotext(folder: Path) -> None:
    train = [
        {"image_id": f"083{number}/image-01.png", "image": f"083{number}/image-01.png",
         "caption": f"Tòa nhà số {number}, with a red roof.", "sentences": ["a red roof", None],
         "bboxes": [[0.5, 0.5, 0.2, 0.3], None]}
        for number in range(3)
    ]  # fmt: skip
    test = [{"image_id": "0001/image-01.png", "image": "0830/image-01.png", "caption": ["A roof.", "Một mái nhà."]}]
    folder.mkdir(parents=True)
    for name, records in (("train.json", train), ("test.json", test)):
        (folder / name).write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    for number in range(3):
        _picture(folder / f"083{number}/image-01.png", number)


def _read_geotext(folder: Path) -> list[Any]:
    from hfvla.data.sources.geotext import GeoTextOptions, build_geotext

    files = ("train.json", "test.json")
    return [build_geotext(GeoTextOptions(path=str(folder / name), max_bad_fraction=1.0)) for name in files]


def _write_robosense(folder: Path) -> None:
    texts = {"q_00001": "Một khuôn viên lớn, with trees.", "q_00002": "A large white roof."}
    folder.mkdir(parents=True)
    (folder / "q.txt").write_text("".join(f"{key}\t{text}\n" for key, text in texts.items()), encoding="utf-8")
    rows = "".join(f'{key},"{text}"\n' for key, text in texts.items())
    (folder / "q.csv").write_text("id,text\n" + rows, encoding="utf-8")
    (folder / "q.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    for number in range(2):
        _picture(folder / f"gallery/image_{number}.png", number)


def _read_robosense(folder: Path) -> list[Any]:
    from hfvla.data.sources.robosense import RoboSenseOptions, build_robosense, read_gallery

    files = ("q.txt", "q.csv", "q.json")
    found = [build_robosense(RoboSenseOptions(path=str(folder / name), max_bad_fraction=1.0)) for name in files]
    return [*found, read_gallery(folder / "gallery", max_bad_fraction=1.0)]


def _write_road(folder: Path) -> None:
    from hfvla.worlds.road.encode import write_mp4

    (folder / "videos").mkdir(parents=True)
    for number in range(2):
        frames = (np.full((32, 48, 3), 20 * step + 50 * number, np.uint8) for step in range(6))
        write_mp4(folder / f"videos/x{number}.mp4", frames, 5)
    records = [
        {"id": f"train_{number}", "question": "Đèn giao thông màu gì?",
         "choices": ["A. Đỏ", "B. Xanh", "C. Vàng"], "answer": "B. Xanh", "support_frames": [0.4],
         "video_path": f"videos/x{number % 2}.mp4"}
        for number in range(3)
    ]  # fmt: skip
    content = {"__count__": len(records), "data": records}
    (folder / "train.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _read_road(folder: Path) -> list[Any]:
    from hfvla.data.sources.road_videos import RoadVideosOptions, build_road_videos

    return [build_road_videos(RoadVideosOptions(path=str(folder / "train.json"), max_bad_fraction=1.0))]


def _read_lerobot(folder: Path) -> list[Any]:
    from hfvla.data.sources.lerobot import LeRobotOptions, build_lerobot, count_lerobot

    sensor = {"name": "touch", "window_s": 0.2} if (folder / "set/sensors").exists() else None
    options = LeRobotOptions(path=str(folder / "set"), sensor=sensor, max_bad_fraction=1.0)
    return _counted(count_lerobot(options), build_lerobot(options))


def _write_folders(folder: Path) -> None:
    made = recording(_LENGTH_S)
    write_new(folder / "set/peg/episode_1", made, metadata={"task": "cắm chốt"})
    write_old(folder / "set/peg/recv_all_2", made)


def _read_folders(folder: Path) -> list[Any]:
    from hfvla.data.sources.episode_folders import (
        EpisodeFoldersOptions,
        build_episode_folders,
        count_episode_folders,
    )

    options = EpisodeFoldersOptions(
        path=str(folder / "set"), state=STATE, window_s=0.1, cache_folder=str(folder / "series"), max_bad_fraction=1.0
    )
    return _counted(count_episode_folders(options), build_episode_folders(options))


def _write_hdf5(folder: Path) -> None:
    made = recording(_LENGTH_S, aligned=True)
    for name, pictures in (("a", "raw"), ("b", "padded")):
        write_hdf5(folder / f"set/{name}.hdf5", made, pictures=pictures)


def _read_hdf5(folder: Path) -> list[Any]:
    from hfvla.data.sources.hdf5_episodes import (
        Hdf5EpisodesOptions,
        build_hdf5_episodes,
        count_hdf5_episodes,
    )

    options = Hdf5EpisodesOptions(
        path=str(folder / "set"), window_s=0.1, cache_folder=str(folder / "series"), max_bad_fraction=1.0
    )
    return _counted(count_hdf5_episodes(options), build_hdf5_episodes(options))


def _counted(count: int, data: Any) -> list[Any]:
    """See that a plan, which counts rows without building them, promises no fewer than there are."""
    assert count >= len(data.dataset), (count, len(data.dataset))
    return [data]


INPUTS = {
    "robot_selection": Input(_write_robots, _read_robots, bad_pictures_show=True),
    "geotext": Input(_write_geotext, _read_geotext),
    "robosense": Input(_write_robosense, _read_robosense),
    "road_videos": Input(_write_road, _read_road, bad_pictures_show=True),
    "lerobot_v3": Input(lambda folder: write_v3(folder / "set", lengths=(3, 2)), _read_lerobot),
    "lerobot_v21": Input(lambda folder: write_v21(folder / "set", lengths=(3, 2)), _read_lerobot),
    "episode_folders": Input(_write_folders, _read_folders),
    "hdf5": Input(_write_hdf5, _read_hdf5),
}
"""By name; `lerobot` in its two formats."""
