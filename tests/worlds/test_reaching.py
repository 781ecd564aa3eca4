"""Drawn reaching episodes: the same for a seed, solvable from what is shown, and a sensor that tells the contact."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from hfvla.data.samples.actions import FrameRef, SensorRef
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.errors import DataError
from hfvla.worlds.reaching import ReachingOptions, build_reaching, count_reaching, draw_episode
from hfvla.worlds.reaching.episodes import COLOURS


def drawn(seed, index, size=32, steps=24):
    task, found = draw_episode(seed, index, size, steps)
    return task, list(found)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return ReachingOptions(episodes=4, steps=10, with_sensor=0.5, folder=str(tmp_path_factory.mktemp("reaching")))


@pytest.fixture(scope="module")
def rows(options):
    return build_reaching(options, seed=5).dataset


def test_an_episode_is_a_function_of_seed_and_number():
    (task, one), (same, two), (_, other), (_, next_one) = (drawn(*key) for key in ((1, 0), (1, 0), (2, 0), (1, 1)))
    assert task == same
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.action, b.action) and np.array_equal(a.sensor, b.sensor)
        assert all(np.array_equal(a.views[view], b.views[view]) for view in a.views)
    assert not np.array_equal(one[0].state, other[0].state) and not np.array_equal(one[0].state, next_one[0].state)


def test_actions_are_the_way_to_the_next_state():
    for index in range(5):
        _, steps = drawn(0, index)
        for before, after in zip(steps, steps[1:], strict=False):
            np.testing.assert_allclose(before.state[:3] + before.action[:3], after.state[:3], atol=1e-6)
            assert np.linalg.norm(before.action[:2]) <= 0.08 + 1e-6


def test_the_hand_ends_on_the_named_square_and_presses():
    """The word decides which of two squares: the end is over the named colour, which 'front' shows."""
    for index in range(12):
        task, steps = drawn(3, index, size=64)
        colour = task.split()[2]
        column, row = np.clip(steps[-1].state[:2] * 64, 0, 63).astype(int)
        clean = steps[0].views["front"][max(0, row - 3) : row + 4, max(0, column - 3) : column + 4].reshape(-1, 3)
        assert (np.abs(clean.astype(int) - COLOURS[colour]).sum(1) == 0).mean() > 0.5, (index, task)
        assert steps[-1].state[2] == pytest.approx(-0.02, abs=1e-6)
        named = {tuple(pixel) for pixel in steps[0].views["front"].reshape(-1, 3).tolist()} & set(COLOURS.values())
        assert len(named) == 2


def test_the_wrist_sees_what_is_under_the_hand():
    _, steps = drawn(3, 0, size=64)
    over = steps[-1].views["wrist"][28:36, 28:36].reshape(-1, 3)
    assert {tuple(pixel) for pixel in over.tolist()} <= set(COLOURS.values())
    assert not np.array_equal(steps[0].views["wrist"], steps[-1].views["wrist"])


def test_the_sensor_tells_the_contact():
    _, steps = drawn(0, 1)
    touching = np.array([step.state[2] < 0 for step in steps])
    force_n = np.array([step.sensor[-1, 2] for step in steps])
    assert touching.any() and not touching.all()
    assert np.abs(force_n[~touching]).max() < 0.5 and np.abs(force_n[touching] - 400 * 0.02).max() < 0.5


def test_rows_are_the_drawn_steps(options, rows):
    assert len(rows) == count_reaching(options) == 40
    frames, series = FrameLoader(), SensorLoader()
    for row in rows.select([0, 7, 13, 39]):
        episode = int(row["episode"].rpartition("_")[2])
        task, steps = drawn(5, episode, steps=10)
        step = steps[row["index"]]
        assert row["task"] == task and row["timestamp"] == pytest.approx(row["index"] / 20)
        found = frames.load([FrameRef(**{k: v for k, v in view.items() if k != "name"}) for view in row["views"]])
        for view, pixels in zip(row["views"], found, strict=True):
            assert np.array_equal(pixels, step.views[view["name"]])
        chunk = [later.action for later in steps[row["index"] : row["index"] + 4]]
        np.testing.assert_allclose(np.asarray(row["actions"])[row["action_mask"]], chunk)
        if episode < 2:
            window = series.load(SensorRef(**row["sensor"]))
            assert window.times_s[-1] == pytest.approx(row["timestamp"], abs=1e-9)
            np.testing.assert_allclose(window.values[-1], step.sensor[-1])
            assert len(window.times_s) == (1 if row["index"] == 0 else 16)  # 0.04 s of 400 Hz; the first is short
        else:
            assert row["sensor"] is None


def test_what_is_on_disk_is_read_again(options, rows, monkeypatch):
    monkeypatch.setattr("hfvla.worlds.reaching.source._write", None)
    assert build_reaching(options, seed=5).dataset[3] == rows[3]
    assert build_reaching(options.model_copy(update={"seed": 5}), seed=77).dataset["id"] == rows["id"]
    longer = build_reaching(options.model_copy(update={"horizon": 6, "window_s": 0.02}), seed=5)
    assert np.shape(longer.dataset[0]["actions"]) == (6, 4)  # read otherwise, drawn once


def test_other_options_are_another_folder(options, rows):
    folder = build_reaching(options, seed=5).census["folder"]
    other = build_reaching(options.model_copy(update={"episodes": 1}), seed=5).census["folder"]
    assert folder != other and json.loads(Path(other, "meta/info.json").read_text())["total_episodes"] == 1
    for share, episodes in ((0.0, 2), (0.5, 1)):  # half of one episode is none
        deaf = build_reaching(options.model_copy(update={"with_sensor": share, "episodes": episodes}), seed=5)
        assert list(deaf.dataset["sensor"]) == [None] * 10 * episodes


def test_what_is_refused(tmp_path):
    for wrong in ({"image_size": 30}, {"steps": 1}, {"with_sensor": 1.5}, {"episode": 3}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            ReachingOptions(**wrong)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="drawn episodes cannot be written; got 'Not a directory'"):
        build_reaching(ReachingOptions(episodes=1, steps=2, folder=str(tmp_path / "file")))
