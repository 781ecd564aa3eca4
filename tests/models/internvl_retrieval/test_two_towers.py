"""Retrieval on a timm tower and a text encoder that were trained apart."""

import subprocess
import sys

import pytest
import timm
import torch
from transformers import AutoModel, AutoProcessor, BertConfig, BertModel

from hfvla.backbones.dual_tower import TEXT_ENCODERS
from hfvla.data.tokenizers import learn_encoder_tokenizer
from hfvla.errors import CheckpointError, RecipeError
from hfvla.models.internvl_retrieval import FAMILY
from hfvla.models.internvl_retrieval.build import build_config, initialise
from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import InternVLRetrievalConfig
from hfvla.training.stage.groups import expand_group

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": 300,
}
TOWER = {"vision_config": {"architecture": "test_efficientnet"}, "vision_hidden_size": 256, "image_size": 64}
CONFIG = {"embed_dim": 32, "heads": "grid", "adapter": {"dropout": 0.0}, "max_text_tokens": 32}


def settings(kind="bert", **config):
    text = {"model_type": kind, **TEXT}
    if kind == "distilbert":
        text = {"model_type": kind, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "vocab_size": 300}
    return {"backbone_config": {"model_type": "dual_tower", **TOWER, "text_config": text}, **CONFIG, **config}


@pytest.fixture(scope="module")
def rows():
    return FAMILY.load("examples")(4, 0)


@pytest.fixture(scope="module")
def built(rows):
    return initialise({"config": settings(), "options": {"tokenizer_vocab_size": 300}}, rows, seed=0)


@pytest.mark.parametrize("kind", TEXT_ENCODERS)
def test_every_encoder_gives_terms_and_gradients(kind, rows, built):
    torch.manual_seed(0)
    own = settings(kind)
    own["backbone_config"]["text_config"] |= {"vocab_size": len(built[1].tokenizer), "pad_token_id": 0}
    model = FAMILY.load("model")(InternVLRetrievalConfig(**own))
    losses = tuple(FAMILY.losses)
    batch = FAMILY.load("collator")(built[1], model.config, losses=losses, training=True)(list(rows))
    output = model(**batch)
    assert set(output.loss_terms) == set(losses)
    output.loss.backward()
    for group in ("vision", "projector", "language.last(1)", "adapters"):
        names = expand_group(model, FAMILY.groups, group)
        assert any(model.get_parameter(name).grad is not None for name in names), group


def test_what_is_saved_computes_the_same(built, rows, tmp_path):
    model, processor = built[0].eval(), built[1]
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, theirs = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    theirs.check_config(again.config)
    texts = [row["caption"] for row in rows]
    ours, loaded = processor.texts(texts), theirs.texts(texts)
    pixels = processor.images([row["image"] for row in rows])
    with torch.no_grad():
        assert torch.equal(
            model(**ours, pixel_values=pixels).logits_per_image, again(**loaded, pixel_values=pixels).logits_per_image
        )


def test_a_text_is_the_same_alone_and_beside_a_longer_one(built):
    model, processor = built[0].eval(), built[1]
    with torch.no_grad():
        alone = model.get_text_features(**processor.texts(["a red roof"])).pooler_output
        both = model.get_text_features(**processor.texts(["a red roof", "a road, two trees and a pond"])).pooler_output
    torch.testing.assert_close(both[:1], alone, rtol=0, atol=1e-5)
    ids = processor.texts(["a red roof"])["input_ids"][0]
    assert (ids[0], ids[-1]) == (processor.tokenizer.cls_token_id, processor.tokenizer.sep_token_id)


@pytest.fixture
def folders(tmp_path):
    torch.manual_seed(1)
    tokenizer = learn_encoder_tokenizer(["a house near a road"], 280)
    encoder = BertModel(BertConfig(**TEXT | {"vocab_size": len(tokenizer)}))
    encoder.save_pretrained(tmp_path / "language")
    tokenizer.save_pretrained(tmp_path / "language")
    tower = timm.create_model("test_efficientnet", num_classes=7)
    timm.models.save_for_hf(tower, str(tmp_path / "tower"), safe_serialization=True)
    options = {"vision": f"local-dir:{tmp_path / 'tower'}", "language": str(tmp_path / "language")}
    return encoder, tower, options


def test_parts_are_loaded_from_folders(folders, rows):
    encoder, tower, options = folders
    backbone = {"model_type": "dual_tower", "image_size": 64}
    wanted = {"config": {**CONFIG, "backbone_config": backbone}, "options": options}
    planned = build_config(wanted)
    assert planned.two_towers and planned.text_pooling == "mean" and planned.vision_width == tower.num_features
    model, processor = initialise(wanted, rows, seed=0)
    ours = model.backbone.language_model.state_dict()
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in ours.items())
    assert not any(name.startswith("pooler") for name in ours)
    for name, value in model.backbone.vision_tower.backbone.state_dict().items():
        assert torch.equal(value, tower.state_dict()[name]), name
    assert list(processor.image_processor.image_mean) == list(tower.pretrained_cfg["mean"])


def test_what_two_towers_cannot_do_is_refused(folders):
    with pytest.raises(CheckpointError, match="a text encoder reads no pictures"):
        InternVLRetrievalConfig(**settings(image_from="language"))
    with pytest.raises(CheckpointError, match="no such text encoder.*'gpt2'"):
        InternVLRetrievalConfig(**settings("gpt2"))
    with pytest.raises(RecipeError, match="name one backbone, or two towers"):
        build_config({"options": {"backbone": "x", "vision": "resnet18"}})


@pytest.mark.parametrize("first", ["hfvla.backbones.dual_tower", "hfvla.nn.dual_tower"])
def test_the_parts_may_be_imported_first(first):
    code = f"import {first}, transformers; transformers.AutoConfig.for_model('internvl_retrieval')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_pooled_heads_have_no_projector_so_that_kept_features_serve_every_seed(folders, rows):
    from hfvla.cache import build_fingerprint
    from hfvla.family import CutContext

    wanted = {
        "config": {**CONFIG, "heads": "pooled", "backbone_config": {"model_type": "dual_tower", "image_size": 64}},
        "options": folders[2],
    }
    found = []
    for seed in (0, 1):
        model, processor = initialise(wanted, rows, seed=seed)
        assert not [name for name, _ in model.named_parameters() if "multi_modal_projector" in name]
        cut, context = FAMILY.feature_cuts["image_states"], CutContext(processor, model.config)
        found.append(
            build_fingerprint(FAMILY.name, "image_states", cut, model, FAMILY.groups, context, {"seed": 0}).value
        )
    assert found[0] == found[1]
    batch = FAMILY.load("collator")(processor, model.config, losses=("itc",), training=True)(list(rows))
    assert model(**batch).loss_terms["itc"].isfinite()
