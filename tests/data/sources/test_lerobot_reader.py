"""LeRobot v2.1 and v3.0 through one reader; what does not fit is one error that names it."""

import dataclasses
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfvla.data.samples.actions import FrameRef
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.sources.lerobot import LeRobotEpisodes
from hfvla.data.sources.parquet_rows import ParquetRows, to_array
from hfvla.errors import DataError

from .lerobot_sets import FPS, LENGTHS, frame, picture, write_v3, write_v21


@pytest.fixture(scope="module")
def v3(tmp_path_factory):
    return write_v3(tmp_path_factory.mktemp("v3") / "set", video_file_mb=0.0005)


@pytest.fixture(scope="module")
def v21(tmp_path_factory):
    return write_v21(tmp_path_factory.mktemp("v21") / "set")


@pytest.fixture
def both(request, v3, v21):
    return {"v2.1": v21, "v3.0": v3}[request.param]


versions = pytest.mark.parametrize("both", ["v2.1", "v3.0"], indirect=True)


@versions
def test_every_step_of_every_episode(both):
    data = LeRobotEpisodes(both)
    assert (len(data), data.fps, data.present, data.absent) == (3, FPS, [0, 1, 2], [])
    for episode, length in enumerate(LENGTHS):
        found = data.columns(episode, ["observation.state", "action"])
        pictures = data.frames(episode, range(length))["observation.images.front"]
        np.testing.assert_array_equal(data.times_s(episode), np.arange(length) / FPS)
        assert data.times_s(episode).dtype == np.float64
        for step in range(length):
            sent = frame(episode, step, length)
            np.testing.assert_array_equal(found["action"][step], sent["action"].astype(np.float32))
            np.testing.assert_array_equal(found["observation.state"][step], sent["observation.state"])
            assert np.abs(pictures[step].astype(int) - picture(episode, step, 0)).max() <= 8


@versions
def test_statistics_are_those_of_all_steps(both):
    actions = np.concatenate([[frame(e, s, n)["action"] for s in range(n)] for e, n in enumerate(LENGTHS)])
    stats = LeRobotEpisodes(both).stats["action"]
    np.testing.assert_allclose(stats["mean"], actions.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["std"], actions.std(0), rtol=1e-6)
    np.testing.assert_array_equal([stats["min"], stats["max"]], [actions.min(0), actions.max(0)])
    assert stats["count"] == sum(LENGTHS)


def test_v3_keeps_all_kinds_of_columns(v3):
    data = LeRobotEpisodes(v3)
    assert data.tasks == {0: "task 0", 1: "task 1"} and data.task_of(1) == ["task 1"] * LENGTHS[1]
    assert data.column(1, "next.done").tolist() == [False] * 8 + [True]
    np.testing.assert_array_equal(data.column(2, "observation.force")[3, :, 0], [12, 13, 14, 15])
    wrist = data.frames(2, [3, 0, 3], ["observation.images.wrist"])["observation.images.wrist"]
    np.testing.assert_array_equal(wrist, [picture(2, 3, 1), picture(2, 0, 1), picture(2, 3, 1)])
    files = {entry.videos["observation.images.front"] for entry in data.entries.values()}
    assert len({path for path, _ in files}) > 1 and len({entry.table for entry in data.entries.values()}) == 1


def test_a_subset_is_told(tmp_path):
    data = LeRobotEpisodes(write_v21(tmp_path / "set", skip=(1,)))
    assert (len(data), data.present, data.absent) == (3, [0, 2], [1])
    with pytest.raises(DataError, match="No such file"):
        data.column(1, "action")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebase_version": "v1.6"}, "another version.*'v1.6'.*v2.0, v2.1, v3.0"),
        ({"fps": 0}, "info.json: fps.*got 0"),
        ({"fps": "ten"}, "info.json: fps.*got 'ten'"),
        ({"features": {}}, "no features"),
        ({"features": {"action": {"dtype": "float32"}}}, "features.action: a feature has no shape"),
        ({"features": {"action": {"shape": [2]}}}, "features.action: a feature has no dtype"),
        ({"features": {"front": {"dtype": "video", "shape": [2]}}}, "camera's shape has three sizes"),
        ({"data_path": "data/{episode}.parquet"}, "data_path: template.*unknown field"),
        ({"data_path": "../data.parquet"}, "path outside the data set"),
        ({"chunks_size": None}, "chunks_size.*"),
    ],
)
def test_broken_info(tmp_path, change, message):
    folder = write_v21(tmp_path / "set", skip=(0, 1, 2))
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        LeRobotEpisodes(folder)


