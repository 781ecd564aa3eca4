"""The n-gram path of EmberVLM: processor to head, saved and loaded."""

import pytest
import torch

from hfvla.data.ngrams import hashed_ngrams
from hfvla.data.rows.epoch import EpochRows
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


@pytest.fixture(scope="module")
def of_words(rows):
    """A narrow table that reads the task's own words, some of them left out while training."""
    settings = {"ngram_buckets": 512, "ngram_width": 8, "ngram_word_dropout": 0.5, "ngram_words_apart": True}
    return initialise(recipe(**settings), rows, seed=0)


def words_apart(text):
    return hashed_ngrams(text, 512, apart=True)


def test_the_prompt_around_a_task_is_no_ngram_of_it(of_words, with_ngrams):
    prompts = [of_words[1].task_prompt("Survey the dam", with_image=shown) for shown in (True, False)]
    for prompt in prompts:
        assert of_words[1].ngram_ids([prompt])[0].tolist() == words_apart("Survey the dam")
        assert with_ngrams[1].ngram_ids([prompt])[0].tolist() != hashed_ngrams("Survey the dam", 512)


def test_words_are_left_out_of_training_rows_alone(of_words, rows):
    model, processor = of_words
    collator = EmberVLMCollator(processor, model.config)
    task = words_apart(rows[0]["task"])
    seeded = EpochRows(rows, seed=3)
    drawn = []
    for epoch in range(2):
        seeded.set_epoch(epoch)
        drawn.append(collator([seeded[0]])["ngram_ids"][0].tolist())
    assert collator([dict(rows[0])])["ngram_ids"][0].tolist() == task
    assert drawn[0] != drawn[1]
    assert all(len(ids) < len(task) and set(ids) <= {0, *task} for ids in drawn)
    assert collator([seeded[1], seeded[0]])["ngram_ids"][1].tolist()[: len(drawn[1])] == drawn[1]


def test_a_narrow_table_is_mixed_in_and_saved(of_words, tmp_path):
    model, processor = of_words
    assert model.fusion.ngrams.embedding.weight.shape == (1025, 8)
    model.save_pretrained(tmp_path), processor.save_pretrained(tmp_path)
    again, reader = EmberVLMForRobotSelection.from_pretrained(tmp_path), EmberVLMProcessor.from_pretrained(tmp_path)
    reader.check_config(again.config)
    batch = reader.prompts(["Survey the dam"], [None])
    with torch.no_grad():
        assert torch.equal(again.eval()(**batch).selection_logits, model.eval()(**batch).selection_logits)
