"""Episode folders: pictures, states and sensor meet by time, never by position, and never from the future."""

import numpy as np
import pytest
from pydantic import ValidationError

from hfvla.data.rows.splits import grouped_split
from hfvla.data.samples.actions import ActionSample, action_features
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.rotations import apply_pose_delta
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.data.sources.episode_folders import (
    EpisodeFoldersOptions,
    build_episode_folders,
    count_episode_folders,
)
from hfvla.errors import DataError

from .episode_sets import (
    BASE_NS,
    FPS,
    MS,
    POSE,
    RATE_HZ,
    STATE,
    colour,
    ramp,
    recording,
    states_at,
    write_new,
    write_old,
)

WRITERS = {"new": (write_new, "episode_{}"), "old": (write_old, "recv_all_{}")}


def options_of(folder, **options):
    options = {"state": STATE, "gripper": "gripper", "cache_folder": str(folder.parent / "series"), **options}
    return EpisodeFoldersOptions(path=str(folder), **options)


def build(folder, **options):
    return build_episode_folders(options_of(folder, **options))


def samples_of(folder, **options):
    return [ActionSample.from_row(row) for row in build(folder, **options).dataset]


@pytest.fixture(scope="module", params=["new", "old"])
def folder(request, tmp_path_factory):
    """Three episodes of two tasks; the second one without a sensor."""
    root = tmp_path_factory.mktemp(request.param) / "set"
    write, name = WRITERS[request.param]
    write(root / "needle" / name.format(0), recording())
    write(root / "needle" / name.format(1), recording(0.8, sensor=False))
    write(root / "peg" / name.format(2), recording(1.0))
    return root


def last_before(times_ns, moment_ns):
    """Number of the last time at or before a moment, one by one."""
    return max(place for place, time_ns in enumerate(times_ns) if time_ns <= moment_ns)


def test_every_stream_is_found_by_its_own_clock(folder):
    made = recording()
    start_ns = max(times_ns[0] for times_ns in (made.states_ns, *made.pictures.values()))
    samples = [one for one in samples_of(folder, window_s=0.1) if "needle" in one.episode and one.episode[-1] == "0"]
    assert len(samples) == 13  # from View2's first picture to View1's last, at -0.095 s and 1.17 s (+- 0.009)
    loader = FrameLoader()
    wrong_by_position = 0
    for sample in samples:
        assert sample.timestamp == round(sample.index / FPS, 6)
        moment_ns = start_ns + round(sample.timestamp * 1e9)
        place = last_before(made.states_ns, moment_ns)
        np.testing.assert_allclose(sample.state, made.states[place, :6], atol=1e-6)
        for view, times_ns in made.pictures.items():
            place = last_before(times_ns, moment_ns)
            wrong_by_position += place != sample.index
            (pixels,) = loader.load([sample.views[view]])
            assert np.abs(pixels.astype(int) - colour(place)).max() <= 3
        window = SensorLoader().load(sample.sensor)
        inside = [t for t in made.sensor_ns if moment_ns - 100 * MS < t <= moment_ns]
        np.testing.assert_allclose(window.times_s, [(t - start_ns) / 1e9 for t in inside], rtol=0, atol=1.1e-6)
        np.testing.assert_allclose(window.values[:, 0], [(t - BASE_NS) / 1e9 for t in inside], rtol=0, atol=1e-6)
        np.testing.assert_allclose(window.values[:, 4] - window.values[:, 0], 3, atol=1e-5)
    assert wrong_by_position > 12  # a reader that matched by position would fail above


@pytest.mark.parametrize("window_s", [0.05, 0.1, 0.5])
def test_no_sample_from_the_future(folder, window_s):
    start_s = -0.095
    for sample in samples_of(folder, window_s=window_s):
        if sample.sensor is None:
            assert sample.episode.endswith("1")
            continue
        window = SensorLoader().load(sample.sensor)
        taken_s = window.values[:, 0] - start_s  # the values are times
        assert taken_s.max() <= sample.timestamp + 2e-6
        assert taken_s.max() > sample.timestamp - 1 / RATE_HZ - 2e-6  # nor does it stop short of what is known
        assert taken_s.min() > sample.timestamp - window_s - 2e-6
        assert window.values.shape[1] == 5