def test_missing_and_broken_meta(tmp_path):
    with pytest.raises(DataError, match="info.json: file cannot be read"):
        LeRobotEpisodes(tmp_path)
    folder = write_v21(tmp_path / "set", skip=(0, 1, 2))
    with (folder / "meta/episodes.jsonl").open("a") as file:
        file.write('{"episode_index": 3,\n')
    with pytest.raises(DataError, match=r"episodes.jsonl:4:\d+: broken JSON"):
        LeRobotEpisodes(folder)
    (folder / "meta/episodes.jsonl").write_text('{"episode_index": 0, "tasks": [], "length": -1}\n')
    with pytest.raises(DataError, match="episodes.jsonl:1: length.*got -1"):
        LeRobotEpisodes(folder)
    (folder / "meta/episodes.jsonl").write_text('{"episode_index": 7, "tasks": [], "length": 1}\n' * 2)
    with pytest.raises(DataError, match="named twice; got 7"):
        LeRobotEpisodes(folder)
    (folder / "meta/episodes.jsonl").write_text("")
    (folder / "meta/episodes_stats.jsonl").unlink()
    with pytest.raises(DataError, match="episodes_stats.jsonl: file cannot be read"):
        _ = LeRobotEpisodes(folder).stats


def rewrite(folder, column, values):
    path = folder / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, pa.array(values)), path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("timestamp", np.array([0, 0.1, 0.2, 0.3002, 0.9, 0.5]), "out of tolerance; got 'frame 3 at 0.300200 s'"),
        ("timestamp", np.array([0, 0.1, np.nan, 0.3, 0.4, 0.5]), "got 'frame 2 at nan s'"),
        ("frame_index", np.array([0, 1, 3, 2, 4, 5]), "steps are not in order; got 'frame_index 3'; expected 2"),
        ("episode_index", np.array([0, 0, 0, 0, 4, 0]), "rows of another episode; got 4; expected 0"),
    ],
)
def test_a_clock_that_does_not_fit(tmp_path, column, values, message):
    folder = write_v21(tmp_path / "set", skip=(1, 2))
    rewrite(folder, column, values)
    with pytest.raises(DataError, match=message):
        LeRobotEpisodes(folder).times_s(0)


def test_a_tolerance_is_kept_and_limited(tmp_path):
    folder = write_v21(tmp_path / "set", skip=(1, 2))
    rewrite(folder, "timestamp", np.arange(6) / FPS + 0.004)
    assert LeRobotEpisodes(folder, tolerance_s=0.005).times_s(0)[1] == 0.1
    with pytest.raises(DataError, match="no such tolerance.*0.05"):
        LeRobotEpisodes(folder, tolerance_s=0.05)


def test_late_float32_timestamps_are_no_error(tmp_path):
    """At 7,000 s two float32 neighbours are 0.0005 s apart: rounding is not a fault of the recording."""
    folder = write_v21(tmp_path / "set", lengths=(6,), skip=())
    data = LeRobotEpisodes(folder)
    late = (np.arange(70_000) / FPS).astype(np.float32)
    columns = {"timestamp": late, "frame_index": np.arange(70_000), "episode_index": np.zeros(70_000, int)}
    path = folder / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pa.table(columns), path)
    (folder / "meta/episodes.jsonl").write_text('{"episode_index": 0, "tasks": [], "length": 70000}\n')
    data = LeRobotEpisodes(folder, tolerance_s=1e-5)
    assert data.times_s(0)[-1] == 69_999 / FPS


def test_shapes_names_and_steps(v3):
    data = LeRobotEpisodes(v3)
    with pytest.raises(DataError, match="Did you mean 'action'"):
        data.column(0, "acton")
    with pytest.raises(DataError, match="a camera has no numbers"):
        data.column(0, "observation.images.front")
    with pytest.raises(DataError, match="no such step; got 6; expected 0 to 5"):
        data.frames(0, [6])
    with pytest.raises(DataError, match="no such episode; got 3"):
        data.times_s(3)


def test_a_column_of_another_shape(tmp_path):
    folder = write_v21(tmp_path / "set", skip=(1, 2))
    rewrite(folder, "action", [[0.0, 1.0, 2.0]] * 6)
    with pytest.raises(DataError, match=r"another shape.*got \(3,\); expected \(2,\)"):
        LeRobotEpisodes(folder).column(0, "action")
    rewrite(folder, "action", [[0.0, 1.0]] * 5 + [[0.0]])
    with pytest.raises(DataError, match="differ in length"):
        LeRobotEpisodes(folder).column(0, "action")
    rewrite(folder, "action", [[0.0, 1.0]] * 5 + [None])
    with pytest.raises(DataError, match="a value is missing; got '1 null'"):
        LeRobotEpisodes(folder).column(0, "action")


def test_frames_are_matched_by_time(v21):
    path = str(next(v21.glob("videos/chunk-000/*/episode_000001.mp4")))
    loader = FrameLoader(tolerance_s=1e-3)
    early, late = loader.load([FrameRef(path, 0.3 - 9e-4), FrameRef(path, 0.3 + 9e-4)])
    np.testing.assert_array_equal(early, late)
    assert abs(int(early[0, 0, 0]) - (20 + 22 * 3)) <= 8
    with pytest.raises(DataError, match="no frame at that time; got 'frame 3 at 0.300000 s for 0.340000 s'"):
        loader.load([FrameRef(path, 0.34)])
    with pytest.raises(DataError, match="past the end"):
        loader.load([FrameRef(path, 5.0)])


