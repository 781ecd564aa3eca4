"""Building from a recipe's `model` section and from a backbone's checkpoint, quick metrics, requests, plans."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, InternVLProcessor, InternVLVideoProcessor

from hfvla.data.pictures import load_picture
from hfvla.errors import DataError, RecipeError
from hfvla.models.internvl_retrieval import FAMILY
from hfvla.models.internvl_retrieval.batches import plan_batch
from hfvla.models.internvl_retrieval.build import build_config, compute_metrics, encode_image_states, initialise
from hfvla.training.estimate.profile import profile_step

from .conftest import recipe


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory):
    """A backbone as the hub has them: transformers' own model with output layer, without anything of ours."""
    model, processor = built
    folder = tmp_path_factory.mktemp("InternVL-hf")
    source = AutoModelForImageTextToText.from_config(model.config.backbone_config)
    source.save_pretrained(folder)
    InternVLProcessor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=4,
    ).save_pretrained(folder)
    return folder, source


def from_hub(folder, **options):
    config = {"embed_dim": 32, "heads": "grid", "image_from": "language", "max_text_tokens": 96}
    return {"config": config, "options": {"backbone": str(folder), **options}}


def test_unknown_options_are_refused_all_at_once():
    with pytest.raises(RecipeError, match=r"(?s)model\.options\.backbon.*model\.options\.tokens"):
        build_config({"options": {"backbon": "x", "tokens": 3}})


def test_the_same_seed_gives_the_same_weights(rows, built):
    again, _ = initialise(recipe(), rows, seed=0)
    other, _ = initialise(recipe(), rows, seed=1)
    first = built[0].state_dict()
    assert all(torch.equal(value, first[name]) for name, value in again.state_dict().items())
    assert not torch.equal(other.image_adapter.up.weight, built[0].image_adapter.up.weight)


def test_the_model_fits_its_tokenizer(built):
    model, processor = built
    backbone = model.config.backbone_config
    assert backbone.text_config.vocab_size == len(processor.tokenizer) == len(model.get_input_embeddings().weight)
    assert processor.tokenizer.convert_ids_to_tokens(backbone.image_token_id) == "<IMG_CONTEXT>"


def test_a_backbone_from_the_hub_is_taken_as_it_is(hub, rows):
    folder, source = hub
    model, processor = initialise(from_hub(folder), rows, seed=0)
    theirs = source.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.backbone.state_dict().items())
    assert model.config.image_prompt == processor.special_ids()["image_prompt"]
    collator = FAMILY.load("collator")(processor, model.config, losses=tuple(FAMILY.losses))
    output = model.eval()(**collator([dict(row) for row in rows]))
    assert set(output.loss_terms) == set(FAMILY.losses)
    with torch.device("meta"):
        planned = FAMILY.load("model")(build_config(from_hub(folder)))
    assert {n: v.shape for n, v in planned.named_parameters()} == {n: v.shape for n, v in model.named_parameters()}


def test_a_backbone_in_half_precision_feeds_heads_in_single(hub, rows):
    model, processor = initialise(from_hub(hub[0], dtype="bfloat16"), rows, seed=0)
    assert model.backbone.dtype == torch.bfloat16 and model.itm_head[0].weight.dtype == torch.float32
    collator = FAMILY.load("collator")(processor, model.config, losses=tuple(FAMILY.losses))
    output = model.eval()(**collator([dict(row) for row in rows]))
    assert output.loss.dtype == torch.float32 and torch.isfinite(output.loss)


def test_another_kind_of_backbone_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(RecipeError, match=r"another kind of model.*gpt2"):
        build_config(from_hub(tmp_path))
    with pytest.raises(RecipeError, match="cannot be read"):
        build_config(from_hub(tmp_path / "none"))


def test_a_backbone_is_named_once(hub):
    section = from_hub(hub[0])
    section["config"]["backbone_config"] = {}
    with pytest.raises(RecipeError, match="both given"):
        build_config(section)


