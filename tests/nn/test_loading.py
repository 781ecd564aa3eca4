"""Memory alignment of loaded weights."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hfvla.errors import CheckpointError
from hfvla.nn.loading import AlignedPreTrainedModel, realign


def misaligned(*shape: int) -> torch.Tensor:
    """Return random values that start 4 bytes after a 64-byte boundary."""
    count = torch.Size(shape).numel()
    storage = torch.randn(count + 1)
    assert storage.data_ptr() % 64 == 0
    return storage[1:].view(shape)


def test_misaligned_tensors_become_aligned():
    model = nn.BatchNorm1d(5)
    model.weight = nn.Parameter(misaligned(5), requires_grad=False)
    model.running_mean = misaligned(5)
    weight, values = model.weight, [model.weight.clone(), model.running_mean.clone()]
    untouched = model.bias.data_ptr()

    assert realign(model) == 2
    assert model.weight.data_ptr() % 64 == 0 and model.running_mean.data_ptr() % 64 == 0
    assert torch.equal(model.weight, values[0]) and torch.equal(model.running_mean, values[1])
    assert model.weight is weight and not model.weight.requires_grad  # the same parameter, so ties stay ties
    assert model.bias.data_ptr() == untouched
    assert realign(model) == 0


class LinearConfig(PreTrainedConfig):
    model_type = "linear_for_tests"


class LinearModel(AlignedPreTrainedModel):
    config_class = LinearConfig

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList([nn.Linear(size, size) for size in (3, 5, 7)])
        self.post_init()


def test_from_pretrained_realigns(tmp_path, monkeypatch):
    LinearModel(LinearConfig()).save_pretrained(tmp_path)
    plain = PreTrainedModel.from_pretrained.__func__(LinearModel, tmp_path)
    for parameter in plain.parameters():
        parameter.data = misaligned(*parameter.shape).copy_(parameter)  # wherever the file's bytes may lie

    def load_misaligned(cls, *args, **kwargs):
        return (plain, {}) if kwargs.get("output_loading_info") else plain

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(load_misaligned))
    model, _ = LinearModel.from_pretrained(tmp_path, output_loading_info=True)
    assert model is plain
    assert all(parameter.data_ptr() % 64 == 0 for parameter in model.parameters())


def test_save_pretrained_refuses_adapters(tmp_path):
    model = LinearModel(LinearConfig())
    inject_adapter_in_model(LoraConfig(target_modules=["1"], r=2), model)
    with pytest.raises(CheckpointError, match=r"LinearModel.*lora_A.*save_model"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
