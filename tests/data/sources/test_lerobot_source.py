"""LeRobot data as rows: one clock for pictures, actions and sensor, nothing past the end, nothing from the future."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from hfvla.data.rows.splits import grouped_split
from hfvla.data.samples.actions import ActionSample, FrameRef, SensorRef, action_features, build_action_dataset
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.data.sources.lerobot import LeRobotOptions, build_lerobot, count_lerobot
from hfvla.errors import DataError

from .lerobot_sets import FPS, LENGTHS, RATE_HZ, picture, touch, write_v3, write_v21


@pytest.fixture(scope="module")
def v3(tmp_path_factory):
    return write_v3(tmp_path_factory.mktemp("v3") / "set")


def build(folder, **options):
    return build_lerobot(LeRobotOptions(path=str(folder), **options))


def samples_of(folder, **options):
    return [ActionSample.from_row(row) for row in build(folder, **options).dataset]


def test_rows_know_their_place(v3):
    data = build(v3, horizon=3)
    assert data.dataset.features == action_features()
    assert data.census == {"found": 3, "usable": 3, "rejected": {}, "steps": 19, "absent": 0,
                           "without_sensor": 0, "short_windows": 0, "steps_left_out": 0}  # fmt: skip
    samples = [ActionSample.from_row(row) for row in data.dataset]
    places = [(episode, step) for episode, length in enumerate(LENGTHS) for step in range(length)]
    pictures = FrameLoader().load([ref for sample in samples for ref in sample.views.values()])
    for number, (sample, (episode, step)) in enumerate(zip(samples, places, strict=True)):
        assert sample.id == f"set/episode_{episode:06d}:{step}" and sample.group == sample.episode
        assert sample.timestamp == step / FPS and sample.task == f"task {episode % 2}" and sample.sensor is None
        np.testing.assert_array_equal(sample.state, [episode, step, 0.5])
        assert list(sample.views) == ["front", "wrist"] and sample.state.dtype == np.float32
        assert np.abs(pictures[2 * number].astype(int) - picture(episode, step, 0)).max() <= 8
        np.testing.assert_array_equal(pictures[2 * number + 1], picture(episode, step, 1))


def test_chunks_stop_at_the_episodes_end(v3):
    for sample in samples_of(v3, horizon=4):
        episode = int(sample.episode[-1])
        ahead = sample.index + np.arange(4)
        valid = ahead < LENGTHS[episode]
        np.testing.assert_array_equal(sample.action_mask, valid)
        np.testing.assert_array_equal(sample.actions[valid], np.stack([10 * episode + ahead, -ahead], 1)[valid])
        assert not sample.actions[~valid].any()


def test_a_horizon_longer_than_an_episode(v3):
    sample = samples_of(v3, horizon=20, episodes=[2])[0]
    assert sample.actions.shape == (20, 2) and sample.action_mask.sum() == LENGTHS[2]


def test_stride_views_state_and_count(v3):
    options = {"stride": 4, "views": ["wrist"], "state": ["action", "observation.state"], "episodes": [0, 1]}
    samples = samples_of(v3, **options)
    assert [sample.index for sample in samples] == [0, 4, 0, 4, 8]
    assert count_lerobot(LeRobotOptions(path=str(v3), **options)) == 5
    np.testing.assert_array_equal(samples[3].state, [14, -4, 1, 4, 0.5])
    assert [*samples[0].views] == ["wrist"] and samples[1].views["wrist"].row == 4
    assert samples_of(v3, state=[])[0].state.shape == (0,)


def test_the_action_before_a_step_is_known_where_steps_are_left_out(v3):
    done = {(one.episode, one.index): one.actions[0] for one in samples_of(v3)}
    thinned = samples_of(v3, stride=3)
    assert {one.index for one in thinned} >= {0, 3, 6}
    for one in thinned:
        if one.index:
            np.testing.assert_array_equal(one.previous_action, done[one.episode, one.index - 1])
        else:
            assert one.previous_action is None


def test_no_split_cuts_an_episode(v3):
    groups = build(v3).dataset["group"]
    train, held = grouped_split(list(groups), 0.3, seed=0)
    assert not {groups[i] for i in train} & {groups[i] for i in held}


@pytest.mark.parametrize("window_s", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("name", ["touch", "observation.force"])
def test_windows_end_at_the_step_never_later(v3, name, window_s):
    loader = SensorLoader()
    rate_hz = RATE_HZ if name == "touch" else 4 * FPS
    for sample in samples_of(v3, sensor={"name": name, "window_s": window_s}):
        window = loader.load(sample.sensor)
        assert window.times_s[-1] <= sample.timestamp + 1e-9
        assert window.times_s[-1] > sample.timestamp - 1 / rate_hz - 1e-9  # nor does it stop short of what is known
        assert window.times_s[0] > sample.timestamp - window_s - 1e-9
        if name == "touch":
            np.testing.assert_allclose(window.values[:, 0], window.times_s, rtol=1e-6)
            full = [t for t in touch(LENGTHS[int(sample.episode[-1])])[0]
                    if sample.timestamp - window_s + 1e-9 < t <= sample.timestamp + 1e-9]  # fmt: skip
            assert len(window.values) == len(full)
        else:
            last = 4 * sample.index + 3
            count = min(round(window_s * rate_hz), last + 1)
            np.testing.assert_array_equal(window.values[:, 0], np.arange(last - count + 1, last + 1))
            np.testing.assert_allclose(np.diff(window.times_s), 1 / rate_hz)


def test_short_windows_are_counted_or_left_out(v3):
    kept = build(v3, sensor={"name": "touch", "window_s": 0.25})
    dropped = build(v3, sensor={"name": "touch", "window_s": 0.25, "short": "drop"})
    assert kept.census["short_windows"] == dropped.census["steps_left_out"] == 9  # steps at 0.0, 0.1 and 0.2 s
    assert len(kept.dataset) == 19 and dropped.census["steps"] == len(dropped.dataset) == 10
    assert min(dropped.dataset["index"]) == 3


def test_with_and_without_sensor_mix(tmp_path):
    folder = write_v3(tmp_path / "set", sensors=lambda episode: touch(LENGTHS[episode]) if episode == 1 else None)
    data = build(folder, sensor={"name": "touch", "window_s": 0.2})
    assert data.census["without_sensor"] == 2
    assert {row["episode"][-1]: row["sensor"] is None for row in data.dataset} == {"0": True, "1": False, "2": True}


def with_nan(folder, episode):
    path = folder / f"sensors/touch/episode_{episode:06d}.parquet"
    table = pq.read_table(path, partitioning=None)
    values = np.array(table["values"].to_pylist(), dtype=np.float32)
    values[7, 1] = np.nan
    pq.write_table(table.set_column(1, "values", [list(values)]), path)


@pytest.mark.parametrize(
    ("series", "reason", "detail"),
    [
        (lambda t, v: (t + 100, v), "sensor clock and frames do not overlap", "100.000 to 100.877 s"),
        (lambda t, v: (t - 100, v), "sensor clock and frames do not overlap", "frames 0.000 to 0.800 s"),
        (lambda t, v: (t[:20], v[:20]), "sensor ends before the episode", "at 0.292 s, episode at 0.800 s"),
        (lambda t, v: (np.delete(t, range(10, 20)), np.delete(v, range(10, 20), 0)), "gap in the sensor", "0.169 s"),
    ],
)
def test_sensors_that_do_not_fit_take_their_episode_out(tmp_path, series, reason, detail):
    def sensors(episode):
        times_s, values = touch(LENGTHS[episode])
        return series(times_s, values) if episode == 1 else (times_s, values)

    folder = write_v3(tmp_path / "set", sensors=sensors)
    options = {"sensor": {"name": "touch", "window_s": 0.2}}
    with pytest.raises(DataError, match=f"1 of 3 records are unusable.*{reason}"):
        build(folder, **options)
    data = build(folder, max_bad_fraction=0.5, **options)
    assert [*data.rejected] == ["set/episode_000001"] and data.census["usable"] == 2
    (found,) = data.census["rejected"].values()
    assert found["count"] == 1 and detail in found["first"] and "set/episode_000001" in found["first"]
    assert {row["episode"][-1] for row in data.dataset} == {"0", "2"}


def test_nan_in_the_sensor(tmp_path):
    folder = write_v3(tmp_path / "set")
    with_nan(folder, 2)
    data = build(folder, max_bad_fraction=0.5, sensor={"name": "touch", "window_s": 0.2})
    assert "sample 7 at 0.108 s" in data.rejected["set/episode_000002"]


def break_video(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.unlink(), "video file cannot be read"),
        (break_video, "truncated"),
        (lambda path: path.write_text("no video"), "not a video"),
    ],
)
def test_a_broken_video_in_the_middle(tmp_path, harm, reason):
    folder = write_v21(tmp_path / "set")
    harm(next(folder.glob("videos/*/*/episode_000001.mp4")))
    data = build(folder, max_bad_fraction=0.5)
    assert [*data.rejected] == ["set/episode_000001"] and reason in data.rejected["set/episode_000001"]
    assert len(data.dataset) == LENGTHS[0] + LENGTHS[2]
    assert len(build(folder, views=[]).dataset) == sum(LENGTHS)


def test_a_short_video_an_empty_episode_and_nan(tmp_path):
    folder = write_v21(tmp_path / "set")
    videos = sorted(folder.glob("videos/*/*/*.mp4"))
    names = {path.stem: path for path in videos}
    names["episode_000001"].write_bytes(names["episode_000002"].read_bytes())
    data = build(folder, max_bad_fraction=0.5)
    assert "video is shorter than the episode" in data.rejected["set/episode_000001"]
    path = folder / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path, partitioning=None)
    actions = table["action"].to_pylist()
    actions[3][1] = float("nan")
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", [actions]), path)
    lines = (folder / "meta/episodes.jsonl").read_text().replace('"length": 4', '"length": 0')
    (folder / "meta/episodes.jsonl").write_text(lines)
    data = build(folder, max_bad_fraction=1.0)
    assert "action[1] of step 3: nan" in data.rejected["set/episode_000000"]
    assert "the episode is empty" in data.rejected["set/episode_000002"] and len(data.dataset) == 0


def test_absent_episodes_are_a_note(tmp_path):
    folder = write_v21(tmp_path / "set", skip=(0, 2))
    data = build(folder)
    assert (data.census["found"], data.census["absent"], len(data.dataset)) == (1, 2, LENGTHS[1])
    assert count_lerobot(LeRobotOptions(path=str(folder))) == LENGTHS[1]
    with pytest.raises(DataError, match="no episode is on disk"):
        build(folder, episodes=[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": ["frnt"]}, "no such camera; got 'frnt'. Did you mean 'front'"),
        ({"action": "actions"}, "no such feature; got 'actions'. Did you mean 'action'"),
        ({"action": "observation.force"}, r"actions are not vectors; got \(4, 2\)"),
        ({"state": ["observation.images.front"]}, "neither state nor action"),
        ({"sensor": {"name": "tuch", "window_s": 1.0}}, "no such sensor; got 'tuch'. Did you mean 'touch'"),
        ({"sensor": {"name": "observation.images.wrist", "window_s": 1.0}}, "not a sensor series"),
        ({"episodes": [9]}, "no such episode; got 9"),
        ({"tolerance_s": 0.05}, "no such tolerance"),
    ],
)
def test_options_that_do_not_fit(v3, options, message):
    with pytest.raises(DataError, match=message):
        build(v3, **options)


def test_unknown_options_are_refused():
    with pytest.raises(ValidationError, match="horizont"):
        LeRobotOptions(path="x", horizont=3)


def test_rows_without_samples_and_of_other_shapes():
    assert len(build_action_dataset([])) == 0 and build_action_dataset([]).features == action_features()
    kind = {"episode": "e", "timestamp": 0.0, "task": "t", "views": {"front": FrameRef("a.png")}}
    arrays = {"state": np.zeros(2, np.float32), "action_mask": np.ones(3, bool)}
    good = ActionSample(**kind, **arrays, index=0, actions=np.zeros((3, 2), np.float32), details={"a": "b"})
    assert build_action_dataset([good])[0] == good.to_row()
    back = ActionSample.from_row(good.to_row())
    assert back.views == good.views and back.details == {"a": "b"} and back.group == "e"
    wide = ActionSample(**kind, **arrays, index=1, actions=np.zeros((3, 5), np.float32))
    with pytest.raises(DataError, match=r"e:1: actions of another shape.*\(3, 5\); expected \(3, 2\)"):
        build_action_dataset([good, wide])
    with pytest.raises(DataError, match="impossible shapes"):
        build_action_dataset([ActionSample(**kind, **arrays, index=1, actions=np.zeros((4, 2), np.float32))])
    before = {"actions": np.zeros((3, 2), np.float32), "previous_action": np.zeros(5, np.float32)}
    with pytest.raises(DataError, match=r"e:1: the action before a step.*\(5,\); expected \(2,\)"):
        build_action_dataset([ActionSample(**kind, **arrays, index=1, **before)])


def test_a_window_from_the_future_is_refused(v3):
    path = str(v3 / "sensors/touch/episode_000001.parquet")
    with pytest.raises(DataError, match="reaches past the step"):
        SensorLoader().load(SensorRef(path, "values", 0, 40, 0.5, 0.0, "timestamp"))


def test_a_list_of_episodes_that_was_cut_off_is_counted(tmp_path):
    folder = write_v21(tmp_path / "set", lengths=(6, 9, 4))
    path = folder / "meta/episodes.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(DataError, match="1 of 3 records are unusable .1 episode is not named.*total_episodes says 3"):
        build_lerobot(LeRobotOptions(path=str(folder)))
    data = build_lerobot(LeRobotOptions(path=str(folder), max_bad_fraction=0.5))
    assert data.census["found"] == 3 and data.census["usable"] == 2 and data.rejected == {}


def test_a_sensor_with_other_channels_in_one_episode_takes_it_out(tmp_path):
    def sensors(episode):
        times_s, values = touch(LENGTHS[episode])
        return times_s, values if episode != 1 else np.c_[values, values]

    folder = write_v3(tmp_path / "set", sensors=sensors)
    options = LeRobotOptions(path=str(folder), sensor={"name": "touch", "window_s": 0.2}, max_bad_fraction=0.5)
    data = build_lerobot(options)
    assert list(data.census["rejected"]) == ["wrong sensor dimension"] and data.census["usable"] == 2
    assert "4 channels, expected 2" in data.rejected["set/episode_000001"]