def test_actions_lead_to_the_next_pose_across_half_a_turn(folder):
    made = recording()
    samples = [one for one in samples_of(folder, horizon=3) if one.episode.endswith("0")]
    assert samples[0].actions.shape == (3, 7)
    turns = [sample.actions[0, 5] for sample in samples]
    np.testing.assert_allclose(turns, 4.0, atol=1e-3)  # 40 degrees a second, also from 179 to -177
    for sample in samples:
        poses = []
        for step in (sample.index, sample.index + 1):
            moment_ns = BASE_NS - 95 * MS + round(step / FPS * 1e9)
            poses.append(made.states[last_before(made.states_ns, moment_ns)])
        reached = apply_pose_delta(poses[0][6:12], sample.actions[0, :6].astype(float), "euler_degrees")
        np.testing.assert_allclose(reached[:3], poses[1][6:9], atol=1e-5)
        assert abs((reached[5] - poses[1][11] + 180) % 360 - 180) < 1e-4
        assert sample.actions[0, 6] == poses[1][12]
    assert samples[-1].action_mask.tolist() == [True, False, False] and not samples[-1].actions[1:].any()


def test_absolute_actions_metres_radians_and_a_state_by_default(tmp_path):
    root = tmp_path / "set"
    write_new(root / "peg" / "episode_0", recording())
    absolute = samples_of(root, action="absolute", state=None)[0]
    delta = samples_of(root, state=[])[0]
    metres = samples_of(root, position_unit="m", rotation="rotation_vector")[0]
    made = recording()
    row = made.states[last_before(made.states_ns, BASE_NS + 5 * MS)]
    np.testing.assert_allclose(absolute.actions[0], row[6:], atol=1e-5)
    assert absolute.state.shape == (7,) and delta.state.shape == (0,)
    np.testing.assert_allclose(metres.actions[0, :3], 1000 * delta.actions[0, :3], rtol=1e-4)
    assert np.linalg.norm(metres.actions[0, 3:6]) <= 180 and metres.actions.shape == delta.actions.shape
    without = samples_of(root, gripper=None)[0]
    np.testing.assert_array_equal(without.actions, delta.actions[:, :6])


def test_rows_census_count_and_tasks(folder):
    data = build(folder, window_s=0.45)
    assert data.dataset.features == action_features()
    samples = [ActionSample.from_row(row) for row in data.dataset]
    tasks = {sample.episode.split("/")[1]: sample.task for sample in samples}
    assert tasks == {"needle": "Perform needle insertion task", "peg": "Perform peg insertion task"}
    lengths = {name: sum(one.episode == name for one in samples) for name in {one.episode for one in samples}}
    assert sorted(lengths.values()) == [9, 11, 13] and count_episode_folders(options_of(folder)) == 33
    # The sensor starts 0.405 s before the first step: the window of that step alone is not full.
    assert data.census == {"found": 3, "usable": 3, "rejected": {}, "steps": 33, "without_sensor": 1,
                           "short_windows": 2, "steps_left_out": 0}  # fmt: skip
    dropped = build(folder, window_s=0.45, short="drop")
    assert dropped.census["steps_left_out"] == 2 and len(dropped.dataset) == 31
    assert count_episode_folders(options_of(folder, stride=5)) == len(build(folder, stride=5).dataset) == 3 + 2 + 3
    assert {one.source for one in samples} == {"episode_folders"} and len({one.id for one in samples}) == 33
    assert samples_of(folder, task="{task}!")[0].task == "needle!"


def test_the_action_before_a_step_is_known_where_steps_are_left_out(folder):
    done = {(one.episode, one.index): one.actions[0] for one in samples_of(folder)}
    thinned = samples_of(folder, stride=3)
    assert {one.index for one in thinned} >= {0, 3, 6}
    for one in thinned:
        if one.index:
            np.testing.assert_array_equal(one.previous_action, done[one.episode, one.index - 1])
        else:
            assert one.previous_action is None


def test_a_split_never_shares_an_episode(folder):
    groups = list(build(folder).dataset["group"])
    train, held = grouped_split(groups, 0.3, seed=0)
    assert not {groups[i] for i in train} & {groups[i] for i in held}
    assert groups == list(build(folder).dataset["episode"])


