"""robomimic's and LIBERO's HDF5 files as they are: many episodes in one, task and rate from their attributes."""

import json

import numpy as np
import pytest

from hfvla.data.samples.actions import ActionSample
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.sources.hdf5_episodes import Hdf5EpisodesOptions, build_hdf5_episodes, count_hdf5_episodes
from hfvla.errors import DataError

h5py = pytest.importorskip("h5py")
LENGTHS = {"demo_0": 5, "demo_2": 4, "demo_10": 3}
STATE = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}


def frame(number: int, step: int) -> np.ndarray:
    return np.full((8, 12, 3), 20 * number + step, np.uint8)


def write(path, attributes=None, state=None, cameras=("agentview_image", "robot0_eye_in_hand_image"), lengths=None):
    """Write a file as robomimic does: obs and next_obs, states, dones, attributes on the group data."""
    with h5py.File(path, "w") as file:
        for number, (name, length) in enumerate((lengths or LENGTHS).items()):
            demo = file.create_group(f"data/{name}")
            demo["actions"] = np.arange(length * 7, dtype=np.float64).reshape(length, 7) / 10
            demo["dones"], demo["states"] = np.zeros(length, np.int64), np.zeros((length, 32))
            for key, width in (state or STATE).items():
                demo[f"obs/{key}"] = np.full((length, width), float(number))
                demo[f"next_obs/{key}"] = np.full((length, width), -1.0)
            for camera in cameras:
                demo[f"obs/{camera}"] = np.stack([frame(number, step) for step in range(length)])
            demo.attrs["num_samples"] = length
        for key, value in (
            attributes or {"env_args": {"env_name": "Lift", "env_kwargs": {"control_freq": 20}}}
        ).items():
            file["data"].attrs[key] = json.dumps(value)
    return path


def options(path, **more):
    return Hdf5EpisodesOptions(path=str(path), horizon=2, **more)


def test_every_demo_is_an_episode(tmp_path):
    path = write(tmp_path / "low_dim.hdf5")
    data = build_hdf5_episodes(options(path))
    assert data.census["found"] == data.census["usable"] == 3
    assert count_hdf5_episodes(options(path)) == len(data.dataset) == 12
    assert list(dict.fromkeys(data.dataset["episode"])) == [f"low_dim.hdf5/data/{name}" for name in LENGTHS]
    samples = [ActionSample.from_row(row) for row in data.dataset]
    assert samples[0].task == "Lift" and samples[1].timestamp == 0.05  # 20 Hz, as the file says
    assert [sample.state.tolist() for sample in samples[5:7]] == [[1.0] * 9] * 2
    assert samples[4].actions[0].tolist() == pytest.approx([2.8, 2.9, 3.0, 3.1, 3.2, 3.3, 3.4])
    assert samples[4].action_mask.tolist() == [True, False]
    assert set(samples[0].views) == {"agentview_image", "robot0_eye_in_hand_image"}
    (picture,) = FrameLoader().load([samples[6].views["agentview_image"]])
    np.testing.assert_array_equal(picture, frame(1, 1))
    assert len(set(data.dataset["group"])) == 3


def test_libero_says_its_task_in_words(tmp_path):
    words = {"language_instruction": "put the bowl on the plate"}
    path = write(tmp_path / "libero.hdf5", {"problem_info": words, "env_args": {"env_name": "Libero"}},
                 state={"ee_states": 6, "gripper_states": 2}, cameras=("agentview_rgb",))  # fmt: skip
    row = build_hdf5_episodes(options(path, fps=20)).dataset[0]
    assert row["task"] == "put the bowl on the plate" and len(row["state"]) == 8
    named = build_hdf5_episodes(options(path, fps=20, task="Please {task}", state=["gripper_states"])).dataset[0]
    assert named["task"] == "Please put the bowl on the plate" and len(named["state"]) == 2


@pytest.mark.parametrize(
    ("more", "attributes", "state", "match"),
    [
        ({"fps": 10}, None, None, "another control rate.*the file says 20 Hz, fps 10"),
        ({}, {"other": {}}, None, r"no clock.*say the rate of the steps"),
        ({}, None, {"joints": 7}, "no state that is known.*of joints"),
        ({"state": ["object"]}, None, None, "dataset is missing.*obs/object"),
        ({"views": ["front"]}, None, None, "view is missing.*front"),
    ],
)
def test_what_cannot_be_known_is_said(tmp_path, more, attributes, state, match):
    path = write(tmp_path / "low_dim.hdf5", attributes, state)
    with pytest.raises(DataError, match=match):
        build_hdf5_episodes(options(path, **more))


def test_one_broken_demo_leaves_the_others(tmp_path):
    path = write(tmp_path / "low_dim.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_2/actions"]
    data = build_hdf5_episodes(options(path, max_bad_fraction=0.5))
    assert data.census["found"] == 3 and data.census["usable"] == 2
    assert "dataset is missing: actions" in data.rejected["low_dim.hdf5/data/demo_2"]
