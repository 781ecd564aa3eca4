"""A run on two processes equals a run on one with the same global batch."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

from hfvla.recipe import resolved_dict
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run.run import run_recipe

from .phases_worker import MEASURED
from .recipes import build_recipe, reasoning_stage, selection_stage, tasks, write_tasks

pytestmark = pytest.mark.distributed


def make(path, output, batch):
    """32 training and 8 validation rows, in batches of 8 over all processes."""
    stages = [selection_stage(), reasoning_stage()]
    section = {"train": [{"source": "robot_selection", "path": path}], "validation": {"fraction": 0.2}}
    recipe = build_recipe(path, output, stages, data=section)
    sizes = {"per_device_train_batch_size": batch, "per_device_eval_batch_size": batch}
    return recipe.model_copy(update={"args": {**recipe.args, **sizes}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repository):
    folder = tmp_path_factory.mktemp("distributed")
    path = write_tasks(folder / "tasks.json", tasks(40))
    run_recipe(make(path, folder / "one", batch=8))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(resolved_dict(make(path, folder / "two", batch=4))))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [
        *launch,
        str(repository / "recipes/train.py"),
        str(folder / "recipe.yaml"),
        "--output",
        str(folder / "two"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "one", folder / "two"


def history(folder, stage):
    return json.loads((folder / stage / "log_history.json").read_text())


def test_two_processes_really_ran(runs):
    records = [json.loads((folder / "run.json").read_text()) for folder in runs]
    assert [record["processes"] for record in records] == [1, 2]
    assert [[stage["steps"] for stage in record["stages"]] for record in records] == [[8, 8], [8, 8]]


@pytest.mark.parametrize("stage", ["selection", "reasoning"])
def test_the_loss_curve_is_the_same(runs, stage):
    one, two = ([line for line in history(folder, stage) if "loss" in line] for folder in runs)
    assert len(one) == len(two) == 8
    for first, second in zip(one, two, strict=True):
        for name in [key for key in first if key == "loss" or key.startswith(f"{stage}/")]:
            if name.rpartition("/")[2] in MEASURED:
                continue
            assert second[name] == pytest.approx(first[name], abs=1e-4), name


@pytest.mark.parametrize("stage", ["selection", "reasoning"])
def test_evaluation_sees_every_row_once(runs, stage):
    one, two = ([line for line in history(folder, stage) if "eval_loss" in line] for folder in runs)
    assert len(one) == len(two) == 2
    for first, second in zip(one, two, strict=True):
        names = [key for key in first if key.startswith("eval_") and not key.endswith(("runtime", "per_second"))]
        assert {"eval_loss", "eval_loss_selection", "eval_jaccard"} <= set(names)
        for name in names:
            assert second[name] == pytest.approx(first[name], abs=1e-4), name


@pytest.mark.parametrize("stage", ["selection", "reasoning", "final"])
def test_the_weights_are_the_same(runs, stage):
    one, two = (load_state(folder / stage) for folder in runs)
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
