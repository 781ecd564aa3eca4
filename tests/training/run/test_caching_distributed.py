"""Two processes build a cache together, read all of it, and train to what one process trains."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

from hfvla.recipe import resolved_dict
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run.run import run_recipe

from ..recipes import build_recipe

pytestmark = pytest.mark.distributed


def make(output, batch, cache):
    stage = {
        "name": "align",
        "train": ["projector", "language", "fusion", "selection_head"],
        "losses": {"selection": 1.0, "caption": 1.0},
        **({"cache": {"dtype": "float32"}} if cache else {}),
    }
    data = {"train": [{"source": "fleet", "size": 40, "image_size": 64}], "validation": {"fraction": 0.2}}
    recipe = build_recipe("", output, [stage], data=data)
    sizes = {"per_device_train_batch_size": batch, "per_device_eval_batch_size": 4}
    return recipe.model_copy(update={"args": {**recipe.args, **sizes}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repository):
    folder = tmp_path_factory.mktemp("cache")
    run_recipe(make(folder / "plain", 8, cache=False))
    run_recipe(make(folder / "one", 8, cache=True))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(resolved_dict(make(folder / "two", 4, cache=True))))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(repository / "recipes/train.py"), str(folder / "recipe.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def census(folder):
    record = json.loads((folder / "run.json").read_text())
    return record["processes"], record["stages"][0]["cache"]


def shards(folder):
    return sorted((folder / "cache").glob("*/features-*.arrow"))


def test_both_processes_encoded_their_share(runs):
    (one, alone), (two, shared) = census(runs / "one"), census(runs / "two")
    assert (one, two) == (1, 2)
    assert alone["fingerprint"] == shared["fingerprint"] and alone["samples"] == shared["samples"] > 8
    assert shared["misses"] == alone["misses"] == alone["samples"]
    assert len(shards(runs / "one")) == 1 and len(shards(runs / "two")) == 2
    sizes = [int(path.name.split("-")[1]) for path in shards(runs / "two")]
    assert sum(sizes) == shared["samples"] and abs(sizes[0] - sizes[1]) <= 4


def test_the_features_are_the_same_bits(runs):
    from datasets import Dataset

    def read(folder):
        lines = [line for path in shards(folder) for line in Dataset.from_file(str(path))]
        return {line["key"]: line["image_features.data"] for line in lines}

    assert read(runs / "one") == read(runs / "two")


@pytest.mark.parametrize("other", ["one", "plain"])
def test_the_weights_are_the_same(runs, other):
    expected, found = load_state(runs / other / "align"), load_state(runs / "two/align")
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