def test_readers_travel_to_workers(v3):
    data = LeRobotEpisodes(v3)
    data.frames(0, [0])
    sent = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(sent.column(1, "action"), data.column(1, "action"))
    for name, pictures in data.frames(1, [2]).items():
        np.testing.assert_array_equal(sent.frames(1, [2])[name], pictures)


def test_rows_of_a_table(tmp_path):
    path = tmp_path / "t.parquet"
    numbers = np.arange(20).reshape(10, 2)
    pq.write_table(pa.table({"x": list(numbers), "text": ["a"] * 10}), path, row_group_size=3)
    rows = ParquetRows(cache_bytes=1)
    for first, count in ((0, 10), (2, 5), (9, 1), (4, 0)):
        got = to_array(rows.read(path, "x", first, count), where="t") if count else np.zeros((0, 2))
        np.testing.assert_array_equal(got, numbers[first : first + count])
    assert rows.count(path) == 10 and rows.columns(path) == ["x", "text"]
    with pytest.raises(DataError, match="rows 9 to 11"):
        rows.read(path, "x", 9, 2)
    with pytest.raises(DataError, match="does not hold numbers"):
        to_array(rows.read(path, "text"), where="t")
    pq.write_table(pa.table({"x": list(numbers + 1)}), path)
    np.testing.assert_array_equal(to_array(rows.read(path, "x"), where="t"), numbers + 1)
    path.write_bytes(b"PAR1 no table")
    with pytest.raises(DataError, match="not a parquet table"):
        rows.read(path, "x")


# ---- what meta/ may not do ---------------------------------------------------------------------------------------


def change_info(folder, **values):
    path = folder / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def test_two_tasks_of_one_number_are_refused(tmp_path):
    folder = write_v21(tmp_path / "set")
    with (folder / "meta/tasks.jsonl").open("a") as file:
        file.write('{"task_index": 0, "task": "another"}\n')
    with pytest.raises(DataError, match=r"tasks.jsonl:\d+: two tasks have one number; got .*another"):
        LeRobotEpisodes(folder)


@pytest.mark.parametrize(
    ("key", "template"),
    [
        ("data_path", "../{episode_index}.parquet"),
        ("data_path", "{episode_index:0999999999d}.parquet"),
        ("data_path", "{episode_index!r:>999999999}.parquet"),
        ("video_path", "videos/{video_key.__class__}/{episode_index}.mp4"),
        ("data_path", "{episode_index:{episode_chunk}}.parquet"),
    ],
)
def test_templates_that_leave_the_folder_or_fill_the_memory_are_refused(tmp_path, key, template):
    folder = change_info(write_v21(tmp_path / "set"), **{key: template})
    with pytest.raises(DataError, match=f"info.json: {key}"):
        LeRobotEpisodes(folder)


def test_a_camera_whose_name_leaves_the_folder_is_refused(tmp_path):
    folder = write_v21(tmp_path / "set")
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    change_info(folder, features={**features, "../../../out": features["observation.images.front"]})
    with pytest.raises(DataError, match="path outside the data set.*out"):
        LeRobotEpisodes(folder)


@pytest.mark.parametrize("value", [10**400, float("nan"), -1, True, "5", 2**70])
def test_numbers_that_cannot_be_are_refused(tmp_path, value):
    for key in ("fps", "total_frames"):
        with pytest.raises(DataError, match=f"info.json: {key}|JSON that cannot be read"):
            LeRobotEpisodes(change_info(write_v21(tmp_path / f"set{key}"), **{key: value}))


def test_notes_of_macos_and_twins_of_columns(tmp_path):
    folder = write_v3(tmp_path / "set")
    tables = list((folder / "meta/episodes").rglob("*.parquet"))
    for path in [*tables, *(folder / "data").rglob("*.parquet")]:
        (path.parent / f"._{path.name}").write_bytes(bytes.fromhex("0005160700020000") + bytes(60))
    assert len(LeRobotEpisodes(folder)) == 3
    table = pq.read_table(tables[0])
    twins = pa.table([*table.columns, table["length"]], names=[*table.column_names, "length"])
    pq.write_table(twins, tables[0])
    with pytest.raises(DataError, match="the table has a column twice; got 'length'"):
        LeRobotEpisodes(folder)


@pytest.mark.parametrize("write", [write_v21, write_v3])
def test_an_episode_that_is_longer_than_its_entry_is_refused(tmp_path, write):
    episodes = LeRobotEpisodes(write(tmp_path / "set"))
    for episode, entry in episodes.entries.items():
        episodes.times_s(episode)
        episodes.entries[episode] = dataclasses.replace(entry, length=entry.length - 1)
        with pytest.raises(DataError, match="the episode is longer than meta/ says"):
            episodes.times_s(episode)
