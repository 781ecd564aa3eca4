"""HDF5 links lead to datasets, and no dataset gives zeros, other files' bytes or more than memory holds."""

import os

import numpy as np
import pytest
from pydantic import ValidationError

from hfvla.data.samples.actions import ActionSample
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.sources.hdf5_episodes import Hdf5EpisodesOptions, build_hdf5_episodes, count_hdf5_episodes
from hfvla.errors import DataError

h5py = pytest.importorskip("h5py")
N = 5
STAMPS = 1.7e9 + np.arange(N) / 10
IMAGES = "observations/images"


def pictures(value=0, channels=3):
    return np.full((N, 8, 12, channels), value, np.uint8)


def episode(path, *, leave=(), **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "action": np.ones((N, 7), np.float32), "observations/qpos": np.ones((N, 7)), "timestamp": STAMPS,
        f"{IMAGES}/top": pictures(), **more,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if name not in leave:
                file[name] = values
    return path


def build(root, **options):
    return build_hdf5_episodes(Hdf5EpisodesOptions(path=str(root), max_bad_fraction=1.0, **options))


def views(data):
    return sorted(ActionSample.from_row(data.dataset[0]).views)


def reason(data):
    ((found, entry),) = data.census["rejected"].items()
    return f"{found}: {entry['first']}"


def test_soft_hard_and_external_links_are_datasets_like_any_other(tmp_path):
    episode(tmp_path / "set/cameras/wrist.hdf5", **{"frames": pictures(77)}, leave=("action",))
    path = episode(tmp_path / "set/e.hdf5", raw=pictures(33), state=np.full((N, 7), 2.0), leave=("observations/qpos",))
    with h5py.File(path, "a") as file:
        file["a_name"] = file["action"]
        file["observations/qpos"] = h5py.SoftLink("/state")
        file[f"{IMAGES}/soft"] = h5py.SoftLink("/raw")
        file[f"{IMAGES}/wrist"] = h5py.ExternalLink("cameras/wrist.hdf5", "/frames")
    data = build(tmp_path / "set")
    assert data.census["usable"] == 1 and views(data) == ["soft", "top", "wrist"]
    sample = ActionSample.from_row(data.dataset[3])
    assert sample.state.tolist() == [2.0] * 7 and sample.actions[0].tolist() == [1.0] * 7
    found = dict(zip(sample.views, FrameLoader().load(list(sample.views.values())), strict=True))
    assert [int(found[name][0, 0, 0]) for name in ("top", "soft", "wrist")] == [0, 33, 77]
    assert count_hdf5_episodes(Hdf5EpisodesOptions(path=str(tmp_path / "set"))) == N


@pytest.mark.parametrize(
    ("link", "why"),
    [
        (h5py.SoftLink("/nowhere"), "link to nothing"),
        (None, "link in a circle"),
        (h5py.ExternalLink("../secret.hdf5", "/action"), "link out of the data set"),
        (h5py.ExternalLink("/etc/passwd", "/action"), "link out of the data set"),
        (h5py.ExternalLink("gone.hdf5", "/action"), "HDF5 file cannot be read"),
        (h5py.ExternalLink("pipe.hdf5", "/action"), "not a regular file"),
        (h5py.ExternalLink("e.hdf5", "/nothing"), "link to nothing"),
    ],
)
@pytest.mark.parametrize("name", [f"{IMAGES}/lost", "action"])
def test_a_link_that_leads_nowhere_or_out_takes_the_episode_out_by_name(tmp_path, link, why, name):
    episode(tmp_path / "secret.hdf5")
    path = episode(tmp_path / "set/e.hdf5", leave=(name,))
    os.mkfifo(tmp_path / "set/pipe.hdf5")
    with h5py.File(path, "a") as file:
        file[name] = link or h5py.SoftLink(f"/{name}")
    data = build(path)
    assert reason(data).startswith("link cannot be followed") and why in reason(data) and name in reason(data)


def test_groups_in_circles_and_behind_many_paths_end(tmp_path):
    path = episode(tmp_path / "e.hdf5")
    with h5py.File(path, "a") as file:
        file["loop/again"] = h5py.SoftLink("/loop")
        file["hard/up"] = file["/"]
    assert build(path).census["usable"] == 1
    with h5py.File(path, "a") as file:
        for level in range(40):
            group = file.create_group(f"g{level}")
            for name in ("left", "right"):
                group[name] = h5py.SoftLink(f"/g{level + 1}")
    assert "more datasets than are looked at" in reason(build(path))


def virtual(file, name, source):
    layout = h5py.VirtualLayout((N, 7), dtype="f4")
    layout[:] = h5py.VirtualSource(source, "action", (N, 7))
    file.create_virtual_dataset(name, layout)


def outside(file, name, source):
    file.create_dataset(name, (N, 7), "f4", external=[(source, 0, h5py.h5f.UNLIMITED)])


def half_written(file, name, source):
    file.create_dataset(name, (N, 7), "f4", chunks=(1, 7))[:3] = 1


NOT_OWN = {
    "virtual, source missing": (virtual, "the dataset is virtual"),
    "in another file": (outside, "the dataset lies in other files"),
    "never written": (lambda f, n, s: f.create_dataset(n, (N, 7), "f4"), "never written in full"),
    "half written": (half_written, "never written in full"),
    "no shape": (lambda f, n, s: f.create_dataset(n, data=h5py.Empty("f4")), "the dataset is empty"),
    "too large": (lambda f, n, s: f.create_dataset(n, (10**13, 7), "f4", chunks=(10**9, 7)), "never written in full"),
}


@pytest.mark.parametrize("kind", NOT_OWN)
@pytest.mark.parametrize("name", ["action", f"{IMAGES}/top"])
def test_zeros_for_what_is_not_there_are_never_data(tmp_path, kind, name):
    make, why = NOT_OWN[kind]
    path = episode(tmp_path / "e.hdf5", leave=(name,))
    (tmp_path / "raw.bin").write_bytes(bytes(1000))
    with h5py.File(path, "a") as file:
        make(file, name, str(tmp_path / "raw.bin") if make is outside else "gone.hdf5")
    data = build(path)
    assert data.census["usable"] == 0 and why in reason(data) and name in reason(data)


def test_sizes_are_compared_with_a_limit_before_memory_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("hfvla.data.sources.hdf5_episodes.contents.MAX_ARRAY_BYTES", N * 7 * 4 - 1)
    assert "dataset is too large" in reason(build(episode(tmp_path / "e.hdf5")))


def test_episodes_behind_links_are_read_and_lost_ones_counted(tmp_path):
    episode(tmp_path / "disk/old/e.hdf5")
    root = episode(tmp_path / "set/a.hdf5").parent
    (root / "old").symlink_to(tmp_path / "disk/old")
    (root / "dead.hdf5").symlink_to(tmp_path / "gone")
    (root / "unmounted").symlink_to(tmp_path / "gone")
    (root / "up").symlink_to(root)
    (root / "._a.hdf5").write_bytes(b"\0\5\26\7")
    os.mkfifo(root / "pipe.h5")
    data = build(root)
    assert sorted(set(data.dataset["episode"])) == ["set/a.hdf5", "set/old/e.hdf5"]
    assert data.census["found"] == 4 and data.census["hidden"] == 1
    assert data.rejected["set/dead.hdf5"].endswith("a link to nothing") and "set/pipe.h5" in data.rejected
    assert data.census["passed_over"]["count"] == 2


def test_an_episode_that_lost_a_camera_is_not_trained_on_with_one_less(tmp_path):
    for name in "abc":
        more = {f"{IMAGES}/wrist": pictures()} if name != "b" else {}
        episode(tmp_path / f"set/{name}.hdf5", **more)
    data = build(tmp_path / "set")
    assert sorted(set(data.dataset["episode"])) == ["set/a.hdf5", "set/c.hdf5"]
    assert "view is missing: wrist, which other episodes have" in data.rejected["set/b.hdf5"]
    assert build(tmp_path / "set", views=["top"]).census["usable"] == 3


# ---- kinds of files that are not quite ours ----------------------------------------------------------------------


def test_a_recorder_without_a_clock_is_read_at_its_rate(tmp_path):
    path = episode(tmp_path / "aloha.hdf5", leave=("timestamp",))
    assert "no dataset timestamp (ALOHA): say the rate of the steps, e.g. fps: 50" in reason(build(path))
    for options in ({"fps": 50}, {"fps": 50, "timestamp": None}):
        assert build(path, **options).dataset["timestamp"][:] == [0.0, 0.02, 0.04, 0.06, 0.08]
    assert "stamps. Known: action" in reason(build(path, timestamp="stamps", fps=50))
    with pytest.raises(ValidationError, match="window_s needs the steps' times"):
        Hdf5EpisodesOptions(path="a", timestamp=None, window_s=0.5)


def test_depth_beside_colour_is_refused_unless_cameras_are_named(tmp_path):
    path = episode(tmp_path / "e.hdf5", **{f"{IMAGES}/depth": np.zeros((N, 8, 12), np.uint16)})
    assert "Name the colour cameras in views" in reason(build(path))
    assert views(build(path, views=["top"])) == ["top"]


def test_rgba_pictures_are_laid_on_white(tmp_path):
    rgba = pictures(9, channels=4)
    rgba[:, :, :6, 3], rgba[:, :, 6:, 3] = 0, 255
    data = build(episode(tmp_path / "e.hdf5", **{f"{IMAGES}/top": rgba}))
    (shown,) = FrameLoader().load(list(ActionSample.from_row(data.dataset[0]).views.values()))
    assert shown.shape == (8, 12, 3) and shown[0, 0].tolist() == [255] * 3 and shown[0, 9].tolist() == [9] * 3


@pytest.mark.parametrize("path", ["/x" * 50_000, "a\x00b"])
def test_paths_that_no_file_can_have_are_refused(path):
    with pytest.raises(DataError, match="no such file or folder"):
        build(path)
