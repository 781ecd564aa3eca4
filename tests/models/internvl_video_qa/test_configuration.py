"""The config: real shapes by default, tokens a tile, and what cannot be."""

import pytest
import torch

from hfvla.errors import CheckpointError
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import BACKBONES, InternVLVideoQAConfig


@pytest.mark.parametrize(
    ("name", "billions"), [("1B", 0.938), ("2B", 2.089), ("8B", 7.944)]
)  # the hub's checkpoints, counted on the meta device
def test_known_backbones_are_the_real_sizes(name, billions):
    config = InternVLVideoQAConfig(backbone_config=BACKBONES[f"OpenGVLab/InternVL3-{name}-hf"])
    with torch.device("meta"):
        model = FAMILY.load("model")(config)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(billions, abs=5e-4)
    assert config.tile_size == 448 and config.tokens_per_tile == 256
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight


def test_settings_are_filled_and_kept(tmp_path):
    config = InternVLVideoQAConfig.tiny(frames={"most": 5}, tiling={"token_budget": 99}, support_dropout=0.5)
    assert config.frames == {"fewest": 4, "most": 5, "seconds_per_frame": 2.0, "margin_s": 0.5}
    assert config.tiling == {"most_tiles": 6, "token_budget": 99}
    config.save_pretrained(tmp_path)
    again = InternVLVideoQAConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict() and again.get_text_config().hidden_size == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": {"mots": 5}}, r"unknown key in frames; got 'mots'. Did you mean 'most'"),
        ({"tiling": {"tiles": 5}}, r"unknown key in tiling; got 'tiles'"),
        ({"frames": {"fewest": 7}}, r"no such range of frames; got .*'fewest': 7"),
        ({"tiling": {"token_budget": 11}}, r"token budget is below one tile a frame; got 11; expected >= 12"),
        ({"letter_token_ids": [5, 6, 6, 7]}, r"each letter needs a token of its own; got \[5, 6, 6, 7\]"),
        ({"support_dropout": 1.5}, r"support_dropout is no share; got 1.5"),
        ({"answer_by": "word"}, r"no such way to answer; got 'word'. Did you mean 'words'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(CheckpointError, match=message):
        InternVLVideoQAConfig.tiny(**settings)


def test_a_tile_leaves_as_many_tokens_as_said():
    backbone = InternVLVideoQAConfig.tiny().backbone_config.to_dict()
    with pytest.raises(CheckpointError, match=r"image_seq_length is not what a tile leaves .* got 16; expected 4"):
        InternVLVideoQAConfig(backbone_config={**backbone, "image_seq_length": 16})
