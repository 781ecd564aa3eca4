"""A processor that says something else than its model's config is refused on loading, by the name of what differs."""

import json
import shutil

import pytest

from hfvla.errors import CheckpointError
from hfvla.registry import load_checkpoint

FILE = "processor_config.json"


def reordered(name):
    return lambda said: said.update({name: said[name][::-1]})


def put(value, *path):
    def change(said):
        for step in path[:-1]:
            said = said[step]
        assert said[path[-1]] != value
        said[path[-1]] = value

    return change


CHANGES = {
    "ember_vlm": {
        "robots": reordered("robots"),
        "num_visual_tokens": put(3, "num_visual_tokens"),
        "ngram_buckets": put(64, "ngram_buckets"),
        "image_size": put(32, "image_processor", "size", "height"),
        "max_length": put(100_000, "max_length"),
    },
    "internvl_retrieval": {
        "max_text_tokens": put(7, "max_text_tokens"),
        "image_size": put(64, "image_processor", "size", "width"),
    },
    "internvl_video_qa": {
        "frames": put(2, "frames", "most"),
        "tiling": put(2, "tiling", "most_tiles"),
        "tokens_per_tile": put(1, "tokens_per_tile"),
        "tile_size": put(64, "image_processor", "size", "height"),
        "max_length": put(100_000, "max_length"),
    },
    "sensor_vla": {
        "views": reordered("views"),
        "prompt": put("Now: {task}", "prompt"),
        "state_dim": put(3, "state_dim"),
        "backbone": put("internvl", "backbone"),
        "action": put(5.0, "action", "fps"),
    },
}


@pytest.mark.parametrize(("family", "what"), [(family, what) for family in CHANGES for what in CHANGES[family]])
def test_a_processor_that_says_otherwise_is_refused(family, what, checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints[family], tmp_path / "changed")
    said = json.loads((folder / FILE).read_text())
    CHANGES[family][what](said)
    (folder / FILE).write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=rf"(?s){what}"):
        load_checkpoint(folder)


@pytest.mark.parametrize("family", sorted(CHANGES))
def test_as_it_was_saved_it_loads(family, checkpoints):
    assert load_checkpoint(checkpoints[family])[0].name == family
