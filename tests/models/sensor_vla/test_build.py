"""From a recipe to model and processor: learned or loaded backbones, real sizes, what is refused."""

import math

import pytest
import torch

from hfvla.errors import CheckpointError, RecipeError
from hfvla.models.sensor_vla import FAMILY
from hfvla.models.sensor_vla.backbones import KINDS, backbone_kind, tokens_per_picture
from hfvla.models.sensor_vla.batches import plan_batch

from .conftest import BACKBONES, EXPERTS, observe, settings


def initialise(rows, options=None, seed=0, **config):
    return FAMILY.load("initialise")({"config": config, "options": options or {}}, rows, seed=seed)


def test_the_same_seed_gives_the_same_model(rows):
    one, two, other = (initialise(rows, seed=seed, **settings())[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_learned_tokenizer_fits_its_backbone(build, backbone):
    model, processor = build(backbone)
    config, kind = model.config.backbone_config, backbone_kind(backbone)
    assert config.get_text_config().vocab_size == len(processor.tokenizer) == len(model.get_input_embeddings().weight)
    for key, name in kind.ids.items():
        assert getattr(config, key) == processor.tokenizer.convert_tokens_to_ids(kind.tokens[name])
    assert processor.tokenizer.pad_token_id == config.get_text_config().pad_token_id
    words = processor.tokenizer("press the red square").input_ids
    assert len(words) <= 8 and processor.tokenizer.unk_token_id not in words


def test_position_embeddings_are_drawn(build):
    """transformers starts InternVL's at zero, where every patch looks the same."""
    tower = build("internvl")[0].backbone.vision_tower
    found = [p for name, p in tower.named_parameters() if name.endswith("position_embeddings")]
    assert found and all(0.3 < float(p.detach().std()) < 0.7 for p in found)


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_backbone_from_a_folder(rows, build, kind, tmp_path):
    """Its weights and processor parts are taken as they are; the parts around it are drawn, every one of them."""
    source, processor = build("qwen2_5_vl", expert={"kind": kind})
    source.backbone.save_pretrained(tmp_path)
    processor(observe())  # makes transformers' own processor
    processor._backbone.save_pretrained(tmp_path)
    config = {name: value for name, value in settings(expert={"kind": kind}).items() if name != "backbone_config"}
    options = {"backbone": str(tmp_path), "dtype": "float32"}
    model, found = initialise(rows, options, seed=5, **config)
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    assert not any(tensor.is_meta or not tensor.isfinite().all() for tensor in model.state_dict().values())
    fresh = initialise(rows, seed=7, **settings(expert={"kind": kind}))[0]
    for name, expected in fresh.named_parameters():  # drawn from the same distributions as without a folder
        if not name.startswith("backbone.") and expected.numel() >= 64:
            parameter = model.get_parameter(name).detach()
            assert math.isclose(float(parameter.std()), float(expected.detach().std()), rel_tol=0.5), name
    assert found.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    observation = observe()
    one, two = processor(observation), found(observation)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert model.predict_actions(found, [observation]).shape == (1, 4, 4)
    capped = initialise(rows, {**options, "most_pixels": 1024}, seed=5, **config)[1]
    assert found(observe(size=64))["image_grid_thw"].tolist() == [[1, 8, 8]] * 2
    assert capped(observe(size=64))["image_grid_thw"].tolist() == [[1, 4, 4]] * 2
    capped.save_pretrained(tmp_path / "saved")
    again = type(capped).from_pretrained(tmp_path / "saved")
    assert torch.equal(again(observe(size=64))["pixel_values"], capped(observe(size=64))["pixel_values"])
    again = initialise(rows, options, seed=5, **config)[0]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_recipes_that_are_refused(rows, tmp_path):
    build_config = FAMILY.load("build_config")
    with pytest.raises(RecipeError, match=r"model.config.backbone_config and model.options.backbone are both given"):
        build_config({"config": settings(), "options": {"backbone": "Qwen/Qwen2.5-VL-3B-Instruct"}})
    with pytest.raises(RecipeError, match="model.options.most_pixel"):
        build_config({"config": {}, "options": {"most_pixel": 5}})
    with pytest.raises(RecipeError, match="model.options.backbone cannot be read"):
        build_config({"config": {}, "options": {"backbone": str(tmp_path)}})
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(RecipeError, match=r"another kind of model; got .*\(clip\)"):
        build_config({"config": {}, "options": {"backbone": str(tmp_path)}})
    with pytest.raises(CheckpointError, match=r"no such kind of backbone; got 'qwen2_vl'.*qwen2_5_vl"):
        backbone_kind("qwen2_vl")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"fusion": "concatenate"}, "no such fusion; got 'concatenate'.*Did you mean 'concat'"),
        ({"feature_pooling": "max"}, "no such feature_pooling; got 'max'"),
        ({"expert": {"kind": "flwo"}}, "no such expert.kind; got 'flwo'.*Did you mean 'flow'"),
        ({"views": ["front", "front"]}, "a view is named twice"),
        ({"prompt": "insert it"}, "the prompt does not say the task"),
        ({"view_dropout": 1.0}, "view_dropout is no share; got 1.0"),
        ({"sensor_encoder": {"sensor_dropout": -0.1}}, "sensor_dropout is no share"),
        ({"action": {"horizon": 0}}, "action.horizon is no count; got 0"),
        ({"sensor": {"points": 1.5}}, "sensor.points is no count; got 1.5"),
        ({"action": {"names": ["x"]}}, "action.names; got 1; expected '?4 names"),
    ],
)
def test_configs_that_are_refused(config, match):
    with pytest.raises(CheckpointError, match=match):
        FAMILY.load("config")(**settings(**config))


