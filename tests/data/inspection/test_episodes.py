"""Robot episodes as LeRobot sets: read back step for step, with the whole sensor."""

import numpy as np
import pytest

from hfvla.data.inspection.episodes import convert_episodes, is_episodes
from hfvla.data.samples.actions import ActionSample
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.data.sources.episode_folders import EpisodeFoldersOptions, build_episode_folders
from hfvla.data.sources.lerobot import LeRobotOptions, build_lerobot
from hfvla.errors import DataError

from ..sources.episode_sets import FPS, recording, write_new
from .sets import data_of, sample


@pytest.fixture
def folder(tmp_path):
    for number in range(2):
        write_new(tmp_path / "task" / f"episode_{number}", recording(1.2 + 0.3 * number))
    return tmp_path / "task"


def episodes(folder, **options):
    given = {"window_s": 0.2, "cache_folder": str(folder.parent / "cache"), "fps": FPS, **options}
    return build_episode_folders(EpisodeFoldersOptions(path=str(folder), **given)).dataset


def samples(rows):
    return [ActionSample.from_row(row) for row in rows]


def test_steps_come_back_as_they_were(folder, tmp_path):
    rows = episodes(folder)
    found = convert_episodes(rows, tmp_path / "out", lossless=True)
    assert (found["episodes"], found["rows"], found["fps"]) == (2, len(rows), FPS)
    options = LeRobotOptions(path=str(tmp_path / "out"), horizon=8, sensor={"name": "sensor", "window_s": 0.2})
    before, after = samples(rows), samples(build_lerobot(options).dataset)
    assert len(before) == len(after)
    frames, sensors = FrameLoader(), SensorLoader()
    for one, other in zip(before, after, strict=True):
        assert one.task == other.task and one.index == other.index
        np.testing.assert_allclose(one.state, other.state)
        np.testing.assert_allclose(one.actions[0], other.actions[0], atol=1e-6)
        pictures = [frames.load(list(step.views.values())) for step in (one, other)]
        assert all(np.array_equal(a, b) for a, b in zip(*pictures, strict=True))
    last = [sensors.load(steps[-1].sensor) for steps in (before, after)]
    np.testing.assert_allclose(last[0].values, last[1].values)


def test_the_sensor_is_written_whole(folder, tmp_path):
    rows = episodes(folder)
    found = convert_episodes(rows, tmp_path / "out", lossless=True)
    steps = samples(rows)
    numbers = {(one.episode, n) for one in steps for n in range(one.sensor.first, one.sensor.first + one.sensor.count)}
    assert found["sensor_samples"] == len(numbers)


def test_windows_that_leave_samples_out_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="leave samples out.*window_s"):
        convert_episodes(episodes(folder, window_s=0.05), tmp_path / "out", lossless=True)
    assert not (tmp_path / "out").exists()


def test_steps_at_another_rate_are_refused(folder, tmp_path):
    rows = episodes(folder)
    kept = [number for number in range(len(rows)) if number != 3]
    with pytest.raises(DataError, match="step 3 is not at the rate"):
        convert_episodes(rows.select(kept), tmp_path / "out", lossless=True)


def test_a_reader_with_a_stride_gives_a_slower_set(folder, tmp_path):
    rows = episodes(folder, stride=2)
    assert convert_episodes(rows, tmp_path / "out", lossless=True)["fps"] == FPS / 2


def test_rows_of_episodes_are_told_from_conversations(folder):
    assert is_episodes(episodes(folder)) and not is_episodes(data_of([sample(1, None)]).dataset)
