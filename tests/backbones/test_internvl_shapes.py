"""Shapes of InternVL's checkpoints, and of the one for tests."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from hfvla.backbones.shapes import BACKBONES, known_backbone, tiny_backbone


@pytest.mark.parametrize(("name", "language"), [("1B", 493_798_016), ("2B", 1_543_311_872), ("8B", 7_069_221_376)])
def test_parameters_of_the_real_ones(name, language):
    """As on the hub, without output layer: InternViT-300M, and Qwen2.5 of 0.5, 1.5 and 7 B."""
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model("internvl", **BACKBONES[f"OpenGVLab/InternVL3-{name}-hf"]))
    assert sum(value.numel() for value in model.vision_tower.parameters()) == 304_012_288
    assert sum(value.numel() for value in model.language_model.parameters()) == language


def test_others_are_not_known():
    assert known_backbone("OpenGVLab/InternVL3-78B-hf") is None
    assert known_backbone("OpenGVLab/InternVL3-1B-hf") is BACKBONES["OpenGVLab/InternVL3-1B-hf"]


def test_the_tiny_one_takes_settings_of_its_text_model():
    config = AutoConfig.for_model("internvl", **tiny_backbone(hidden_size=48, vocab_size=99))
    assert (config.text_config.hidden_size, config.text_config.vocab_size) == (48, 99)
    assert config.vision_config.hidden_size == 32 and config.image_seq_length == 4
