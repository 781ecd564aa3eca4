"""Defaults are the real sizes; what does not fit is refused; a config of an older release loads."""

import json

import pytest
import torch

from hfvla.errors import CheckpointError
from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import InternVLRetrievalConfig
from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

REAL = {
    "image_adapter": 328_192,  # 1024 * 256 + 256 + 256 * 256 + 256
    "text_adapter": 295_424,  # 896 * 256 + 256 + 256 * 256 + 256
    "itm_head": 131_842,  # 512 * 256 + 256 + 256 * 2 + 2
    "bbox_head": 132_356,
    "spatial_head": 132_870,
    "backbone.language_model.layers.23": 14_912_384,
    "backbone.vision_tower.encoder.layer.23": 12_598_272,
}


@pytest.fixture(scope="module")
def real():
    with torch.device("meta"):
        return InternVLForRetrieval(InternVLRetrievalConfig())


@pytest.mark.parametrize("part", REAL)
def test_parts_of_the_real_model(real, part):
    assert sum(value.numel() for value in real.get_submodule(part).parameters()) == REAL[part]


def test_the_real_model_has_no_output_layer(real):
    assert real.backbone.language_model.embed_tokens.weight.shape == (151_674, 896)
    assert not [name for name, _ in real.named_parameters() if "lm_head" in name]
    assert sum(value.numel() for value in real.parameters()) == 803_313_805


@pytest.mark.parametrize(("name", "width"), [("2B", 1536), ("8B", 3584)])
def test_other_backbones(name, width):
    from hfvla.backbones.shapes import known_backbone

    config = InternVLRetrievalConfig(
        backbone_config=known_backbone(f"OpenGVLab/InternVL3-{name}-hf"), image_from="language", heads="grid"
    )
    with torch.device("meta"):
        model = InternVLForRetrieval(config)
    assert model.image_adapter.up.weight.shape == model.text_adapter.up.weight.shape == (256, width)
    assert model.grid_projection.weight.shape == (256, width) and config.grid_size == (16, 16)


def test_nested_settings_are_filled():
    config = InternVLRetrievalConfig.tiny(adapter={"skip": True}, negatives={"queue": 4})
    assert config.adapter == {"dropout": 0.1, "skip": True, "layer_norm": False}
    assert config.negatives == {"seed": 0, "gather": False, "queue": 4}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"image_from": "visions"}, "visions.*vision"),
        ({"heads": "pool"}, "pool.*pooled"),
        ({"text_pooling": "first"}, "first"),
        ({"adapter": {"skips": True}}, "skips.*skip"),
        ({"negatives": {"sead": 1}}, "sead.*seed"),
        ({"temperature_init": 0.0}, "0.0"),
        ({"sentence_slots": 0}, r"\[0, 96, 0\]"),
        ({"backbone_config": {"image_seq_length": 5, "vision_config": {"image_size": 32, "patch_size": 8}}}, "got 5"),
        ({"backbone_config": {"vision_config": {"image_size": 450, "patch_size": 14}}}, "450.*multiples of 28"),
    ],
)
def test_what_does_not_fit_is_refused(settings, named):
    with pytest.raises(CheckpointError, match=f"(?s){named}"):
        InternVLRetrievalConfig.tiny(**settings)


def test_a_checkpoint_of_an_older_release_loads(model, collate, rows, tmp_path):
    """One that was saved before adapters could be upgraded, and before the queue and the image prompt."""
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["negatives"], config["image_prompt"], config["adapter"]["skip"], config["adapter"]["layer_norm"]
    file.write_text(json.dumps(config))
    loaded = InternVLForRetrieval.from_pretrained(tmp_path)
    assert loaded.config.adapter == model.config.adapter and loaded.config.negatives == model.config.negatives
    batch = collate(rows)
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)


def test_an_upgraded_checkpoint_keeps_what_it_learned(other_model, collate, rows, tmp_path):
    """Loading must not put skip and gate back to zero."""
    upgraded = other_model(adapter={"dropout": 0.0, "skip": True, "layer_norm": True})
    with torch.no_grad():
        for adapter in (upgraded.image_adapter, upgraded.text_adapter):
            adapter.skip.weight.normal_()
            adapter.norm.gate.fill_(0.7)
        upgraded.log_temperature.fill_(-1.5)
        upgraded.grid_attention.row_positions.fill_(0.25)
    upgraded.save_pretrained(tmp_path)
    loaded = InternVLForRetrieval.from_pretrained(tmp_path)
    state = upgraded.state_dict()
    assert [name for name, value in loaded.state_dict().items() if not torch.equal(value, state[name])] == []
    assert torch.equal(loaded(**collate(rows)).loss, upgraded(**collate(rows)).loss)


def test_an_older_checkpoint_loads_with_upgraded_adapters(model, collate, rows, tmp_path):
    """What the file does not hold starts where it changes nothing."""
    model.save_pretrained(tmp_path)
    upgrade = {"dropout": 0.0, "skip": True, "layer_norm": True}
    loaded = InternVLForRetrieval.from_pretrained(tmp_path, adapter=upgrade)
    assert loaded.image_adapter.skip is not None and not loaded.image_adapter.skip.weight.any()
    assert loaded.image_adapter.norm is not None and not loaded.text_adapter.norm.gate.any()
    batch = collate(rows)
    torch.testing.assert_close(loaded(**batch).loss, model(**batch).loss, atol=1e-6, rtol=1e-6)
