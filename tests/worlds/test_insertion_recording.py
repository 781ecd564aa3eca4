import hashlib
import json

import numpy as np
import pytest
from pydantic import ValidationError

from hfvla.data.samples.actions import ActionSample
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.data.sources.lerobot import LeRobotEpisodes
from hfvla.errors import DataError
from hfvla.worlds.insertion import (
    InsertionEnv,
    InsertionOptions,
    build_insertion,
    count_insertion,
    evaluation_seeds,
    record,
)
from hfvla.worlds.insertion import recording as module
from hfvla.worlds.insertion.__main__ import main
from hfvla.worlds.insertion.environment import ACTION_LIMIT_M
from hfvla.worlds.insertion.expert import Demonstrator
from hfvla.worlds.insertion.recording import SUMMARY_FILE, recording_seed

from .insertion_checks import needs_pictures, needs_simulator

pytestmark = [needs_simulator, needs_pictures]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("insertion")
    return InsertionOptions(episodes=3, variant="hidden_offset", image_size=64, horizon=4, folder=str(folder))


@pytest.fixture(scope="module")
def data(options):
    return build_insertion(options, seed=5)


def relive(seed, noise_m):
    """Yield what the recorder must have seen, without it."""
    with InsertionEnv("hidden_offset", image_size=64) as env:
        demonstrator, disturb = Demonstrator(), np.random.default_rng([seed, 4])
        now, done = env.reset(seed), False
        demonstrator.reset(seed)
        while not done:
            action = demonstrator.act(env)
            yield now, action, {name: now.views[name] for name in now.views}
            noisy = action.astype(np.float64) + noise_m * np.append(disturb.normal(size=3), 0)
            now, done, _ = env.step(noisy)


def test_a_recording_reads_back_as_what_happened(options, data):
    frames, sensors = FrameLoader(), SensorLoader()
    rows = [ActionSample.from_row(row) for row in data.dataset]
    facts = json.loads((next(iter_folders(options)) / SUMMARY_FILE).read_text())
    second = [row for row in rows if row.episode == rows[-1].episode]
    steps = list(relive(facts["seeds"][-1], options.action_noise_m))
    assert len(second) == len(steps)
    actions = np.stack([action for _, action, _ in steps])
    for number, (row, (now, action, views)) in enumerate(zip(second, steps, strict=True)):
        assert row.timestamp == now.time_s and row.task == now.task and set(row.views) == {"corner", "wrist"}
        np.testing.assert_array_equal(row.state, now.state)
        np.testing.assert_array_equal(row.actions[0], action)
        ahead = actions[number : number + 4]
        np.testing.assert_array_equal(row.actions[: len(ahead)], ahead)
        assert row.action_mask.sum() == len(ahead)
        window = sensors.load(row.sensor)
        np.testing.assert_array_equal(window.values, now.sensor.values)
        np.testing.assert_allclose(window.times_s, now.sensor.times_s, rtol=0, atol=1e-9)
        if number % 8 == 0:
            for name, picture in views.items():
                (seen,) = frames.load([row.views[name]])
                assert np.abs(seen.astype(int) - picture).mean() < 5


def iter_folders(options):
    from pathlib import Path

    return (path for path in Path(options.folder).iterdir() if not path.name.startswith("."))


def test_rows_are_grouped_by_episode_and_counted(options, data):
    assert data.census["found"] == data.census["usable"] == 3 and data.census["failed"] == 0
    assert sum(data.census["directions"].values()) == 3
    assert len(set(data.dataset["group"])) == 3 and data.dataset["group"] == data.dataset["episode"]
    assert np.abs(np.array(data.dataset["actions"])[..., :3]).max() <= ACTION_LIMIT_M


