"""Small LeRobot data sets: v3.0 through the writer, v2.1 by hand."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hfvla.data.sources.lerobot import LeRobotWriter
from hfvla.worlds.road.encode import write_mp4

FPS, HEIGHT, WIDTH, RATE_HZ = 10, 32, 48, 65
LENGTHS = (6, 9, 4)
NUMBERS = {
    "observation.state": {"dtype": "float32", "shape": (3,)},
    "action": {"dtype": "float32", "shape": (2,)},
    "observation.force": {"dtype": "float32", "shape": (4, 2)},
    "next.done": {"dtype": "bool", "shape": (1,)},
}
CAMERAS = {
    "observation.images.front": {"dtype": "video", "shape": (HEIGHT, WIDTH, 3)},
    "observation.images.wrist": {"dtype": "image", "shape": (HEIGHT, WIDTH, 3)},
}
FEATURES = NUMBERS | CAMERAS


def picture(episode, step, camera):
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:] = (20 + 22 * step, 40 + 80 * episode, 60 + 120 * camera)
    return pixels


def frame(episode, step, length):
    """Values that tell where they belong: force sample k of a step is 4 * step + k."""
    number = 4 * step + np.arange(4)
    return {
        "observation.state": np.array([episode, step, 0.5]),
        "action": np.array([10 * episode + step, -step], dtype=float),
        "observation.force": np.stack([number, -number], axis=1).astype(float),
        "next.done": step == length - 1,
        "observation.images.front": picture(episode, step, 0),
        "observation.images.wrist": picture(episode, step, 1),
    }


def touch(length):
    """A series at 65 Hz whose values are its times."""
    times_s = np.arange(int(length / FPS * RATE_HZ)) / RATE_HZ
    return times_s, np.stack([times_s, -times_s], axis=1)


def write_v3(folder, *, lengths=LENGTHS, change=None, sensors=None, **options):
    """Write a v3.0 set.

    Args:
        change: (episode, step, frame) -> frame.
        sensors: episode -> (times_s, values) or None; `touch` when absent.
    """
    with LeRobotWriter(folder, fps=FPS, features=FEATURES, robot_type="arm", **options) as writer:
        for episode, length in enumerate(lengths):
            for step in range(length):
                values = frame(episode, step, length)
                writer.add_frame(change(episode, step, values) if change else values, f"task {episode % 2}")
            series = sensors(episode) if sensors else touch(length)
            if series is not None:
                writer.add_sensor("touch", *series)
            writer.save_episode()
    return folder


def write_v21(folder, *, lengths=LENGTHS, skip=()):
    """Write a v2.1 set with one camera; the data and videos of `skip` are left out."""
    (folder / "meta").mkdir(parents=True)
    cameras = {"observation.images.front": CAMERAS["observation.images.front"]}
    numbers = {name: NUMBERS[name] for name in ("observation.state", "action")}
    steps = {name: {"dtype": "int64", "shape": (1,)} for name in ("frame_index", "episode_index", "task_index")}
    steps["timestamp"] = {"dtype": "float32", "shape": (1,)}
    info = {
        "codebase_version": "v2.1", "robot_type": "arm", "fps": FPS, "chunks_size": 2,
        "total_episodes": len(lengths), "total_frames": sum(lengths),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {**numbers, **cameras, **steps},
    }  # fmt: skip
    (folder / "meta/info.json").write_text(json.dumps(info))
    (folder / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "push"}\n{"task_index": 1, "task": "pull"}\n')
    entries, stats = [], []
    for episode, length in enumerate(lengths):
        entries.append({"episode_index": episode, "tasks": ["push"], "length": length})
        values = {name: np.stack([frame(episode, s, length)[name] for s in range(length)]) for name in numbers}
        stats.append({"episode_index": episode, "stats": {
            name: {"min": one.min(0).tolist(), "max": one.max(0).tolist(), "mean": one.mean(0).tolist(),
                   "std": one.std(0).tolist(), "count": [length]} for name, one in values.items()}})  # fmt: skip
        if episode in skip:
            continue
        places = {"episode_chunk": episode // 2, "episode_index": episode}
        path = folder / info["data_path"].format(**places)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {name: pa.array(list(one.astype(np.float32))) for name, one in values.items()}
        columns |= {"timestamp": (np.arange(length) / FPS).astype(np.float32), "frame_index": np.arange(length)}
        columns |= {"episode_index": np.full(length, episode), "task_index": np.zeros(length, int)}
        pq.write_table(pa.table(columns), path)
        path = folder / info["video_path"].format(**places, video_key="observation.images.front")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, (picture(episode, step, 0) for step in range(length)), FPS)
    (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (folder / "meta/episodes_stats.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in stats))
    return folder
