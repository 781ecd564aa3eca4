"""examples/formats.py writes what docs/formats.md shows, and every reader takes it whole."""

import json
import re
import runpy
import sys

import pytest

from hfvla.recipe import build_options
from hfvla.registry import get_family

READ = {
    "captions": ("chat_vlm", "vision_language", {}, 24),
    "conversations": ("chat_vlm", "vision_language", {}, 24),
    "robot_selection/single.json": ("ember_vlm", "robot_selection", {}, 18),
    "robot_selection/multi.json": ("ember_vlm", "robot_selection", {}, 1),
    "road_videos/train.json": ("internvl_video_qa", "road_videos", {}, 6),
    "geotext/train.json": ("internvl_retrieval", "geotext", {}, 12),
    "robosense/queries.txt": ("internvl_retrieval", "robosense", {}, 3),
    "lerobot": ("sensor_vla", "lerobot", {"sensor": {"name": "force", "window_s": 0.1}}, 72),
    "folders": ("sensor_vla", "episode_folders", {"gripper": "gripper", "window_s": 0.1}, 3 * 19),
    "hdf5/act": ("sensor_vla", "hdf5_episodes", {}, 36),
    "hdf5/robomimic.hdf5": ("sensor_vla", "hdf5_episodes", {}, 36),
}


@pytest.fixture(scope="module")
def written(repository, tmp_path_factory):
    for package in ("av", "h5py"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("formats")
    script = repository / "examples/formats.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), str(folder / "data")])
        patch.setenv("HF_HOME", str(folder / "home"))
        runpy.run_path(str(script))["main"]()
    return folder / "data"


@pytest.mark.parametrize("place", READ)
def test_every_format_is_read_whole(written, tmp_path, place):
    family, source, options, rows = READ[place]
    spec = get_family(family)
    fields = spec.source(source).options
    options = {"path": str(written / place), **options}
    if source == "episode_folders":
        options["cache_folder"] = str(tmp_path / "series")
    if source == "vision_language":
        options["cache_dir"] = str(tmp_path / "tables")
    built = build_options(spec, source, options)
    from hfvla.family import resolve

    data = resolve(spec.source(source).build)(built, seed=0)
    assert len(data.dataset) == rows and not data.census.get("rejected"), (fields, data.census)


def test_the_page_shows_records_of_these_files(written, repository):
    page = (repository / "docs/formats.md").read_text("utf-8")
    blocks = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", page, flags=re.S | re.M)]
    caption, chat, single, multi, road, geo = blocks
    files = {
        "conversations/chat.json": chat, "robot_selection/single.json": single, "robot_selection/multi.json": multi,
        "geotext/train.json": geo,
    }  # fmt: skip
    for name, shown in files.items():
        assert set(shown[0]) <= set(json.loads((written / name).read_text())[0]), name
    assert chat[0] == json.loads((written / "conversations/chat.json").read_text())[0]
    assert multi == json.loads((written / "robot_selection/multi.json").read_text())
    assert geo[0] == json.loads((written / "geotext/train.json").read_text())[0]
    assert road["data"][0] == json.loads((written / "road_videos/train.json").read_text())["data"][0]
    first = json.loads((written / "captions/captions.jsonl").read_text().splitlines()[0])
    assert set(caption) == set(first)
