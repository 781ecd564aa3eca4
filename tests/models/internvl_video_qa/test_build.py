"""Building from a recipe's `model` section and from a backbone's checkpoint, quick metrics, requests, example rows."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, InternVLProcessor, InternVLVideoProcessor

from hfvla.errors import DataError, RecipeError
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.models.internvl_video_qa.build import build_config, compute_metrics, initialise

from .conftest import recipe
from .test_processing import CHAT


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory):
    """A backbone as the hub has them: transformers' own model and processor, without anything of ours."""
    model, processor = built
    folder = tmp_path_factory.mktemp("InternVL-hf")
    source = AutoModelForImageTextToText.from_config(model.config.backbone_config)
    source.save_pretrained(folder)
    InternVLProcessor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=CHAT,
    ).save_pretrained(folder)
    return folder, source


def from_hub(folder, **options):
    config = {"frames": {"fewest": 2, "most": 3}, "tiling": {"most_tiles": 1, "token_budget": 64}}
    return {"config": config, "options": {"backbone": str(folder), **options}}


def test_unknown_options_are_refused_all_at_once():
    with pytest.raises(RecipeError, match=r"(?s)model\.options\.backbon.*model\.options\.tokens"):
        build_config({"options": {"backbon": "x", "tokens": 3}})


def test_the_same_seed_gives_the_same_weights(rows, built):
    again, _ = initialise(recipe(), rows, seed=0)
    other, _ = initialise(recipe(), rows, seed=1)
    first = built[0].state_dict()
    assert all(torch.equal(value, first[name]) for name, value in again.state_dict().items())
    assert not torch.equal(other.backbone.lm_head.weight, built[0].backbone.lm_head.weight)


def test_the_model_fits_its_tokenizer(built):
    model, processor = built
    text, tokenizer = model.config.get_text_config(), processor.tokenizer
    assert text.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert (text.eos_token_id, text.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert model.config.letter_token_ids == tokenizer.convert_tokens_to_ids(list("ABCD"))
    assert model.config.backbone_config.image_token_id == tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")


def test_starting_from_a_backbone(hub, rows):
    folder, source = hub
    model, processor = initialise(from_hub(folder), rows, seed=0)
    expected = source.state_dict()
    found = model.backbone.state_dict()
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in found)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert processor.chat_template == CHAT and model.config.letter_token_ids == processor.letter_token_ids
    batch = FAMILY.load("collator")(processor, model.config, tuple(FAMILY.losses))(list(rows))
    assert processor.tokenizer.decode(batch["input_ids"][0]).startswith("<|user|>Frame1: <img><IMG_CONTEXT>")
    output = model(**batch)
    output.loss.backward()
    assert set(output.loss_terms) == set(FAMILY.losses)
    planned = build_config(from_hub(folder))
    assert planned.get_text_config().vocab_size == len(processor.tokenizer)


def test_a_backbone_in_half_precision(hub, rows, tmp_path):
    folder, _ = hub
    model, processor = initialise(from_hub(folder, dtype="bfloat16"), rows, seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    # what a later stage builds from the config is in half precision as well
    assert {p.dtype for p in FAMILY.load("model")(model.config).parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path)
    assert FAMILY.load("model").from_pretrained(tmp_path).dtype == torch.bfloat16
    with torch.inference_mode():
        scores = model(**processor(rows[0]["video"], rows[0]["question"], rows[0]["choices"])).letter_logits
    assert scores.dtype == torch.float32


def test_a_backbone_that_is_none(tmp_path):
    with pytest.raises(RecipeError, match=r"backbone cannot be read; got '.*nothing'"):
        build_config({"options": {"backbone": str(tmp_path / "nothing")}})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(RecipeError, match=r"another kind of model; got '.* \(gpt2\)'"):
        build_config({"options": {"backbone": str(tmp_path)}})
    with pytest.raises(RecipeError, match="both given"):
        build_config({"options": {"backbone": "x"}, "config": {"backbone_config": {}}})


def test_a_plan_knows_the_hubs_shapes_without_asking_it():
    config = build_config({"options": {"backbone": "OpenGVLab/InternVL3-8B-hf", "dtype": "bfloat16"}})
    assert config.get_text_config().hidden_size == 3584
    assert build_config({"options": {"tokenizer_vocab_size": 700}}).get_text_config().vocab_size == 700


def test_accuracy_of_labelled_rows(shared_model):
    scores = np.array([[-1.0, -2, -3, -np.inf], [-1, -0.5, -np.inf, -np.inf], [-1, -2, -3, -4]])
    prediction = SimpleNamespace(predictions=scores, label_ids=np.array([0, 0, -1]))
    assert compute_metrics(prediction, shared_model.config) == {"accuracy": 0.5}
    assert compute_metrics(SimpleNamespace(predictions=scores, label_ids=np.full(3, -1)), shared_model.config) == {}


def test_a_request_from_the_command_line(built, rows):
    model, processor = built
    request = {name: rows[0][name] for name in ("video", "question", "choices")}
    reply = json.loads(json.dumps(FAMILY.ask(model, processor, request)))
    assert reply["answer"] == rows[0]["choices"]["ABCD".index(reply["letter"])] and not reply["failed"]
    assert list(reply["probabilities"]) == list("ABCD"[: len(rows[0]["choices"])])
    assert sum(reply["probabilities"].values()) == pytest.approx(1)
    with pytest.raises(DataError, match="choices: how many choices; got 0"):
        FAMILY.ask(model, processor, {**request, "choices": []})


def test_a_written_answer_that_is_none_is_said_so(built, rows):
    model, processor = built
    request = {name: rows[0][name] for name in ("video", "question", "choices")}
    reply = FAMILY.ask(model, processor, {**request, "generate": True})
    assert reply["failed"] and reply["letter"] == "" and reply["answer"] is None and reply["reason"]
