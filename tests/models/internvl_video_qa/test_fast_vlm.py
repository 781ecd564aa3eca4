"""A convolutional tower of timm before a language model of another kind as backbone (FastVLM), and the cut before the
projector."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, FastVlmConfig, LlavaProcessor, SiglipImageProcessor

from hfvla.cache import choose_cut
from hfvla.data.tokenizers import learn_tokenizer
from hfvla.errors import CheckpointError, RecipeError
from hfvla.family import CutContext
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.models.internvl_video_qa.batches import training_texts
from hfvla.models.internvl_video_qa.build import build_config, initialise
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import InternVLVideoQAConfig

from .test_processing import CHAT

SIDE, CELLS, WIDTH = 64, 4, 32  # test_efficientnet: a cell spans 32 pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    """Such a model on disk, with a processor that cuts no tiles and a tokenizer that does not name its image token."""
    target = tmp_path_factory.mktemp("fast_vlm")
    named = {"image_token": "<image>", "im_end_token": "<|im_end|>"}
    tokenizer = learn_tokenizer([*training_texts(rows)] * 4, 300, named)
    tower = {"architecture": "test_efficientnet", "do_pooling": False, "num_classes": 0, "global_pool": "",
             "hidden_size": 256, "pretrained_cfg": {"input_size": [3, SIDE, SIDE]}}  # fmt: skip
    text = {"model_type": "llama", "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 64, "vocab_size": len(tokenizer),
            "max_position_embeddings": 512, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    config = FastVlmConfig(
        vision_config=tower, text_config=text, image_seq_length=CELLS,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(target)
    size = {"height": SIDE, "width": SIDE}
    pictures = SiglipImageProcessor(size=size, image_mean=[0.4] * 3, image_std=[0.3] * 3)
    LlavaProcessor(pictures, tokenizer, patch_size=32, chat_template=CHAT).save_pretrained(target)
    return target


def section(folder):
    config = {"frames": {"fewest": 2, "most": 3}, "tiling": {"most_tiles": 1, "token_budget": 64}}
    return {"config": {**config, "support_dropout": 0.0}, "options": {"backbone": str(folder)}}


@pytest.fixture(scope="module")
def made(folder, rows):
    return initialise(section(folder), rows, seed=0)


def test_its_weights_pictures_and_tokens_are_taken_over(made, folder, rows, tmp_path):
    model, processor = made
    source = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, source[name]) for name, value in model.backbone.state_dict().items())
    assert (model.config.tile_size, model.config.tokens_per_tile) == (SIDE, CELLS)
    assert (
        tuple(processor.image_processor.image_mean) == (0.4,) * 3
        and processor.image_processor.crop_to_patches is not None
    )
    batch = FAMILY.load("collator")(processor, model.config, tuple(FAMILY.losses))(list(rows))
    prompt = processor.tokenizer.decode(batch["input_ids"][0])
    assert prompt.count("<image>") % CELLS == 0 and "<image>" * CELLS in prompt
    output = model(**batch)
    assert set(output.loss_terms) == set(FAMILY.losses)
    model.save_pretrained(tmp_path), processor.save_pretrained(tmp_path)
    again = FAMILY.load("model").from_pretrained(tmp_path)
    processor.check_config(again.config)
    assert torch.equal(again(**batch).letter_logits, output.letter_logits)
    planned = build_config(section(folder))
    assert planned.backbone_config.model_type == "fast_vlm" and planned.tokens_per_tile == CELLS


def test_the_cut_before_the_projector_keeps_what_it_takes(made, rows):
    model, processor = made
    model.eval()
    trained = {name: "projector" for name, _ in model.named_parameters() if "multi_modal_projector" in name}
    name, cut = choose_cut(FAMILY, trained, "stage 'see'")
    assert name == "tower_maps" and choose_cut(FAMILY, {}, "stage 'tell'")[0] == "visual_tokens"
    context = CutContext(processor=processor, config=model.config, losses=("letters",))
    with torch.no_grad():
        kept = cut.load("encode")(model, cut.load("prepare")(context, rows))
        collate = FAMILY.load("collator")(processor, model.config, ("letters", "words"))
        plain = collate(list(rows))
        cached = collate([{**row, "cached_features": found} for row, found in zip(rows, kept, strict=True)])
        assert "pixel_values" not in cached and cached["tower_features"].shape[1:] == (CELLS, 256)
        torch.testing.assert_close(model(**cached).letter_logits, model(**plain).letter_logits)
        halved = {**cached, "tower_features": cached["tower_features"].half()}  # as the cache stores them
        assert model(**halved).letter_logits.dtype == torch.float32
    with pytest.raises(ValueError, match="has one"):
        model(**plain, tower_features=cached["tower_features"])


def test_another_kind_of_backbone_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="llava"):
        InternVLVideoQAConfig(backbone_config={"model_type": "llava"})
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(RecipeError, match="'internvl' or 'fast_vlm'"):
        build_config({"options": {"backbone": str(tmp_path)}})


def test_neighbouring_tokens_of_a_tile_are_averaged_to_one(folder, rows, made):
    asked = section(folder)
    pooled, processor = initialise({**asked, "config": {**asked["config"], "tile_pool": 2}}, rows, seed=0)
    assert pooled.config.tokens_per_tile == processor.tokens_per_tile == 1
    pixels = torch.randn(2, 3, SIDE, SIDE)
    pooled.eval(), made[0].eval()
    with torch.no_grad():
        tokens = made[0].get_image_features(pixels)  # the same weights: [2, CELLS, WIDTH]
        torch.testing.assert_close(pooled.get_image_features(pixels), tokens.mean(1, keepdim=True))
        maps = pooled.get_tower_features(pixels)
        assert maps.shape == (2, CELLS, 256)  # the cut before the projector keeps every cell
        torch.testing.assert_close(pooled.project(maps), tokens.mean(1, keepdim=True))
        batch = FAMILY.load("collator")(processor, pooled.config, ("letters",))(list(rows))
        assert torch.isfinite(pooled(**batch).letter_logits[:, :2]).all()
    with pytest.raises(CheckpointError, match="divisor of 2"):
        build_config({**asked, "config": {**asked["config"], "tile_pool": 3}})
