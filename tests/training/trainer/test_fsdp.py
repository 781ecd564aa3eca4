"""FSDP2 on two CPU processes: phases, resuming, whole runs with LoRA and a feature cache, and what it refuses."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from hfvla.errors import RecipeError
from hfvla.training.trainer.fsdp import prepare_fsdp

from .. import fsdp_on_cpu
from .. import phases_worker as tower
from ..launching import free_port


def distributed(test):
    """Mark a test that starts processes of its own, or waits for those that did."""
    return pytest.mark.distributed(pytest.mark.slow(test))


ROOM = 1e-4  # adam_epsilon is 1e-4 too


def trainer_of(model, version=2):
    plugin = SimpleNamespace(fsdp_version=version, transformer_cls_names_to_wrap=None)
    state = SimpleNamespace(fsdp_plugin=plugin)
    return SimpleNamespace(
        model=model, accelerator=SimpleNamespace(state=state), stage=SimpleNamespace(name="tower"), plugin=plugin
    )


def test_layers_are_those_that_the_model_has():
    trainer = trainer_of(tower.build_tower(scalar=False))
    prepare_fsdp(trainer)
    assert trainer.plugin.transformer_cls_names_to_wrap == ["Block"]
    trainer.plugin.transformer_cls_names_to_wrap = ["ModuleList"]  # a user's own choice stays
    prepare_fsdp(trainer)
    assert trainer.plugin.transformer_cls_names_to_wrap == ["ModuleList"]


def test_a_parameter_without_dimensions_is_refused_by_name():
    with pytest.raises(RecipeError, match=r"stage 'tower'.*got 'head\.scale'.*zero3\.yaml"):
        prepare_fsdp(trainer_of(tower.build_tower()))
    prepare_fsdp(trainer_of(tower.build_tower(), version=1))  # flattens what it splits


def test_a_launch_that_splits_nothing_is_told(monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    trainer = trainer_of(tower.build_tower())
    trainer.accelerator.state.fsdp_plugin = None
    prepare_fsdp(trainer)
    assert "as with DDP" in caplog.text


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Weights before and after the run on one process."""
    trainer = tower.build_trainer(tmp_path_factory.mktemp("single"), scalar=False, save_strategy="no")
    before = tower.weights(trainer)
    trainer.train()
    return before, tower.weights(trainer), trainer.evaluate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, repository):
    """A run under FSDP2: trained, then resumed before, at and past a phase boundary."""
    return tower.launch(tmp_path_factory.mktemp("fsdp") / "run", repository, tower.FSDP2)


def read(folder, run, rank=0):
    return load_file(folder / f"{run}_{rank}.safetensors")


@distributed
def test_weights_are_split_and_equal_one_process(folder, single):
    before, one, scores = single
    for rank in (0, 1):
        record = json.loads((folder / f"record_{rank}.json").read_text())
        assert record["type"] == "DistributedType.FSDP" and record["held"] == 128  # of a block's 16 x 16 weights
        assert record["eval"]["eval_loss"] == pytest.approx(scores["eval_loss"], abs=1e-3)
    two = read(folder, "whole")
    for name, value in one.items():
        assert (two[name] - value).abs().max().item() < ROOM, name
        joined = name.rsplit(".", 1)[0] in tower.JOINS
        assert ((two[name] - before[name]).abs().max() > 1e-3) == joined, name


@distributed
@pytest.mark.parametrize("run", ["before", "at", "past"])
def test_resuming_around_a_boundary_is_bit_equal(folder, run):
    for rank in (0, 1):
        whole, resumed = read(folder, "whole"), read(folder, run, rank)
        assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


@distributed
def test_the_saved_checkpoint_is_whole(folder):
    saved, whole = load_file(folder / "saved/model.safetensors"), read(folder, "whole")
    assert set(saved) == set(whole) and all(torch.equal(saved[name], value) for name, value in whole.items())


@distributed
@pytest.mark.parametrize("recipe", ["internvl_video_qa/smoke", "chat_vlm/smoke"])
def test_a_whole_run_as_the_machine_file_starts_it(recipe, tmp_path, repository):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository / "src")}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", str(free_port())]
    command += ["--config_file", str(repository / "recipes/accelerate/fsdp2.yaml"), "--num_processes", "2"]
    command += [fsdp_on_cpu.__file__, str(repository / "recipes/train.py"), str(repository / f"recipes/{recipe}.yaml")]
    command += [f"output_dir={tmp_path / 'run'}", "args.use_cpu=true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=570, cwd=repository, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["processes"] == 2
    AutoModel.from_pretrained(tmp_path / "run/final")
