"""Checkpoints that hold adapters alone: small, exact to resume from, and never put on other weights."""

import json

import pytest
import torch

from hfvla.errors import CheckpointError
from hfvla.loading import weight_files
from hfvla.training.checkpoint.adapter_checkpoints import fill_adapters, frozen_hash, trained_beside
from hfvla.training.checkpoint.files import last_checkpoint
from hfvla.training.checkpoint.merging import merge_checkpoint
from hfvla.training.run.run import run_recipe

from ..recipes import build_recipe, selection_stage, tasks, write_tasks
from ..resuming import PowerCut, build, history, same, stop_at, weights

LAST = {"load_best_model_at_end": False}
STAGE = {"train": ["lora", "head"], "lora": {"target": "blocks", "r": 2, "alpha": 3, "checkpoints": "adapters"}}
FULL = {**STAGE, "lora": {**STAGE["lora"], "checkpoints": "full"}}


def test_only_what_trains_is_in_it(tmp_path):
    trainer = build(tmp_path, args={**LAST, "num_train_epochs": 1}, stage=STAGE)
    trainer.train()
    folder = last_checkpoint(tmp_path)
    assert not list(folder.glob("model*.safetensors")) and not (folder / "adapter/base.safetensors").exists()
    assert {path.name for path in (folder / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "beside.safetensors", "frozen.json"
    }  # fmt: skip
    with pytest.raises(CheckpointError, match="adapters and what trained beside them.*hfvla merge"):
        weight_files(folder)
    beside = trained_beside(trainer.model, trainer.trained)
    assert {"head.weight", "head.scale"} <= set(beside) and not [name for name in beside if name.startswith("blocks")]


@pytest.mark.parametrize("step", [7, 13])
def test_a_resumed_run_is_the_whole_one(tmp_path, monkeypatch, step):
    """To the bit, and the same as with full checkpoints."""
    whole = build(tmp_path / "whole", args=LAST, stage=FULL)
    whole.train()
    stop_at(monkeypatch, step)
    with pytest.raises(PowerCut):
        build(tmp_path / "again", args=LAST, stage=STAGE).train()
    again = build(tmp_path / "again", args=LAST, stage=STAGE)
    again.train(resume_from_checkpoint=again.find_checkpoint(clean=True))
    assert same(weights(again), weights(whole)) and history(again) == history(whole)


def test_the_best_weights_come_back(tmp_path):
    one = build(tmp_path / "one", stage=FULL)
    one.train()
    two = build(tmp_path / "two", stage=STAGE)
    two.train()
    assert one.state.best_global_step == two.state.best_global_step and same(weights(one), weights(two))


def test_other_frozen_weights_are_refused(tmp_path, monkeypatch):
    stop_at(monkeypatch, 7)
    with pytest.raises(PowerCut):
        build(tmp_path, args=LAST, stage=STAGE).train()
    again = build(tmp_path, args=LAST, stage=STAGE)
    with torch.no_grad():
        again.model.backbone[0].weight[0, 0] += 1e-3
    with pytest.raises(CheckpointError, match="frozen weights below these adapters are not those"):
        again.train(resume_from_checkpoint=again.find_checkpoint())


def test_the_hash_sees_every_frozen_value_and_no_other(tmp_path):
    trainer = build(tmp_path, args=LAST, stage=STAGE)
    model, beside = trainer.model, trained_beside(trainer.model, trainer.trained)
    before = frozen_hash(model, beside)
    with torch.no_grad():
        model.head.weight += 1
        next(value for name, value in model.named_parameters() if "lora_A" in name).add_(1)
    assert frozen_hash(model, beside) == before
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if "base_layer" in name)[0, 0] += 1
    assert frozen_hash(model, beside) != before


def test_a_damaged_one_is_refused(tmp_path):
    trainer = build(tmp_path, args={**LAST, "num_train_epochs": 1}, stage=STAGE)
    trainer.train()
    folder = last_checkpoint(tmp_path)
    from safetensors.torch import load_file, save_file

    path = folder / "adapter/beside.safetensors"
    tensors = load_file(path)
    del tensors["head.scale"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="missing: head.scale"):
        fill_adapters(trainer.model, folder, trainer.trained)


@pytest.mark.slow
def test_in_a_run_and_merged(tmp_path):
    """The stage's own folder is whole; a kept checkpoint is made whole on the stage before, which it names."""
    path = write_tasks(tmp_path / "tasks.json", tasks(40))
    args = {"num_train_epochs": 2, "per_device_train_batch_size": 16}
    lora = {"target": "language", "r": 2, "alpha": 4, "checkpoints": "adapters"}
    stages = [
        selection_stage(args=args),
        {"name": "adapt", "train": ["lora", "selection_head"], "losses": {"selection": 1.0}, "lora": lora,
         "args": args, "keep_checkpoints": "all"},
    ]  # fmt: skip
    run_recipe(build_recipe(path, tmp_path / "run", stages))
    last = last_checkpoint(tmp_path / "run/adapt/checkpoints")
    assert json.loads((last / "adapter/frozen.json").read_text())["base"] == str(tmp_path / "run/selection")
    merge_checkpoint(last, tmp_path / "merged")
    from hfvla.training.checkpoint.handover import load_state

    one, two = load_state(tmp_path / "merged"), load_state(tmp_path / "run/adapt")
    for name, value in two.items():
        torch.testing.assert_close(one[name], value, atol=1e-6, rtol=0)