def test_a_recording_on_disk_is_used_again(options, data, monkeypatch):
    def no_recording(*_, **__):
        raise AssertionError("recorded again")

    monkeypatch.setattr("hfvla.worlds.insertion.source.record", no_recording)
    again = build_insertion(options.model_copy(update={"horizon": 2, "stride": 3, "views": ["wrist"]}), seed=5)
    assert 0 < len(again.dataset) < len(data.dataset)
    assert [view["name"] for view in again.dataset[0]["views"]] == ["wrist"]
    assert build_insertion(options.model_copy(update={"sensor": False}), seed=5).dataset[0]["sensor"] is None
    with pytest.raises(DataError, match="no such camera.*wirst"):
        build_insertion(options.model_copy(update={"views": ["wirst"]}), seed=5)
    with pytest.raises(AssertionError, match="recorded again"):
        build_insertion(options, seed=6)
    assert len(list(iter_folders(options))) == 1  # nothing half-made stays


def test_count_is_exact_once_recorded(options, data):
    assert count_insertion(options.model_copy(update={"seed": 5})) == len(data.dataset)
    guess = count_insertion(options.model_copy(update={"seed": 99}))
    assert abs(guess / len(data.dataset) - 1) < 0.35


def test_the_same_arguments_give_the_same_files(tmp_path):
    def digests(name, seed):
        record(tmp_path / name, 2, variant="hidden_offset", image_size=48, seed=seed, views=("wrist",), progress=False)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {
            str(path.relative_to(tmp_path / name)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    first = digests("a", 1)
    assert len(first) >= 8 and first == digests("b", 1)
    other = digests("c", 2)
    assert all(
        other[name] != digest for name, digest in first.items() if name.startswith(("data", "videos", "sensors"))
    )


def test_only_successes_are_kept(tmp_path, monkeypatch):
    seen = []

    class Careless(Demonstrator):
        """Fails on its second episode."""

        def reset(self, seed):
            super().reset(seed)
            seen.append(seed)
            self.blind = len(seen) == 2

    monkeypatch.setattr(module, "Demonstrator", Careless)
    result = record(tmp_path / "d", 2, variant="hidden_offset", image_size=32, views=("wrist",), progress=False)
    assert (result.episodes, result.failed) == (2, 1) and result.seeds == [seen[0], seen[2]]
    assert len(LeRobotEpisodes(str(tmp_path / "d"))) == 2
    seen[:] = []
    monkeypatch.setattr(
        Careless, "reset", lambda self, seed: (Demonstrator.reset(self, seed), setattr(self, "blind", 1))
    )
    with pytest.raises(DataError, match="demonstrations fail; got '4 of 4'"):
        record(tmp_path / "e", 2, variant="hidden_offset", image_size=32, views=("wrist",), progress=False)
    assert not list(tmp_path.glob("*e*"))


def test_evaluation_seeds_are_never_recorded():
    held_out = set(evaluation_seeds(1000)) | set(evaluation_seeds(1000, first=999_000))
    recorded = {recording_seed(seed, split, attempt) for seed in range(4) for split in ("train", "test")
                for attempt in (0, 1, 49_999)}  # fmt: skip
    assert len(recorded) == 24 and not held_out & recorded and max(held_out) < min(recorded)
    for bad in ((0,), (1, -1), (2, 999_999)):
        with pytest.raises(DataError, match="no such evaluation seeds"):
            evaluation_seeds(*bad)
    with pytest.raises(DataError, match=r"got \(0, 50000\)"):
        recording_seed(0, "train", 50_000)


def test_bad_options_are_refused(tmp_path):
    for bad in ({"episodes": 0}, {"image_size": 65}, {"variant": "hiden"}, {"speed": 2}, {"views": []}):
        with pytest.raises(ValidationError):
            InsertionOptions(**bad)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("mine")
    with pytest.raises(DataError, match="the folder is there already"):
        record(tmp_path / "x", 1, progress=False)


def test_command_line_records_and_explains(tmp_path, caplog):
    assert main(["record", str(tmp_path / "cli"), "--episodes", "1", "--image-size", "32", "--views", "wrist"]) == 0
    assert "recorded 1 episodes (plain, grasped start" in caplog.text
    assert main(["record", str(tmp_path / "cli"), "--episodes", "1"]) == 2
    assert "the folder is there already" in caplog.text
