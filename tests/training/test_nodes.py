"""Two launchers that meet at a rendezvous, as two nodes do, train what one process trains."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

from hfvla.recipe import resolved_dict
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run.run import run_recipe

from .launching import free_port
from .recipes import build_recipe, selection_stage, tasks, write_tasks

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def make(path, output, batch):
    section = {"train": [{"source": "robot_selection", "path": path}], "validation": {"fraction": 0.2}}
    recipe = build_recipe(path, output, [selection_stage()], data=section)
    sizes = {"per_device_train_batch_size": batch, "per_device_eval_batch_size": batch, "use_cpu": True}
    return recipe.model_copy(update={"args": {**recipe.args, **sizes}})


def test_two_nodes_train_what_one_process_trains(tmp_path, repository):
    path = write_tasks(tmp_path / "tasks.json", tasks(40))
    run_recipe(make(path, tmp_path / "one", batch=8))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(resolved_dict(make(path, tmp_path / "two", batch=4))))
    meeting = ["--rdzv-id", "nodes", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting]
    train = ["-m", "hfvla.cli", "train", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "two")]
    env = {**os.environ, "PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": "1"}
    said = [(tmp_path / f"node-{node}.log").open("w+") for node in range(2)]
    nodes = [subprocess.Popen([*launch, *train], env=env, stdout=log, stderr=log, cwd=tmp_path) for log in said]
    try:
        codes = [node.wait(timeout=400) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert codes == [0, 0], [(tmp_path / f"node-{node}.log").read_text()[-2000:] for node in range(2)]
    record = json.loads((tmp_path / "two/run.json").read_text())
    assert record["processes"] == 2 and record["finished"]
    lines = [json.loads((tmp_path / name / "selection/log_history.json").read_text()) for name in ("one", "two")]
    for first, second in zip(*lines, strict=True):
        for key in [key for key in first if key in ("loss", "eval_loss", "eval_jaccard", "selection/loss_selection")]:
            assert second[key] == pytest.approx(first[key], abs=1e-4), key
    one, two = (load_state(tmp_path / name / "final") for name in ("one", "two"))
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0)
