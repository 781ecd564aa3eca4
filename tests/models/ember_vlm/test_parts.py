"""EmberVLM from other language models and towers than its own."""

import json

import pytest
import timm
import torch

from hfvla.backbones.towers import image_statistics
from hfvla.errors import CheckpointError
from hfvla.models.ember_vlm import FAMILY
from hfvla.models.ember_vlm.build import build_config, initialise
from hfvla.models.ember_vlm.configuration_ember_vlm import LANGUAGE_MODELS, EmberVLMConfig
from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection
from hfvla.training.stage.groups import expand_group

from .conftest import recipe

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_every_language_model_selects_writes_and_reloads(kind, tmp_path):
    torch.manual_seed(0)
    config = EmberVLMConfig.tiny(text_config={"model_type": kind, **SMALL})
    model = EmberVLMForRobotSelection(config).eval()
    ids = torch.randint(20, 500, (2, 24))
    ids[:, : config.num_visual_tokens] = config.image_token_id
    pixels = torch.randn(2, 3, 64, 64)
    labels = ids.where(torch.arange(24) > 12, -100)
    inputs = {"input_ids": ids, "pixel_values": pixels, "labels": labels, "text_kind": torch.full((2,), 0)}
    output = model(**inputs, robot_labels=torch.ones(2, 5))
    output.loss.backward()
    layers = [model.get_parameter(name) for name in expand_group(model, FAMILY.groups, "language.last(1)")]
    assert layers and all(parameter.grad is not None for parameter in layers)
    assert {"caption"} <= set(output.loss_terms)
    assert expand_group(model, FAMILY.groups, "embeddings")
    assert model.generate_reasoning(ids, pixels, max_new_tokens=3).shape == (2, 3)

    # Padding on the left moves no position: the answer stays.
    padded = torch.cat([torch.full((2, 3), 9), ids], 1)
    mask = torch.ones_like(padded)
    mask[:, :3] = 0
    with torch.no_grad():
        moved = model(padded, mask, pixels).selection_logits
        straight = model(ids, None, pixels).selection_logits
    torch.testing.assert_close(moved, straight, rtol=0, atol=2e-5)

    model.save_pretrained(tmp_path)
    again = EmberVLMForRobotSelection.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(ids, None, pixels).selection_logits, straight)


def test_a_language_model_that_takes_no_embeddings_is_refused():
    with pytest.raises(CheckpointError, match=r"text_config.model_type.*'t5'.*one of gpt2, llama"):
        EmberVLMConfig.tiny(text_config={"model_type": "t5"})


@pytest.fixture
def parts(tmp_path):
    """A Llama with a tokenizer, and a tower of other channels and statistics, in two folders."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from hfvla.models.ember_vlm.batches import build_tokenizer

    torch.manual_seed(1)
    tokenizer = build_tokenizer(["robots at work"], 300)
    language = LlamaForCausalLM(LlamaConfig(**SMALL | {"vocab_size": len(tokenizer) - 2}))
    language.save_pretrained(tmp_path / "language")
    tokenizer.save_pretrained(tmp_path / "language")
    tower = timm.create_model("test_efficientnet", num_classes=10)
    timm.models.save_for_hf(tower, str(tmp_path / "tower"), safe_serialization=True)
    written = tmp_path / "tower" / "config.json"
    said = json.loads(written.read_text())
    said["pretrained_cfg"] |= {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
    written.write_text(json.dumps(said))
    return language, tower, {"language": str(tmp_path / "language"), "vision": f"local-dir:{tmp_path / 'tower'}"}


def test_folders_say_what_they_are(rows, parts):
    language, tower, options = parts
    wanted = {"config": {"image_size": 64}, "options": options}
    planned = build_config(wanted)
    assert planned.text_config.model_type == "llama" and planned.text_config.hidden_size == 32
    assert planned.vision_config.architecture == "test_efficientnet"
    assert planned.vision_hidden_size == tower.num_features

    model, processor = initialise(wanted, rows, seed=0)
    assert list(processor.image_processor.image_mean) == [0.5, 0.4, 0.3]
    assert list(processor.image_processor.image_std) == [0.2, 0.2, 0.1]
    ours, theirs = model.language_model.state_dict(), language.state_dict()
    known = len(theirs["model.embed_tokens.weight"])
    assert torch.equal(ours["model.embed_tokens.weight"][:known], theirs["model.embed_tokens.weight"])
    assert torch.equal(ours["model.layers.1.mlp.up_proj.weight"], theirs["model.layers.1.mlp.up_proj.weight"])
    for name, value in tower.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(model.vision.backbone.state_dict()[name], value), name


def test_towers_without_a_folder_have_timms_statistics():
    assert image_statistics("tf_efficientnet_lite0")[0] == [0.5, 0.5, 0.5]
    assert image_statistics("repvit_m0_9")[0] == [0.485, 0.456, 0.406]


def test_an_untied_language_model_stays_untied():
    untied = EmberVLMConfig.tiny(text_config={"model_type": "llama", **SMALL, "tie_word_embeddings": False})
    model = EmberVLMForRobotSelection(untied)
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    assert EmberVLMConfig.tiny().tie_word_embeddings is True


def test_recipes_without_folders_stay_as_they_were():
    assert build_config(recipe()).text_config.model_type == "gpt2"
