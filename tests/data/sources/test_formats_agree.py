"""The same episodes as LeRobot v3.0, as folders of either layout and as HDF5 give the same rows, also to workers."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from hfvla.data.samples.actions import ActionSample
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.data.sources.episode_folders import EpisodeFoldersOptions, build_episode_folders
from hfvla.data.sources.hdf5_episodes import Hdf5EpisodesOptions, build_hdf5_episodes
from hfvla.data.sources.lerobot import LeRobotOptions, build_lerobot

from .episode_sets import STATE, recording, write_hdf5, write_lerobot, write_new, write_old

pytest.importorskip("h5py")
LENGTHS_S = (1.2, 0.9)
WINDOW_S = 0.25


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Format to its data set."""
    root = tmp_path_factory.mktemp("formats")
    made = [recording(length_s, aligned=True) for length_s in LENGTHS_S]
    for number, one in enumerate(made):
        write_new(root / "new/peg" / f"episode_{number}", one)
        write_old(root / "old/peg" / f"recv_all_{number}", one)
        write_hdf5(root / "hdf5/peg" / f"{number}.hdf5", one, pictures="padded")
    write_lerobot(root / "lerobot", made)
    common = {"window_s": WINDOW_S, "cache_folder": str(root / "series")}
    folders = {"state": STATE, "gripper": "gripper", **common}
    sensor = {"name": "touch", "window_s": WINDOW_S}
    return {
        "lerobot": build_lerobot(LeRobotOptions(path=str(root / "lerobot"), sensor=sensor)).dataset,
        "new": build_episode_folders(EpisodeFoldersOptions(path=str(root / "new"), **folders)).dataset,
        "old": build_episode_folders(EpisodeFoldersOptions(path=str(root / "old"), **folders)).dataset,
        "hdf5": build_hdf5_episodes(Hdf5EpisodesOptions(path=str(root / "hdf5"), **common)).dataset,
    }


@pytest.mark.parametrize("name", ["new", "old", "hdf5"])
def test_formats_agree(sets, name):
    expected, found = sets["lerobot"], sets[name]
    assert len(expected) == len(found) == 21
    loader, sensors = FrameLoader(), SensorLoader()
    for one, other in zip(map(ActionSample.from_row, expected), map(ActionSample.from_row, found), strict=True):
        assert (one.index, one.timestamp, one.task) == (other.index, other.timestamp, other.task)
        np.testing.assert_array_equal(one.state, other.state)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.action_mask, other.action_mask)
        assert list(one.views) == list(other.views) == ["View1", "View2"]
        for left, right in zip(loader.load([*one.views.values()]), loader.load([*other.views.values()]), strict=True):
            assert np.abs(left.astype(int) - right).max() <= 3  # JPEG
        left, right = sensors.load(one.sensor), sensors.load(other.sensor)
        np.testing.assert_array_equal(left.values, right.values)
        np.testing.assert_allclose(left.times_s, right.times_s, rtol=0, atol=1e-9)


class Steps(Dataset):
    """Pictures and sensor window of each row, as a collator's worker would read them."""

    def __init__(self, rows):
        self.rows, self.frames, self.sensors = rows, FrameLoader(), SensorLoader()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        sample = ActionSample.from_row(self.rows[number])
        window = self.sensors.load(sample.sensor)
        pictures = np.stack(self.frames.load([*sample.views.values()]))
        return torch.from_numpy(pictures), float(window.values.sum()), float(window.times_s[-1])


@pytest.mark.parametrize(
    ("name", "start"),
    [("new", "fork"), ("hdf5", "fork"), pytest.param("hdf5", "spawn", marks=pytest.mark.slow)],
)
def test_workers_read_the_same(sets, name, start):
    steps = Steps(sets[name])
    alone = [steps[number] for number in range(len(steps))]  # leaves files open in this process
    loader = DataLoader(steps, batch_size=None, num_workers=2, multiprocessing_context=start)
    for left, right in zip(alone, loader, strict=True):
        assert torch.equal(left[0], right[0]) and left[1:] == tuple(right[1:])
    assert torch.equal(steps[3][0], alone[3][0])  # nor do the workers disturb it