@pytest.mark.parametrize("config", [{}, {"heads": "pooled"}, {"image_from": "language"}])
def test_cached_images_are_what_the_config_uses(other_model, collate, rows, config):
    model, batch = other_model(**config), collate(rows)
    found = encode_image_states(model, batch)
    expected = {"image_pooled", "image_tokens"}
    expected -= {"image_tokens"} if config.get("heads") == "pooled" else set()
    expected -= {"image_pooled"} if config.get("image_from") == "language" else set()
    assert len(found) == 8 and all(set(row) == expected for row in found)


def prediction():
    """Three texts, four rows of three pictures; buildings 1, 1, 2 and 3."""
    images = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]  # rows 0 and 1 show the same picture
    texts = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32)
    groups, pictures = np.array([1, 1, 2, 3]), np.array([7, 7, 8, 9])
    box = np.tile(np.array([0.5, 0.5, 0.5, 0.5], np.float32), (4, 3, 1))
    mask = np.zeros((4, 3), bool)
    mask[0, :2] = True
    box[0, 1] = [0.1, 0.5, 0.1, 0.5]
    predicted = box.copy()
    predicted[0, 0, 0] = 0.75  # half of it lies beside: IoU 1/3
    logits = np.zeros((4, 3, 3, 6), np.float32)
    logits[0, 0, 1, [0, 4]] = 1  # left, middle: right
    logits[0, 1, 0, [0, 4]] = 1  # left: wrong, the first lies right of the second
    return SimpleNamespace(predictions=(texts, images, predicted, logits), label_ids=(groups, pictures, box, mask))


def test_quick_metrics_by_hand(shared_model):
    found = compute_metrics(prediction(), shared_model.config)
    # A tie counts against the model. Text 0 finds building 2 first, 3 in a tie, its own at rank 2; the others at once.
    # Pictures 7, 8, 9: texts 0 and 2 tie for 8, so that it finds its own at rank 1.
    recall = np.mean([3 / 4, 1, 1, 2 / 3, 1, 1])
    assert found["retrieval_mean_recall"] == pytest.approx(recall)
    assert found["box_iou"] == pytest.approx((1 / 3 + 1) / 2) and found["spatial_accuracy"] == 0.5
    assert found["combined"] == pytest.approx((recall + 2 / 3 + 0.5) / 3)


def test_quick_metrics_without_sentences(shared_model):
    given = prediction()
    given.predictions = given.predictions[:2]
    assert set(compute_metrics(given, shared_model.config)) == {"retrieval_mean_recall"}


def test_predict_ranks_pictures(model, processor, rows):
    images = [rows[0]["image"], rows[2]["image"], rows[4]["image"]]
    answer = FAMILY.ask(model, processor, {"text": "A red building.", "images": images})
    json.dumps(answer)
    assert sorted(result["path"] for result in answer["results"]) == sorted(images)
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True) and all(-1 <= score <= 1 for score in scores)
    opened = [load_picture(image) for image in images]
    same = FAMILY.ask(model, processor, {"text": "A red building.", "images": opened, "top_k": 2})
    assert [result["score"] for result in same["results"]] == pytest.approx(scores[:2], abs=1e-6)
    assert same["results"][0]["id"] == f"picture {1 + images.index(answer['results'][0]['path'])}"
    with pytest.raises(DataError, match="one of 'gallery', 'images'"):
        FAMILY.ask(model, processor, {"text": "A pool."})


@pytest.mark.parametrize("config", [{}, {"heads": "pooled"}, {"image_from": "language", "text_pooling": "mean"}])
def test_a_step_can_be_planned_without_weights(config):
    settings = FAMILY.load("config").tiny(**config)
    with torch.device("meta"):
        planned = FAMILY.load("model")(settings)
    profiles = {
        losses: profile_step(planned, plan_batch(settings, 4, losses))
        for losses in (("itc",), ("itc", "itm"), ("itc", "itm", "bbox", "spatial"))
    }
    counts = [profile.forward_flops for profile in profiles.values()]
    assert counts == sorted(counts) and len(set(counts)) == 3 and counts[0] > 0