def test_metadata_names_the_task_and_layouts_are_chosen(tmp_path):
    root = tmp_path / "set"
    write_new(root / "a" / "episode_0", recording(), metadata={"task": "vial", "operator": 3})
    write_old(root / "b" / "recv_all_0", recording())
    found = {sample.details["layout"]: sample for sample in samples_of(root)}
    assert found["new"].task == "Perform vial insertion task" and found["old"].task == "Perform b insertion task"
    np.testing.assert_array_equal(found["new"].actions, found["old"].actions)
    for layout in ("new", "old"):
        assert {sample.details["layout"] for sample in samples_of(root, layout=layout)} == {layout}
    with pytest.raises(DataError, match="no episode"):
        build(root / "a", layout="old")
    with pytest.raises(DataError, match="no such folder"):
        build(tmp_path / "nowhere")
    assert [one.episode for one in samples_of(root / "a" / "episode_0")][:1] == ["episode_0"]


@pytest.mark.parametrize("clocks", [("ms", "s"), ("us", "ms"), ("ns", "us"), ("us", "ns")])
def test_units_of_clocks_are_told_apart(tmp_path, clocks):
    made = recording(aligned=True)
    write_new(tmp_path / "set" / "peg" / "episode_0", made, clocks=clocks)
    samples = samples_of(tmp_path / "set", window_s=0.1)
    assert len(samples) == 12
    for sample in samples:
        np.testing.assert_allclose(sample.state[0], sample.index / FPS, atol=1e-6)
        (pixels,) = FrameLoader().load([sample.views["View2"]])
        assert np.abs(pixels.astype(int) - colour(sample.index)).max() <= 3
    named = samples_of(tmp_path / "set", picture_clock=clocks[0], state_clock=clocks[1], sensor_clock="s")
    assert [one.views for one in named] == [one.views for one in samples]


def test_views_that_are_asked_for(folder):
    assert all(list(one.views) == ["View2"] for one in samples_of(folder, views=["View2"]))
    assert all(not one.views for one in samples_of(folder, views=[]))


def test_series_are_kept_once_and_by_content(tmp_path):
    root, cache = tmp_path / "set", tmp_path / "series"
    made = recording()
    write_new(root / "peg" / "episode_0", made)
    rows = build(root, window_s=0.1).dataset.to_list()
    (table,) = cache.iterdir()
    before = table.stat().st_mtime_ns
    assert build(root, window_s=0.1).dataset.to_list() == rows and table.stat().st_mtime_ns == before
    np.savez(root / "peg/episode_0/sensor_data.npz", timestamps=made.sensor_ns / 1e9, data=made.sensor + 1)
    changed = samples_of(root, window_s=0.1)[0]
    assert len(list(cache.iterdir())) == 2 and changed.sensor.path != str(table)
    old, new = (SensorLoader().load(ref).values for ref in (ActionSample.from_row(rows[0]).sensor, changed.sensor))
    np.testing.assert_allclose(new, old + 1, atol=1e-5)
    build(root)  # without a window, the sensor is not looked at
    early = samples_of(root, window_s=0.1, views=["View1"])[0]  # starts before View2 does, so its series is another
    starts_s = (made.pictures["View1"][0] - BASE_NS) / 1e9
    np.testing.assert_allclose(SensorLoader().load(early.sensor).values[-1, 0] - 1, starts_s, atol=1 / RATE_HZ)
    assert not [path for path in cache.iterdir() if path.suffix != ".parquet"]


def test_no_sample_between_two_clocks_that_round(tmp_path):
    """At 30 steps a second no step lies on a whole microsecond; each still sees the picture of its own time."""
    made = recording(aligned=True)
    made = made.but(pictures={"View1": ramp(0, 1.0, 30)}, states_ns=ramp(0, 1.1, 30))
    made = made.but(states=states_at(made.states_ns))
    write_new(tmp_path / "set" / "peg" / "episode_0", made)
    samples = samples_of(tmp_path / "set", fps=30)
    assert len(samples) == 30
    names = [path.stem for path in sorted((tmp_path / "set/peg/episode_0/images/View1").iterdir())]
    assert [sample.views["View1"].path.split("/")[-1][:-4] for sample in samples] == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizont": 3}, "horizont"),
        ({"pose": POSE[:5]}, "pose has 5 columns; euler_degrees needs 6"),
        ({"rotation": "quaternion_xyzw"}, "needs 7"),
        ({"task": "Do {what}"}, "no text with"),
        ({"picture_clock": "minutes"}, "picture_clock"),
        ({"fps": 0}, "fps"),
        ({"fps": float("inf")}, "fps"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(ValidationError, match=message):
        options_of(tmp_path, **options)
