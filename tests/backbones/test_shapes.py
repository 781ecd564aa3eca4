"""Shapes of image-text models: those of the hub have the hub's parameters, the tiny ones build and run."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from hfvla.backbones.shapes import TINY_VLMS, VLM_SHAPES, tiny_vlm
from hfvla.errors import CheckpointError

# Of the model without its output layer, which is tied to the embedding in the 3B.
BILLIONS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (3.755, 0.0),
    "Qwen/Qwen2.5-VL-7B-Instruct": (8.292, 152_064 * 3584 / 1e9),
    "OpenGVLab/InternVL3-1B-hf": (0.938, 151_674 * 896 / 1e9),
}


@pytest.mark.parametrize("name", BILLIONS)
def test_parameters_of_the_real_ones(name):
    settings = dict(VLM_SHAPES[name])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    whole, output_layer = BILLIONS[name]
    assert sum(value.numel() for value in model.parameters()) / 1e9 == pytest.approx(whole - output_layer, abs=6e-4)


@pytest.mark.parametrize("model_type", TINY_VLMS)
def test_tiny_ones_build(model_type):
    settings = tiny_vlm(model_type)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModel.from_config(config)
    assert sum(value.numel() for value in model.parameters()) < 200_000
    assert config.get_text_config().hidden_size == 32
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([[20, 21, 22]])).last_hidden_state
    assert hidden.shape == (1, 3, 32) and hidden.isfinite().all()


def test_settings_are_a_copy():
    tiny_vlm("qwen3_vl")["text_config"]["hidden_size"] = 5
    assert tiny_vlm("qwen3_vl")["text_config"]["hidden_size"] == 32


def test_an_unknown_type_is_refused():
    with pytest.raises(CheckpointError, match="no tiny backbone; got 'qwen3_vll'.*Did you mean 'qwen3_vl'"):
        tiny_vlm("qwen3_vll")
