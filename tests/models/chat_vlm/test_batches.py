"""Bad input, each one clear error with its row; lengths, weights, pairs."""

from dataclasses import replace

import pytest
import torch

from hfvla.data.samples.chat import ImageRef, Part, Turn, text_turn
from hfvla.errors import DataError
from hfvla.models.chat_vlm import FAMILY

from .zoo import CHATML, made


@pytest.fixture
def collate(processor, built):
    def run(*samples, losses=("sft",), config=None):
        collator = FAMILY.load("collator")(processor, config or built[0].config, losses=losses)
        return collator([sample.to_row() for sample in samples])

    return run


def learned(processor, batch, row=0):
    return processor.tokenizer.decode(batch["labels"][row][batch["labels"][row] >= 0])


def test_turns_that_do_not_train_are_context(collate, processor, long_sample):
    assert learned(processor, collate(long_sample)) == "circle<|im_end|>"
    both = replace(long_sample, turns=tuple(replace(turn, train=True) for turn in long_sample.turns))
    assert learned(processor, collate(both)) == "red<|im_end|>circle<|im_end|>"


def test_marks_and_prefixes_find_the_same_tokens(collate, processor, long_sample, monkeypatch):
    by_mark = collate(long_sample)
    unmarked = processor.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    monkeypatch.setattr(processor, "chat_template", unmarked)
    by_prefix = collate(long_sample)
    assert torch.equal(by_prefix["input_ids"], by_mark["input_ids"])
    assert torch.equal(by_prefix["labels"], by_mark["labels"]) and (by_mark["labels"] >= 0).sum() > 1


def test_a_template_that_rewrites_earlier_turns_is_refused(long_sample):
    model, processor = made("internvl")
    collator = FAMILY.load("collator")(processor, model.config)
    template = processor.chat_template
    try:  # as templates that leave the thoughts of earlier answers out
        processor.chat_template = template.replace(
            "{{ p['text'] }}", "{{ p['text'] if loop.last and m is sameas messages[-1] else 'x' }}"
        )
        with pytest.raises(
            DataError, match=r"row 'shapes-train-0-0' of shapes: which tokens are the assistant's is not c"
        ):
            collator([long_sample.to_row()])
    finally:
        processor.chat_template = template


def test_a_template_with_marks_around_some_answers_is_refused(collate, processor, long_sample, monkeypatch):
    marked = processor.chat_template.replace("message['role'] == 'assistant'", "loop.last")
    monkeypatch.setattr(processor, "chat_template", marked)
    with pytest.raises(DataError, match=r"another number of answers.*got '1 marked'; expected 2 turns"):
        collate(long_sample)


def test_a_model_without_a_template(collate, processor, sample, monkeypatch):
    monkeypatch.setattr(processor, "chat_template", None)
    with pytest.raises(
        DataError, match=r"row 'shapes-train-0-0' of shapes: this model has no chat template.*chat_template"
    ):
        collate(sample)


def test_a_template_that_refuses(collate, processor, sample, monkeypatch):
    monkeypatch.setattr(processor, "chat_template", "{{ raise_exception('only system turns') }}" + CHATML)
    with pytest.raises(DataError, match=r"row 'shapes-train-0-0' .*template refuses.*only system turns"):
        collate(sample)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": ()}, r"image placeholders and images differ"),
        ({"images": (ImageRef(path="a.png"), ImageRef(path="b.png"))}, "image placeholders and images differ"),
        ({"turns": (text_turn("assistant", "red"), text_turn("user", "?"))}, "roles out of order"),
        ({"turns": (text_turn("user", "?", images=1), text_turn("assistant", "  "))}, "empty answer"),
        ({"turns": ()}, "conversation without turns"),
        ({"images": (ImageRef(path="/nowhere/gone.png"),)}, r"gone\.png"),
    ],
)
def test_rows_that_cannot_be_trained_on(collate, sample, change, match):
    with pytest.raises(DataError, match=match) as caught:
        collate(replace(sample, **change))
    assert "row 'shapes-train-0-0' of shapes" in str(caught.value)


def test_a_placeholder_in_the_text(collate, sample):
    turns = (Turn("user", (Part("image"), Part("text", "What is <IMG_CONTEXT>?"))), text_turn("assistant", "red"))
    with pytest.raises(DataError, match=r"turn 0: a text holds the model's placeholder.*<IMG_CONTEXT>"):
        collate(replace(sample, turns=turns))


def test_a_column_of_another_kind(processor, built, sample):
    collator = FAMILY.load("collator")(processor, built[0].config)
    with pytest.raises(DataError, match=r"row 'shapes-train-0-0': not a row of a conversation.*columns.*messages"):
        collator([{**sample.to_row(), "messages": "What colour?"}])
    with pytest.raises(DataError, match="row '5': not a row.*columns id, text"):
        collator([{"id": "5", "text": "What colour?"}])


def test_a_conversation_longer_than_the_context(collate, processor, sample, monkeypatch):
    monkeypatch.setattr(processor.tokenizer, "model_max_length", 10)
    with pytest.raises(
        DataError,
        match=r"of shapes: a conversation is longer than the context; got '2[34] tokens with its 1 pictures'",
    ):
        collate(sample)


def test_a_tokenizer_larger_than_the_model(collate, built, sample):
    import copy

    config = copy.deepcopy(built[0].config)
    config.get_text_config().vocab_size = 100
    with pytest.raises(DataError, match=r"more tokens than the model has embeddings.*vocab_size 100"):
        collate(sample, config=config)


def test_pairs_are_two_sequences(collate, processor, rows, sample):
    from hfvla.data.samples.chat import ChatSample

    preferred = ChatSample.from_row(rows[1])
    batch = collate(sample, preferred, losses=("sft", "dpo"))
    assert batch["pairs"].tolist() == [[1, 2]] and batch["sequence_weights"].tolist() == [1.0, 1.0, 0.0]
    assert learned(processor, batch, 1) != learned(processor, batch, 2)
    assert collate(sample, preferred)["input_ids"].shape[0] == 2  # without dpo nobody needs the worse answer
    assert collate(sample, losses=("dpo",))["pairs"].shape == (0, 2)
