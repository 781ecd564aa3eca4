"""HDF5 episodes: rows are steps, pictures of every kind of storage, and a sensor that is found by its timestamps."""

import pickle
import shutil
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from hfvla.data.rows.splits import grouped_split
from hfvla.data.samples.actions import ActionSample, FrameRef, action_features
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.data.sources.hdf5_episodes import Hdf5EpisodesOptions, build_hdf5_episodes, count_hdf5_episodes
from hfvla.data.sources.hdf5_rows import Hdf5Rows
from hfvla.errors import DataError, MissingExtraError

from .episode_sets import BASE_NS, FPS, RATE_HZ, picture, ramp, recording, sensor_at, write_hdf5

h5py = pytest.importorskip("h5py")
PICTURES = {"a": "raw", "b": "padded", "c": "vlen"}
LENGTHS = {"a": 12, "b": 8, "c": 10}


def options_of(folder, **options):
    return Hdf5EpisodesOptions(path=str(folder), cache_folder=str(folder.parent / "series"), **options)


def build(folder, **options):
    return build_hdf5_episodes(options_of(folder, **options))


def samples_of(folder, **options):
    return [ActionSample.from_row(row) for row in build(folder, **options).dataset]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three episodes, each with another storage of pictures; the second without a sensor."""
    root = tmp_path_factory.mktemp("hdf5") / "set"
    for name, kind in PICTURES.items():
        made = recording(LENGTHS[name] / FPS, sensor=name != "b", aligned=True)
        if name != "b":  # the sensor starts 0.305 s before the first step
            sensor_ns = ramp(-305, LENGTHS[name] / FPS + 0.4, RATE_HZ)
            made = made.but(sensor_ns=sensor_ns, sensor=sensor_at(sensor_ns))
        write_hdf5(root / f"{name}.hdf5", made, pictures=kind)
    return root


def test_rows_and_pictures_of_every_storage(folder):
    data = build(folder, state=["ee_pose", "qpos"])
    assert data.dataset.features == action_features()
    assert data.census == {"found": 3, "usable": 3, "rejected": {}, "steps": 30, "without_sensor": 0,
                           "short_windows": 0, "steps_left_out": 0}  # fmt: skip
    assert count_hdf5_episodes(options_of(folder)) == 30
    assert count_hdf5_episodes(options_of(folder, stride=5)) == len(build(folder, stride=5).dataset) == 3 + 2 + 2
    samples = [ActionSample.from_row(row) for row in data.dataset]
    pictures = FrameLoader().load([ref for sample in samples for ref in sample.views.values()])
    for number, sample in enumerate(samples):
        name = sample.episode.removeprefix("set/").removesuffix(".hdf5")
        tolerance = 0 if PICTURES[name] == "raw" else 3
        for view in range(2):
            gap = np.abs(pictures[2 * number + view].astype(int) - picture(sample.index)).max()
            assert gap <= tolerance
        assert sample.timestamp == sample.index / FPS and sample.task == "Perform peg insertion task"
        assert sample.state.shape == (12,) and abs(sample.state[6] - sample.index / FPS) < 1e-6
        assert sample.actions.shape == (8, 7) and sample.action_mask.sum() == min(8, LENGTHS[name] - sample.index)


@pytest.mark.parametrize("window_s", [0.05, 0.3])
def test_windows_end_at_the_step_never_later(folder, window_s):
    samples = samples_of(folder, window_s=window_s)
    for sample in samples:
        if sample.episode == "set/b.hdf5":
            assert sample.sensor is None
            continue
        window = SensorLoader().load(sample.sensor)
        sensor_ns = ramp(-305, LENGTHS[sample.episode[4]] / FPS + 0.4, RATE_HZ)
        moment_ns = BASE_NS + round(sample.timestamp * 1e9)
        inside = (sensor_ns > moment_ns - round(window_s * 1e9)) & (sensor_ns <= moment_ns)
        np.testing.assert_allclose(window.times_s, (sensor_ns[inside] - BASE_NS) / 1e9, rtol=0, atol=1.1e-6)
        np.testing.assert_array_equal(window.values, sensor_at(sensor_ns[inside]))
    data = build(folder, window_s=0.3)
    assert data.census["without_sensor"] == 1 and data.census["short_windows"] == 0
    assert build(folder, window_s=0.35).census["short_windows"] == 2


def test_small_times_are_seconds(tmp_path):
    path = write_hdf5(tmp_path / "set/a.h5", recording(aligned=True))
    with h5py.File(path, "a") as file:
        file["timestamp"][:] = np.arange(12) / FPS
        file["observations/sensor/timestamp"][:] -= BASE_NS / 1e9
    for clock in ("auto", "s"):
        first = samples_of(tmp_path / "set", clock=clock, window_s=0.1)
        assert len(first) == 12 and abs(SensorLoader().load(first[5].sensor).times_s[-1] - 0.5) < 1 / RATE_HZ
    assert [one.episode for one in samples_of(path)][0] == "a.h5"
    with h5py.File(path, "a") as file:
        file["timestamp"][:] *= 1000.0  # milliseconds, which a recipe must say
    with pytest.raises(DataError, match=r"steps are not at the control rate.*100.000 s from step 0"):
        build(tmp_path / "set")
    assert len(samples_of(tmp_path / "set", clock="ms")) == 12


def test_a_split_never_shares_an_episode(folder):
    groups = list(build(folder).dataset["group"])
    train, held = grouped_split(groups, 0.3, seed=0)
    assert not {groups[i] for i in train} & {groups[i] for i in held}
    assert len(set(groups)) == 3


def drop(name):
    def harm(file):
        del file[name]

    return harm


def put(name, make):
    def harm(file):
        value = make(file[name][()])
        del file[name]
        file[name] = value

    return harm


def with_value(place, value):
    def make(values):
        values = values.copy()
        values[place] = value
        return values

    return make


def rename(old, new):
    return lambda file: file.move(old, new)


SENSOR, IMAGES = "observations/sensor", "observations/images"
BAD = {
    "no action": (rename("action", "actions"), "dataset is missing", "action. Did you mean 'actions'"),
    "no timestamp": (drop("timestamp"), "dataset is missing", "timestamp. Known: action, observations"),
    "no qpos": (rename("observations/qpos", "observations/q_pos"), "dataset is missing", "'observations/q_pos'"),
    "action lengths": (put("action", lambda v: v[:-1]), "lengths differ", "12 of timestamp, 11 of action"),
    "state lengths": (put("observations/qpos", lambda v: v[:-2]), "lengths differ", "10 of observations/qpos"),
    "picture lengths": (put(f"{IMAGES}/View1", lambda v: v[:-1]), "lengths differ", "11 of observations/images/View1"),
    "flat action": (put("action", lambda v: v[:, 0]), "actions are not vectors", "(12,)"),
    "wide action": (put("action", lambda v: np.c_[v, v]), "wrong action dimension", "14 channels, expected 7"),
    "wide state": (put("observations/qpos", lambda v: v[:, :2]), "wrong state dimension", "2 channels, expected 6"),
    "text action": (put("action", lambda v: np.full(v.shape, b"x")), "not numbers", "action"),
    "empty": (put("action", lambda v: v[:0]), "empty episode", "(0, 7)"),
    "nan action": (put("action", with_value((3, 2), np.nan)), "value is not finite", "action[2] of step 3: nan"),
    "inf state": (put("observations/qpos", with_value((4, 1), np.inf)), "value is not finite", "qpos[1] of step 4"),
    "nan time": (put("timestamp", with_value(4, np.nan)), "a time is not finite", "sample 4"),
    "float32 times": (put("timestamp", lambda v: v.astype(np.float32)), "times are not float64", "float32"),
    "falling": (put("timestamp", lambda v: v[::-1].copy()), "timestamps do not ascend", "step 1"),
    "repeated": (put("timestamp", lambda v: np.r_[v[:5], v[4:-1]]), "timestamps do not ascend", "step 5"),
    "pause": (put("timestamp", lambda v: v + (np.arange(12) > 6)), "steps are not at the control rate", "1.100 s"),
    "no view": (drop(f"{IMAGES}/View2"), "view is missing", "View2. Did you mean 'View1'"),
    "no pictures": (put(f"{IMAGES}/View2", lambda v: v[..., :2].astype(float)), "the dataset holds no pictures",
                    "float64 (12, 32, 48, 2)"),
    "broken picture": (put(f"{IMAGES}/View2", lambda v: np.zeros((12, 90), np.uint8)), "picture cannot be read",
                       "View2[0]"),
    "no sensor time": (drop(f"{SENSOR}/timestamp"), "dataset is missing", "observations/sensor/timestamp"),
    "no sensor values": (lambda f: [drop(f"{SENSOR}/{name}")(f) for name in ("force", "aline")],
                         "dataset is missing", "force or observations/sensor/aline"),
    "sensor lengths": (put(f"{SENSOR}/force", lambda v: v[:-1]), "lengths differ", "of observations/sensor/force"),
    "sensor channels": (drop(f"{SENSOR}/force"), "wrong sensor dimension", "4 channels, expected 5"),
    "sensor nan": (put(f"{SENSOR}/aline", with_value((9, 1), np.nan)), "sensor value is not finite", "sample 9"),
    "sensor late": (put(f"{SENSOR}/timestamp", lambda v: v + 60), "sensor clock and frames do not overlap",
                    "b.hdf5: sensor 60.000"),
    "sensor ends": (put(f"{SENSOR}/timestamp", lambda v: v - 0.5), "sensor ends before the episode", "1.100 s"),
    "sensor falls": (put(f"{SENSOR}/timestamp", lambda v: v[::-1].copy()), "sensor times do not ascend", "sample 1"),
    "sensor empty": (lambda f: [put(f"{SENSOR}/{n}", lambda v: v[:0])(f) for n in ("force", "aline", "timestamp")],
                     "empty sensor series", "observations/sensor"),
    "task": (lambda f: f.attrs.update({"task": 3}), "task is no text", "3"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "set"
    for name in ("a", "b"):
        write_hdf5(root / f"{name}.hdf5", recording(aligned=True))
    return root


def expect_second_refused(root, reason, detail):
    options = {"window_s": 0.1, "views": ["View1", "View2"]}
    with pytest.raises(DataError, match=f"1 of 2 records are unusable \\(1 {reason}\\)"):
        build(root, **options)
    data = build(root, max_bad_fraction=0.5, **options)
    assert [*data.rejected] == ["set/b.hdf5"] and detail in data.rejected["set/b.hdf5"]
    assert data.census["rejected"][reason]["count"] == 1 and "b.hdf5" in data.census["rejected"][reason]["first"]
    assert set(data.dataset["episode"]) == {"set/a.hdf5"} and data.census["usable"] == 1


@pytest.mark.parametrize("name", BAD)
def test_bad_episodes_are_named_and_counted(sound, tmp_path, name):
    harm, reason, detail = BAD[name]
    root = shutil.copytree(sound, tmp_path / "set")
    with h5py.File(root / "b.hdf5", "a") as file:
        harm(file)
    expect_second_refused(root, reason, detail)


@pytest.mark.parametrize("harm", [lambda b: b[: len(b) // 2], lambda b: b"no file"], ids=["truncated", "no HDF5"])
def test_broken_files(sound, tmp_path, harm):
    root = shutil.copytree(sound, tmp_path / "set")
    (root / "b.hdf5").write_bytes(harm((root / "b.hdf5").read_bytes()))
    expect_second_refused(root, "HDF5 file cannot be read", "b.hdf5")
    assert count_hdf5_episodes(options_of(root)) == 12


def test_short_sensor_wrong_dimension_and_nothing_there(sound, tmp_path):
    with pytest.raises(DataError, match="2 sensor is shorter than the window"):
        build(sound, window_s=30.0)
    with pytest.raises(DataError, match="2 wrong action dimension.*7 channels, expected 4"):
        build(sound, action_dim=4)
    with pytest.raises(DataError, match="no such file or folder"):
        build(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no episode"):
        build(tmp_path)
    with pytest.raises(ValidationError, match="horizont"):
        options_of(tmp_path, horizont=2)


def test_without_h5py_the_extra_is_named(sound, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    for use in (build_hdf5_episodes, count_hdf5_episodes):
        with pytest.raises(MissingExtraError, match=r"hfvla\[actions\]"):
            use(options_of(sound))


def test_a_forked_child_opens_files_of_its_own(sound):
    import multiprocessing

    rows, name = Hdf5Rows(), "observations/images/View1"
    rows.picture(sound / "a.hdf5", name, 0)
    (inherited,) = rows._files.values()

    def child(answers):
        pixels = rows.picture(sound / "a.hdf5", name, 3)
        answers.put((bool(np.array_equal(pixels, picture(3))), bool(inherited)))

    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=child, args=(answers,))
    process.start()
    assert answers.get(timeout=60) == (True, False)  # read, and not through what the parent has open
    process.join()
    assert inherited
    np.testing.assert_array_equal(rows.picture(sound / "a.hdf5", name, 4), picture(4))
    rows.close()


def test_pictures_by_row(sound, tmp_path):
    path = str(shutil.copy(sound / "a.hdf5", tmp_path / "a.hdf5"))
    rows = Hdf5Rows(open_files=1)
    name = "observations/images/View1"
    np.testing.assert_array_equal(rows.picture(path, name, 3), picture(3))
    np.testing.assert_array_equal(rows.picture(sound / "b.hdf5", name, 4), picture(4))
    again = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(again.picture(path, name, 5), picture(5))
    for dataset, row, message in (
        ("observations/images", 0, "no such dataset"),
        ("x", 0, "no such dataset; got 'x'"),
        (name, 12, "no such picture; got 12"),
        ("timestamp", 0, "holds no pictures"),
    ):
        with pytest.raises(DataError, match=message):
            FrameLoader().load([FrameRef(path, None, dataset, row)])  # fmt: skip
    with pytest.raises(DataError, match=r"gone\.h5"):
        rows.picture(tmp_path / "gone.h5", name, 0)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file[name] = np.stack([picture(9)] * 12)
    again.picture(path, name, 5)
    shutil.copy(tmp_path / "other.hdf5", path)
    np.testing.assert_array_equal(again.picture(path, name, 5), picture(9))  # a changed file is opened anew
    rows.close()
    again.close()
