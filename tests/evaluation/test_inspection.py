"""`hfvla inspect`: what is told of a checkpoint from its files alone, and what a changed or incomplete one is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfvla.cli import main
from hfvla.errors import CheckpointError
from hfvla.evaluation.inspection import inspect_checkpoint
from hfvla.registry import available_families
from hfvla.sealing import seal_folder

OLD = Path(__file__).parents[1] / "fixtures/checkpoints_0_1"
FAMILIES = sorted(path.name for path in OLD.iterdir() if path.is_dir())


@pytest.fixture
def final(tmp_path):
    """A checkpoint in the folder of a finished run, with an adapter beside its weights."""
    folder = Path(shutil.copytree(OLD / "ember_vlm", tmp_path / "run/final"))
    (folder / "batch.safetensors").unlink()
    (folder / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "use_dora": False}
    (folder / "adapter/adapter_config.json").write_text(json.dumps(config))
    save_file({"a": torch.zeros(8)}, folder / "adapter/adapter_model.safetensors")
    recipe = json.loads((folder / "recipe.json").read_text())
    done = {"name": recipe["stages"][0]["name"], "steps": 3, "epochs": 1.0, "train_loss": 2.5}
    scores = {"metrics": {"n": 4, "exact_match": 0.5, "precision/Drone": 1.0, "single_accuracy": 0.1}}
    record = {"recipe": recipe, "stages": [done], "versions": {"hfvla": "0.1.0"}, "evaluation": {"held_out": scores}}
    (folder.parent / "run.json").write_text(json.dumps(record))
    seal_folder(folder, {"run": "x"})
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_and_sizes_are_those_of_the_weights(family):
    found = inspect_checkpoint(OLD / family)
    tensors = load_file(OLD / family / "model.safetensors")
    assert (found["family"], found["weights"]["tensors"]) == (family, len(tensors))
    assert found["weights"]["parameters"] == sum(value.numel() for value in tensors.values())
    assert sum(found["parts"].values()) == found["weights"]["parameters"]
    assert found["parts"].get("(other)", 0) == 0
    assert found["classes"]["model"] == available_families()[family].model
    assert found["contents"].startswith("not sealed") and found["scores"] == {}


def test_the_run_that_it_came_from(final):
    found = inspect_checkpoint(final)
    assert found["contents"] == "as they were written"
    assert found["scores"] == {"held_out": {"n": 4, "exact_match": 0.5}}
    first = found["run"]["stages"][0]
    assert (first["steps"], first["train_loss"], found["run"]["hfvla"]) == (3, 2.5, "0.1.0") and first["train"]
    (adapter,) = found["adapters"]
    assert (adapter["folder"], adapter["r"], adapter["target_modules"]) == ("adapter", 4, ["c_attn"])
    assert "use_dora" not in adapter and adapter["bytes"] == found["files"]["adapter/adapter_model.safetensors"]
    alone = inspect_checkpoint(shutil.copytree(final, final.parents[1] / "copied"))
    assert alone["run"]["recipe"] == found["run"]["recipe"] and alone["run"]["stages"][0]["steps"] is None


def test_the_command(final, capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", str(final), *words])
        return caught.value.code or 0, capsys.readouterr()

    code, printed = call("--load")
    assert code == 0 and "loads: yes" in printed.out and "selection head" in printed.out
    weights = load_file(final / "model.safetensors")
    weights.pop(next(name for name in weights if name.startswith("selection_head")))
    save_file(weights, final / "model.safetensors", metadata={"format": "pt"})
    code, printed = call("--load", "--json")
    found = json.loads(printed.out)
    assert code == 1 and found["contents"].startswith("changed: ") and "model.safetensors" in found["contents"]
    assert found["loads"].startswith("no: ")


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no config.json"):
        inspect_checkpoint(tmp_path)
