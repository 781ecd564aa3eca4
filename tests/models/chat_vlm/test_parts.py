"""A model from parts: which class each combination becomes, and that it trains, saves and loads as it was."""

from unittest.mock import Mock, patch

import pytest
import torch

from hfvla.data.samples.chat import ChatSample
from hfvla.errors import RecipeError
from hfvla.models.chat_vlm import FAMILY
from hfvla.models.chat_vlm.answering import write_answers
from hfvla.models.chat_vlm.build import adapt
from hfvla.registry import load_checkpoint

LANGUAGE = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 64, "max_position_embeddings": 512, "tie_word_embeddings": True,
}  # fmt: skip
TOWER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
FEW = {"perceiver_config": {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2,
                            "resampler_head_dim": 16, "num_key_value_heads": 1}}  # fmt: skip
CASES = {
    "siglip, mlp": ({"model_type": "siglip_vision_model"}, "mlp", "LlavaForConditionalGeneration"),
    "clip, mlp": ({"model_type": "clip_vision_model", "projection_dim": 32}, "mlp", "LlavaForConditionalGeneration"),
    "vit, mlp": ({"model_type": "vit"}, "mlp", "LlavaForConditionalGeneration"),
    "internvit, pixel_shuffle": (
        {"model_type": "internvl_vision", "image_size": [32, 32], "patch_size": [8, 8]}, "pixel_shuffle",
        "InternVLForConditionalGeneration",
    ),
    "siglip, pixel_shuffle": (
        {"model_type": "siglip_vision_model"}, "pixel_shuffle", "AyaVisionForConditionalGeneration",
    ),
    "siglip, resampler": ({"model_type": "siglip_vision_model"}, "resampler", "Idefics2ForConditionalGeneration"),
}  # fmt: skip


def options(case, **more):
    vision, projector, _ = CASES[case]
    return {"vision": {**TOWER, **vision}, "language": LANGUAGE, "projector": projector, "vocab_size": 400, **more}


@pytest.mark.parametrize("case", list(CASES))
def test_parts_become_a_model_of_transformers(case, rows, tmp_path):
    config = FEW if "resampler" in case else {}
    section = {"config": config, "options": options(case, tokens=["<loc>"])}
    planned = FAMILY.load("build_config")(section)
    model, processor = FAMILY.load("initialise")(section, rows, seed=0)
    assert type(model).__name__ == CASES[case][2] and planned.model_type == model.config.model_type
    assert set(FAMILY.of_model(model).groups) == {"vision", "projector", "language", "embeddings"}
    batch = FAMILY.load("collator")(processor, model.config, losses=("sft",))([dict(row) for row in rows])
    FAMILY.give_objective(model, losses=("sft",))
    model.train()(**batch).loss.backward()
    reached = {name.split(".")[1] for name, value in model.named_parameters() if value.grad is not None}
    assert len(reached) == 3  # tower, projector and language model
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    _, loaded, again = load_checkpoint(tmp_path, family="chat_vlm")
    other = FAMILY.load("collator")(again, loaded.config, losses=("sft",))([dict(row) for row in rows])
    assert all(torch.equal(batch[name], other[name]) for name in batch)
    assert torch.equal(FAMILY.give_objective(loaded, losses=("sft",))(**other).loss, model.eval()(**batch).loss)
    assert len(again.tokenizer.encode("<loc>", add_special_tokens=False)) == 1


def test_a_tower_of_timm_takes_the_sizes_that_the_recipe_says(rows, tmp_path):
    tower = {"model_type": "timm_wrapper", "architecture": "test_convnext",
             "model_args": {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}}  # fmt: skip
    section = {"options": {**options("siglip, mlp"), "vision": tower, "image_size": 64}}
    model, processor = FAMILY.load("initialise")(section, rows, seed=0)
    assert type(model).__name__ == "FastVlmForConditionalGeneration" and model.config.vision_config.hidden_size == 16
    batch = FAMILY.load("collator")(processor, model.config, losses=("sft",))([dict(row) for row in rows])
    assert batch["pixel_values"].shape[-2:] == (64, 64)
    pictures = len(batch["pixel_values"])
    assert int((batch["input_ids"] == model.config.image_token_id).sum()) == 4 * pictures  # stride 32: a grid of 2 x 2
    FAMILY.give_objective(model, losses=("sft",))
    loss = model.eval()(**batch).loss
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    _, loaded, _ = load_checkpoint(tmp_path, family="chat_vlm")
    assert torch.equal(FAMILY.give_objective(loaded, losses=("sft",))(**batch).loss, loss)
    asked = [ChatSample.from_row(dict(row)) for row in rows]
    together = write_answers(loaded, processor, asked, 6)
    assert together == [write_answers(loaded, processor, [sample], 6)[0] for sample in asked]
    word = processor.tokenizer(" red", add_special_tokens=False, return_tensors="pt").input_ids
    for given, drawn in (({}, {"do_sample": False}), ({"temperature": 1.5}, {"do_sample": True, "temperature": 1.5})):
        red = Mock(side_effect=lambda input_ids, **_: torch.cat([input_ids, word], 1))
        with patch.object(loaded, "generate", red):
            reply = FAMILY.ask(loaded, processor, {"question": "What?", "max_new_tokens": 3, **given})
        assert reply["answer"] == "red" and red.call_args.kwargs["max_new_tokens"] == 3
        assert {key: red.call_args.kwargs.get(key) for key in drawn} == drawn
    with pytest.raises(RecipeError, match="is its architecture and model_args; got 'architecture, image_size'"):
        FAMILY.load("build_config")({"options": {**section["options"], "vision": {
            "model_type": "timm_wrapper", "architecture": "test_convnext", "image_size": 64}}})  # fmt: skip


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"projector": "pixel_shuffle", "vision": {**TOWER, "model_type": "vit"}}, "without a class token.*got 'vit'"),
        ({"projector": "resampler", "vision": {**TOWER, "model_type": "vit"}}, "goes with a SigLIP tower; got 'vit'"),
        ({"vision": {**TOWER, "model_type": "no_such"}}, "model.options.vision: no such model; got 'no_such'"),
        ({"language": "/nowhere/model"}, "model.options.language cannot be read; got '/nowhere/model'"),
        ({"language": None}, "`vision` and `language` come together"),
    ],
)
def test_parts_that_do_not_go_together(change, match):
    with pytest.raises(RecipeError, match=match):
        FAMILY.load("build_config")({"config": {}, "options": {**options("siglip, mlp"), **change}})
    with pytest.raises(RecipeError, match="nothing to start from"):
        FAMILY.load("build_config")({"config": {}, "options": {}})


def test_a_checkpoint_is_adapted_as_the_options_say(built, rows):
    import copy

    model, processor = copy.deepcopy(built[0]), copy.deepcopy(built[1])
    before = model.get_input_embeddings().weight.shape[0]
    adapt(model, processor, {"tokens": ["<loc>", "<box>"], "max_length": 99})
    assert model.get_input_embeddings().weight.shape[0] == len(processor.tokenizer) == before + 2
    assert model.config.get_text_config().vocab_size == before + 2 and processor.tokenizer.model_max_length == 99
    with pytest.raises(RecipeError, match="pixels: this model's pictures have another way of sizes"):
        adapt(model, processor, {"pixels": [100, 200]})
    with pytest.raises(RecipeError, match="`pretrained` and a model from parts"):
        adapt(model, processor, options("siglip, mlp"))
