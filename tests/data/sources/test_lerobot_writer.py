"""The v3.0 writer: whole folders or none, files that roll over, and refusal of what cannot be a recording."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from hfvla.data.sources.lerobot import LeRobotEpisodes, LeRobotWriter
from hfvla.data.video import probe
from hfvla.errors import DataError

from .lerobot_sets import FEATURES, FPS, HEIGHT, LENGTHS, WIDTH, frame, picture, touch, write_v3


def test_files_roll_over_and_stay_whole(tmp_path):
    folder = write_v3(tmp_path / "set", video_file_mb=0.0001, data_file_mb=0.0001, chunks_size=2)
    names = [f"chunk-{chunk:03d}/file-{file:03d}" for chunk, file in ((0, 0), (0, 1), (1, 0))]
    for name, length in zip(names, LENGTHS, strict=True):
        assert pq.read_metadata(folder / f"data/{name}.parquet").num_rows == length
        info = probe(folder / f"videos/observation.images.front/{name}.mp4")
        assert (info.frames, info.fps, info.height, info.width) == (length, FPS, HEIGHT, WIDTH)
    last = LeRobotEpisodes(folder).frames(2, range(LENGTHS[2]))
    assert np.abs(last["observation.images.front"][3].astype(int) - picture(2, 3, 0)).max() <= 8
    assert not list(tmp_path.glob(".*"))


def test_episodes_share_files_and_info_tells_all(tmp_path):
    folder = write_v3(tmp_path / "set")
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, sum(LENGTHS), 2)
    assert info["splits"] == {"train": "0:3"} and info["features"]["timestamp"]["dtype"] == "float32"
    assert probe(folder / "videos/observation.images.front/chunk-000/file-000.mp4").frames == sum(LENGTHS)
    table = pq.ParquetFile(folder / "data/chunk-000/file-000.parquet")
    assert table.metadata.num_row_groups == 3
    assert table.read(["index"])["index"].to_pylist() == list(range(sum(LENGTHS)))
    starts = [entry.videos["observation.images.front"][1] for entry in LeRobotEpisodes(folder).entries.values()]
    assert starts == [0.0, 0.6, 1.5]


def test_the_same_frames_give_the_same_bytes(tmp_path):
    first, second = write_v3(tmp_path / "a"), write_v3(tmp_path / "b")
    paths = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(paths) == 9
    for path in paths:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), LeRobotWriter(tmp_path / "set", fps=FPS, features=FEATURES) as writer:
        writer.add_frame(frame(0, 0, 1), "push")
        writer.save_episode()
        assert not (tmp_path / "set").exists()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_discarded_episode_is_gone(tmp_path):
    with LeRobotWriter(tmp_path / "set", fps=FPS, features=FEATURES) as writer:
        for step in range(5):
            writer.add_frame(frame(2, step, 5), "push")
        writer.add_sensor("touch", *touch(5))
        writer.discard_episode()
        for step in range(4):
            writer.add_frame(frame(1, step, 4), "push")
        assert writer.save_episode() == 0
    data = LeRobotEpisodes(tmp_path / "set")
    assert len(data) == 1 and not (data.root / "sensors").exists()
    np.testing.assert_array_equal(data.column(0, "action")[:, 0], [10, 11, 12, 13])
    seen = data.frames(0, range(4))["observation.images.front"]
    assert len(seen) == 4 and np.abs(seen[3].astype(int) - picture(1, 3, 0)).max() <= 8
    assert probe(data.entry(0).videos["observation.images.front"][0]).frames == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.zeros(3)}, r"step 0: action: a value of another shape; got \(3,\); expected \(2,\)"),
        ({"action": np.array([0, np.nan])}, "action: a value is not finite; got nan"),
        ({"action": np.array([0, 1j])}, "action: a value of another type; got 'complex128'"),
        ({"next.done": 0.5}, "next.done: a value of another type; got 'float64'; expected bool"),
        ({"observation.images.front": np.zeros((HEIGHT, WIDTH, 3))}, "front: a value of another type; got 'float64'"),
        ({"observation.images.front": np.zeros((3, HEIGHT, WIDTH), np.uint8)}, "front: a value of another shape"),
        ({"acton": np.zeros(2)}, "Did you mean 'action'"),
    ],
)
def test_frames_that_cannot_be(tmp_path, change, message):
    writer = LeRobotWriter(tmp_path / "set", fps=FPS, features=FEATURES)
    with pytest.raises(DataError, match=message):
        writer.add_frame(frame(0, 0, 1) | change, "push")
    values = frame(0, 0, 1)
    values.pop("observation.state")
    with pytest.raises(DataError, match="a feature is missing.*observation.state"):
        writer.add_frame(values, "push")
    with pytest.raises(DataError, match="no task"):
        writer.add_frame(frame(0, 0, 1), "")
    with pytest.raises(DataError, match="the episode is empty"):
        writer.save_episode()
    with pytest.raises(DataError, match="no episode was saved"):
        writer.finalize()
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="the writer is closed"):
        writer.add_frame(frame(0, 0, 1), "push")


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"timestamp": {"dtype": "float32", "shape": (1,)}}, "no such name for a feature"),
        ({"a/b": {"dtype": "float32", "shape": (1,)}}, "got 'a/b'"),
        ({"x": {"dtype": "float32", "shape": ()}}, "has no shape"),
        ({"x": {"dtype": "string", "shape": (1,)}}, "'string'"),
        ({"x": {"dtype": "float32", "shape": (2, 2, 2)}}, "cannot be written"),
        ({"x": {"dtype": "video", "shape": (3, 32, 32)}}, r"\(height, width, 3\)"),
        ({}, "no features"),
    ],
)
def test_features_that_cannot_be(tmp_path, feature, message):
    with pytest.raises(DataError, match=message):
        LeRobotWriter(tmp_path / "set", fps=FPS, features=feature)
    assert not list(tmp_path.iterdir())


def test_odd_sides_leave_nothing(tmp_path):
    with pytest.raises(DataError, match="not even.*31"):
        LeRobotWriter(tmp_path / "set", fps=FPS, features={"x": {"dtype": "video", "shape": (31, 32, 3)}})
    assert not list(tmp_path.iterdir())


def test_folders_and_endings(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file").touch()
    with pytest.raises(DataError, match="there already"):
        LeRobotWriter(tmp_path / "set", fps=FPS, features=FEATURES)
    with pytest.raises(DataError, match="no such frame rate; got 0"):
        LeRobotWriter(tmp_path / "new", fps=0, features=FEATURES)
    writer = LeRobotWriter(tmp_path / "new", fps=FPS, features=FEATURES)
    writer.add_frame(frame(0, 0, 2), "push")
    writer.save_episode()
    writer.add_frame(frame(0, 1, 2), "push")
    with pytest.raises(DataError, match="neither saved nor discarded; got '1 steps'"):
        writer.finalize()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("name", "times_s", "values", "message"),
    [
        ("touch", [0.0, 0.2, 0.1], np.ones((3, 1)), "do not ascend"),
        ("touch", [0.0, 0.1], np.ones((3, 1)), "not a sensor series"),
        ("touch", [], np.ones((0, 1)), "not a sensor series"),
        ("touch", [0.0, 0.1], np.array([[1.0], [np.nan]]), "not finite; got 'sample 1'"),
        ("../touch", [0.0], np.ones((1, 1)), "no such name"),
        ("action", [0.0], np.ones((1, 1)), "no such name"),
    ],
)
def test_sensors_that_cannot_be(tmp_path, name, times_s, values, message):
    writer = LeRobotWriter(tmp_path / "set", fps=FPS, features=FEATURES)
    with pytest.raises(DataError, match=message):
        writer.add_sensor(name, np.array(times_s), values)
    writer.abandon()
    assert not list(tmp_path.iterdir())