@pytest.mark.parametrize("name", ["action", "sensor", "sensor_encoder", "normalization"])
def test_unknown_keys_of_a_section_are_refused(name):
    with pytest.raises(CheckpointError, match=f"unknown key in {name}; got 'pionts'"):
        FAMILY.load("config").tiny(**{name: {"pionts": 1}})


# ---- real sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [65, 650])
def test_the_rigs_shapes_at_real_size(points):
    """Qwen2.5-VL-3B, five views of 640 x 360, a window of 65 or 650 points of 1026 channels, on the meta device."""
    config = FAMILY.load("build_config")(
        {
            "config": {
                "views": [f"view{number}" for number in range(1, 6)],
                "state_dim": 12,
                "sensor": {"channels": 1026, "points": points, "rate_hz": 650.0},
                "sensor_encoder": {"branches": [1, 1025]},
                "fusion": "cross_attention",
                "expert": {"width": 1024},
            },
            "options": {"backbone": "Qwen/Qwen2.5-VL-3B-Instruct", "dtype": "bfloat16"},
        }
    )
    cut = FAMILY.feature_cuts["backbone"]
    with torch.device("meta"):
        model = FAMILY.load("model")(config)
        batch = plan_batch(config, 2, ("action",))
        batch = {name: value.to("meta") for name, value in batch.items() if name not in cut.replaces}
        features = torch.empty(2, 5 * 300, 2048)
        output = model(**batch, features=features)
    assert sum(p.numel() for p in model.backbone.parameters()) / 1e9 == pytest.approx(3.755, abs=5e-4)
    assert batch["sensor"].shape == (2, points, 1026) and output.loss.shape == ()
    tokens = model.sensor_encoder.token_count(points)
    assert tokens == {65: 5, 650: 41}[points]  # halved four times, rounded up
    assert model.sensor_encoder.stacks[1].convolutions[0].weight.shape == (512, 1025, 3)


def test_a_planned_prompt_has_the_pictures_placeholders():
    config = FAMILY.load("build_config")(
        {"config": {"views": ["a", "b"]}, "options": {"backbone": "Qwen/Qwen2.5-VL-3B-Instruct"}}
    )
    batch = plan_batch(config, 3, ("action",))
    # 640 x 360 at 28 pixels a token: 23 x 13.
    assert (batch["input_ids"] == config.backbone_config.image_token_id).sum(1).tolist() == [2 * 23 * 13] * 3
    assert batch["image_grid_thw"].tolist() == [[1, 26, 46]] * 6


@pytest.mark.parametrize("backbone", ["smolvlm", "internvl", "fast_vlm"])
def test_tokens_of_a_picture_of_one_size(build, backbone):
    assert tokens_per_picture(build(backbone)[0].config.backbone_config) == 4 and set(BACKBONES) == set(KINDS)
