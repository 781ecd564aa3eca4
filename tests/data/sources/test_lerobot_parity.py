"""Against the `lerobot` package itself: what it writes we read, and what we write it reads, frame by frame.

It wants versions of its own, so that it is no dependency here. To run this file: an environment with `lerobot==0.4.4`,
`pydantic` and `pytest` (Python 3.11), then `PYTHONPATH=src pytest --import-mode=importlib` on this file.
"""

import os

import numpy as np
import pytest

from hfvla.data.samples.actions import ActionSample
from hfvla.data.sources.lerobot import LeRobotEpisodes, LeRobotOptions, LeRobotWriter, build_lerobot

os.environ.setdefault("HF_HUB_OFFLINE", "1")
package = pytest.importorskip(
    "lerobot.datasets.lerobot_dataset", reason="the package lerobot is not installed here", exc_type=ImportError
)

LENGTHS, FPS, HEIGHT, WIDTH = (7, 11, 5), 10, 48, 64
CAMERAS = {"observation.images.front": "video", "observation.images.wrist": "video", "observation.images.top": "image"}
NUMBERS = ("observation.state", "action", "observation.force", "next.reward")


def features():
    numbers = {"observation.state": (3,), "action": (2,), "observation.force": (8, 2), "next.reward": (1,)}
    found = {name: {"dtype": "float32", "shape": shape, "names": None} for name, shape in numbers.items()}
    for name, dtype in CAMERAS.items():
        found[name] = {"dtype": dtype, "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    return found


def frame(episode, step):
    """Numbers and pictures that tell their episode, step and camera."""
    draw = np.random.default_rng(100 * episode + step)
    shapes = {name: entry["shape"] for name, entry in features().items() if name in NUMBERS}
    values = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for number, name in enumerate(CAMERAS):
        values[name] = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        values[name][:] = (30 + 20 * step, 60 + 60 * episode, 40 + 80 * number)
    return values


def task(episode):
    return f"task {episode % 2}"


def read_by_lerobot(folder, **more):
    return package.LeRobotDataset("local/set", root=folder, video_backend="pyav", **more)


def as_uint8(picture):
    return (picture * 255).round().numpy().astype(np.uint8).transpose(1, 2, 0)


def assert_same(theirs, ours):
    """Compare every step of both readers of one folder."""
    place = 0
    assert len(ours) == len(LENGTHS) == theirs.num_episodes
    assert ours.fps == theirs.fps
    for episode, length in enumerate(LENGTHS):
        assert ours.entry(episode).length == length
        columns = ours.columns(episode, NUMBERS)
        pictures = ours.frames(episode, range(length))
        times_s, tasks = ours.times_s(episode), ours.task_of(episode)
        for step in range(length):
            item = theirs[place]
            place += 1
            sent = frame(episode, step)
            for name in NUMBERS:
                np.testing.assert_array_equal(item[name].numpy().reshape(-1), columns[name][step].reshape(-1))
                np.testing.assert_array_equal(columns[name][step].reshape(-1), sent[name].reshape(-1))
            for name in CAMERAS:
                seen = pictures[name][step]
                np.testing.assert_array_equal(as_uint8(item[name]), seen)
                assert np.abs(seen.astype(int) - sent[name]).max() <= (0 if CAMERAS[name] == "image" else 8)
            assert abs(item["timestamp"].item() - times_s[step]) < 1e-6
            assert item["task"] == tasks[step] == task(episode)
    assert place == len(theirs)


@pytest.fixture(scope="module")
def theirs_on_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs") / "set"
    kind = {"root": folder, "use_videos": True, "video_backend": "pyav", "vcodec": "h264"}
    data = package.LeRobotDataset.create("local/set", fps=FPS, features=features(), **kind)
    for episode, length in enumerate(LENGTHS):
        for step in range(length):
            data.add_frame({**frame(episode, step), "task": task(episode)})
        data.save_episode()
    data.finalize()
    return folder


@pytest.fixture(scope="module")
def ours_on_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours") / "set"
    with LeRobotWriter(folder, fps=FPS, features=features()) as writer:
        for episode, length in enumerate(LENGTHS):
            for step in range(length):
                writer.add_frame(frame(episode, step), task(episode))
            writer.add_sensor("touch", np.arange(20) / 20, np.ones((20, 1)))
            writer.save_episode()
    return folder


def test_theirs_read_by_us(theirs_on_disk):
    assert_same(read_by_lerobot(theirs_on_disk), LeRobotEpisodes(theirs_on_disk))


def test_ours_read_by_them(ours_on_disk):
    assert_same(read_by_lerobot(ours_on_disk), LeRobotEpisodes(ours_on_disk))


@pytest.mark.parametrize("whose", ["theirs_on_disk", "ours_on_disk"])
def test_chunks_and_masks_are_theirs(whose, request):
    folder = request.getfixturevalue(whose)
    theirs = read_by_lerobot(folder, delta_timestamps={"action": [step / FPS for step in range(4)]})
    rows = build_lerobot(LeRobotOptions(path=str(folder), horizon=4)).dataset
    assert len(rows) == len(theirs)
    for place in range(len(rows)):
        sample, item = ActionSample.from_row(rows[place]), theirs[place]
        np.testing.assert_array_equal(sample.action_mask, ~item["action_is_pad"].numpy())
        valid = sample.action_mask
        np.testing.assert_array_equal(sample.actions[valid], item["action"].numpy()[valid])


@pytest.mark.parametrize("name", ["min", "max", "mean", "std", "count"])
def test_statistics_are_theirs(name, theirs_on_disk, ours_on_disk):
    theirs, ours = read_by_lerobot(theirs_on_disk).meta.stats, read_by_lerobot(ours_on_disk).meta.stats
    assert theirs.keys() == ours.keys()
    for feature in ("observation.state", "action", "observation.force", "next.reward", "timestamp", "task_index"):
        np.testing.assert_allclose(ours[feature][name], theirs[feature][name], rtol=1e-5, atol=1e-6)
    for feature in CAMERAS:
        assert ours[feature]["mean"].shape == theirs[feature]["mean"].shape == (3, 1, 1)
        np.testing.assert_allclose(ours[feature]["mean"], theirs[feature]["mean"], atol=0.02)
    read = LeRobotEpisodes(theirs_on_disk).stats["action"][name]
    np.testing.assert_allclose(read, theirs["action"][name], rtol=1e-9)
