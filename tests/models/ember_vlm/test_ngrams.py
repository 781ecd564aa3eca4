"""The n-gram path of EmberVLM: processor to head, saved and loaded."""

import pytest
import torch

from hfvla.models.ember_vlm.batches import EmberVLMCollator
from hfvla.models.ember_vlm.build import initialise
from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection
from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor

from .conftest import recipe


@pytest.fixture(scope="module")
def with_ngrams(rows):
    model, processor = initialise(recipe(ngram_buckets=512), rows, seed=0)
    return model.eval(), processor


def test_a_part_of_an_unseen_word_reaches_the_head(with_ngrams):
    model, processor = with_ngrams
    batch = processor.prompts(["Inspect the site"], [None])
    other = {**batch, "ngram_ids": processor.ngram_ids(["Task: Inspect the sites\n"])}
    with torch.no_grad():
        assert not torch.equal(model(**batch).selection_logits, model(**other).selection_logits)


def test_training_and_inference_give_the_same_ids(with_ngrams, rows):
    model, processor = with_ngrams
    batch = EmberVLMCollator(processor, model.config, losses=("reasoning",))(list(rows)[:1])
    prompt = processor.prompts([rows[0]["task"]], [rows[0]["image"]])
    assert batch["ngram_ids"].tolist() == prompt["ngram_ids"].tolist()


def test_the_model_says_what_is_missing(with_ngrams):
    model, processor = with_ngrams
    batch = dict(processor.prompts(["Inspect the site"], [None]))
    del batch["ngram_ids"]
    with pytest.raises(ValueError, match="needs ngram_ids"):
        model(**batch)


def test_saved_and_loaded_bit_equal(with_ngrams, tmp_path):
    model, processor = with_ngrams
    model.save_pretrained(tmp_path), processor.save_pretrained(tmp_path)
    again = EmberVLMForRobotSelection.from_pretrained(tmp_path).eval()
    batch = EmberVLMProcessor.from_pretrained(tmp_path).prompts(["Survey the dam"], [None])
    with torch.no_grad():
        assert torch.equal(again(**batch).selection_logits, model(**batch).selection_logits)


def test_reasoning_is_written_from_the_same_batch(with_ngrams):
    model, processor = with_ngrams
    assert len(model.generate_answers(processor, ["Survey the dam"], [None], max_new_tokens=4)) == 1
