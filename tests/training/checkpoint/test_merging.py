"""`hfvla merge`: a plain checkpoint that computes what the adapted model computed."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfvla.errors import CheckpointError
from hfvla.training.checkpoint.adapters import share_adapter
from hfvla.training.checkpoint.merging import merge_checkpoint
from hfvla.training.run.saving import save_and_audit

from .. import toy


class Processor:
    def save_pretrained(self, folder):
        """Write one file, as a processor does."""
        (folder / "processor_config.json").write_text("{}")


@pytest.fixture(autouse=True)
def toy_family(monkeypatch):
    def load(path):
        return SimpleNamespace(name="toy"), toy.ToyModel.from_pretrained(path).eval(), Processor()

    monkeypatch.setattr("hfvla.registry.load_checkpoint", load)


@pytest.fixture
def stage(tmp_path):
    """A finished stage whose adapters do something, and the model that trained."""
    lora = {"target": "blocks", "r": 2, "alpha": 3}
    trainer = toy.build_trainer(tmp_path / "out", train=["lora", "head"], lora=lora)
    trainer.train()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    save_and_audit(trainer, tmp_path / "stage")
    (tmp_path / "stage/recipe.json").write_text('{"name": "toy"}')
    return SimpleNamespace(folder=tmp_path / "stage", model=trainer.model.eval())


def outputs(model):
    batch = toy.collate(list(toy.build_rows()))
    with torch.inference_mode():
        return model(**batch).logits


def test_a_stage_becomes_a_plain_checkpoint(stage, tmp_path):
    summary = merge_checkpoint(stage.folder, tmp_path / "plain")
    merged = toy.ToyModel.from_pretrained(tmp_path / "plain").eval()
    torch.testing.assert_close(outputs(merged), outputs(stage.model), rtol=0, atol=1e-6)
    assert not (tmp_path / "plain/adapter").exists()
    assert {path.name for path in (tmp_path / "plain").iterdir()} >= {"processor_config.json", "recipe.json"}
    assert summary["adapters"] == ["default"] and summary["adapter_parameters"] == 3 * 2 * (4 + 4)
    assert summary["largest_difference"] < 1e-6 and summary["dtype"] == "float32"


def test_adapters_that_came_alone_are_merged_into_their_base(stage, tmp_path):
    base = toy.build_model()
    base.backbone.load_state_dict(stage.model.backbone.state_dict())  # batch norm saw the data
    base.save_pretrained(tmp_path / "base")
    share_adapter(stage.folder, tmp_path / "shared")
    summary = merge_checkpoint(tmp_path / "shared", tmp_path / "plain", base=tmp_path / "base")
    merged = toy.ToyModel.from_pretrained(tmp_path / "plain").eval()
    torch.testing.assert_close(outputs(merged), outputs(stage.model), rtol=0, atol=1e-6)
    assert summary["largest_difference"] is None


def test_the_weights_can_be_halved(stage, tmp_path):
    summary = merge_checkpoint(stage.folder, tmp_path / "plain", dtype="bfloat16")
    tensors = load_file(tmp_path / "plain/model.safetensors")
    assert summary["dtype"] == "bfloat16" and tensors["blocks.0.weight"].dtype == torch.bfloat16


def test_adapters_of_another_run_are_noticed(stage, tmp_path):
    path = stage.folder / "adapter/adapter_model.safetensors"
    tensors = {name: value + 0.5 for name, value in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"not base weights plus adapters.*blocks\.\d\.weight|blocks\.\d\.weight.*not base"
    ):
        merge_checkpoint(stage.folder, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_nothing_is_overwritten_and_nothing_merged_without_adapters(stage, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="output folder is not empty"):
        merge_checkpoint(stage.folder, tmp_path / "plain")
    toy.build_model().save_pretrained(tmp_path / "bare")
    with pytest.raises(CheckpointError, match="no adapters to merge"):
        merge_checkpoint(tmp_path / "bare", tmp_path / "new")
    with pytest.raises(CheckpointError, match="no such type of weights; got 'float3'.*float32"):
        merge_checkpoint(stage.folder, tmp_path / "new", dtype="float3")
