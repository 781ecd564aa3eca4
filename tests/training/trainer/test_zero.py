"""DeepSpeed ZeRO-1, 2 and 3 on two CPU processes: phases, resuming, and a whole run with its evaluation."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel

from hfvla.errors import RecipeError
from hfvla.recipe import resolved_dict
from hfvla.training.run.arguments import stage_arguments
from hfvla.training.trainer.zero import fill_bucket_sizes

from .. import phases_worker as tower
from ..launching import free_port
from ..recipes import build_recipe, reasoning_stage, selection_stage, tasks, write_tasks


def distributed(test):
    """Mark a test that starts processes of its own, or waits for those that did."""
    return pytest.mark.distributed(pytest.mark.slow(test))


ROOM = 1e-4  # adam_epsilon is 1e-4 too: at 1e-8, rounding on gradients near zero would show as 6e-3


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Weights before and after the run on one process, without DeepSpeed."""
    trainer = tower.build_trainer(tmp_path_factory.mktemp("single"), save_strategy="no")
    before = tower.weights(trainer)
    trainer.train()
    return before, tower.weights(trainer), trainer.evaluate()


@pytest.fixture(scope="module", params=[1, 2, 3])
def zero(request, tmp_path_factory, repository):
    """ZeRO stage, and the folder of a run under it: trained, then resumed before, at and past a boundary."""
    folder = tmp_path_factory.mktemp("zero") / str(request.param)
    return request.param, tower.launch(folder, repository, f"recipes/deepspeed/zero{request.param}.json")


def read(folder, run, rank=0):
    return load_file(folder / f"{run}_{rank}.safetensors")


@distributed
def test_deepspeed_really_ran(zero):
    stage, folder = zero
    for rank in (0, 1):
        record = json.loads((folder / f"record_{rank}.json").read_text())
        assert record["world"] == 2 and record["type"] == "DistributedType.DEEPSPEED" and record["zero"] == stage
        assert record["held"] == (128 if stage == 3 else 256)  # of a block's 16 x 16 weights


@distributed
def test_it_equals_one_process_and_the_parts_moved(zero, single):
    before, one, scores = single
    two = read(zero[1], "whole")
    for name, value in one.items():
        difference = (two[name] - value).abs().max().item()
        assert difference < ROOM, (name, difference)
        joined = name.rsplit(".", 1)[0] in tower.JOINS
        assert ((two[name] - before[name]).abs().max() > 1e-3) == joined, name
    record = json.loads((zero[1] / "record_0.json").read_text())
    assert record["eval"]["eval_loss"] == pytest.approx(scores["eval_loss"], abs=1e-3)


@distributed
@pytest.mark.parametrize("run", ["whole", "before", "at", "past"])
def test_ranks_are_equal(zero, run):
    first, second = (read(zero[1], run, rank) for rank in (0, 1))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@distributed
@pytest.mark.parametrize("run", ["before", "at", "past"])
def test_resuming_around_a_boundary_is_bit_equal(zero, run):
    whole, resumed = read(zero[1], "whole"), read(zero[1], run)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


@distributed
def test_the_saved_checkpoint_is_whole(zero):
    saved, whole = load_file(zero[1] / "saved/model.safetensors"), read(zero[1], "whole")
    assert {name: value.shape for name, value in saved.items()} == {n: v.shape for n, v in whole.items()}
    assert all(torch.equal(saved[name], value) for name, value in whole.items())


# ---- a whole run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory, repository):
    """The same two stages on one process, and under ZeRO-3 as `recipes/accelerate/zero3.yaml` starts them."""
    folder = tmp_path_factory.mktemp("run")
    path = write_tasks(folder / "tasks.json", tasks(40))
    stages = [
        selection_stage(phases=[{"epoch": 1.0, "add": ["projector"]}], keep_best="eval_loss"),
        reasoning_stage(),
    ]
    section = {
        "train": [{"source": "robot_selection", "path": path}],
        "validation": {"fraction": 0.2},
        "eval": {"seen": {"source": "robot_selection", "path": path}},
    }
    evaluation = {"bootstrap_samples": 10, "max_generate": 0, "ablations": False}
    for name, batch in (("one", 8), ("two", 4)):
        recipe = build_recipe(path, folder / name, stages, data=section, evaluation=evaluation)
        sizes = {"per_device_train_batch_size": batch, "per_device_eval_batch_size": batch}
        recipe = recipe.model_copy(update={"args": {**recipe.args, **sizes}})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(resolved_dict(recipe)))
    script = str(repository / "recipes/train.py")
    config = str(repository / "recipes/accelerate/zero3.yaml")
    launch = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", "2"]
    launch += ["--main_process_port", str(free_port())]
    for name, how in (("one", []), ("two", launch)):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(repository / "src")
        command = [sys.executable, *how, script, str(folder / f"{name}.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=570, cwd=repository, env=environment)
        assert done.returncode == 0, done.stderr[-6000:]
    return folder / "one", folder / "two"


@distributed
def test_two_processes_really_ran(folders):
    records = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert [record["processes"] for record in records] == [1, 2]


@distributed
@pytest.mark.parametrize("stage", ["selection", "reasoning", "final"])
def test_each_checkpoint_is_whole_and_equal(folders, stage):
    one, two = (load_file(folder / stage / "model.safetensors") for folder in folders)
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}
    for name, value in one.items():
        assert (two[name] - value).abs().max() < ROOM, name
    assert type(AutoModel.from_pretrained(folders[1] / stage)).__name__ == "EmberVLMForRobotSelection"


@distributed
def test_the_final_evaluation_is_the_same(folders):
    one, two = (json.loads((folder / "run.json").read_text())["metrics"] for folder in folders)
    assert two["n"] == 40 and two == pytest.approx(one, abs=1e-2)


# ---- without a launch ----------------------------------------------------------------------------------------------


def test_bucket_sizes_follow_the_model():
    config = {"zero_optimization": {"reduce_bucket_size": "auto", "allgather_bucket_size": 5}}
    config["zero_optimization"]["stage3_param_persistence_threshold"] = "auto"
    fill_bucket_sizes(config, tower.build_tower())  # 64 + 2 * 272 + 18 = 626 parameters, 16 wide
    assert config["zero_optimization"] == {
        "reduce_bucket_size": 1024,
        "allgather_bucket_size": 5,
        "stage3_param_persistence_threshold": 160,
    }


def test_a_launched_config_that_contradicts_the_recipe_is_refused(tmp_path, monkeypatch):
    from hfvla.registry import get_family

    config = {"train_micro_batch_size_per_gpu": 2, "gradient_clipping": "auto", "zero_optimization": {"stage": 2}}
    (tmp_path / "zero.json").write_text(json.dumps(config))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "zero.json"))
    recipe = build_recipe("tasks.json", tmp_path / "run")
    with pytest.raises(RecipeError, match=r"stage 'selection', .*zero.json: .*per_gpu is 2, and .*batch_size is 8"):
        stage_arguments(recipe, recipe.stages[0], get_family("ember_vlm"), tmp_path, has_validation=False)
