"""The collator: augmentation from the row's seed alone, and the learned tokenizer."""

from collections import Counter

import pytest
import torch

from hfvla.data.rows.epoch import AUGMENTATION_SEED, EpochRows
from hfvla.errors import CheckpointError
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.models.internvl_video_qa.batches import build_tokenizer, draw_mode


def same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def test_rows_without_a_seed_are_not_augmented(collate, rows):
    one, two = collate(rows, support_dropout=1.0), collate(rows, support_dropout=0.0)
    assert same(one, two)
    assert one["letter_labels"].tolist() == rows["answer"]


def test_shuffled_choices_take_the_answer_along(processor, collate, rows):
    row = {**rows[0], "choices": ["red", "green", "blue", "grey"], "answer": 2}
    answers, orders = Counter(), set()
    for seed in range(200):
        batch = collate([{**row, AUGMENTATION_SEED: seed}])
        text = processor.tokenizer.decode(batch["input_ids"][0]).split("\n")
        shown = [line[3:] for line in text if line[1:3] == ". "]
        assert sorted(shown) == sorted(row["choices"])
        assert shown[batch["letter_labels"][0]] == "blue"
        answers[int(batch["letter_labels"][0])] += 1
        orders.add(tuple(shown))
    assert len(orders) == 24 and min(answers.values()) > 30  # 50 each are expected
    plain = collate([{**row, AUGMENTATION_SEED: 3}], shuffle_choices=False)
    assert plain["letter_labels"].tolist() == [2]


def test_an_epoch_is_a_function_of_seed_epoch_and_row(collate, rows):
    epochs = [EpochRows(rows, seed=5) for _ in range(2)]
    for each in epochs:
        each.set_epoch(1)
    one, two = (collate([each[i] for i in range(8)], support_dropout=0.5) for each in epochs)
    assert same(one, two)
    # alone, in another batch and order: the same row
    alone = collate([epochs[0][4]], support_dropout=0.5)
    assert alone["letter_labels"][0] == one["letter_labels"][4]
    epochs[1].set_epoch(2)
    other = collate([epochs[1][i] for i in range(8)], support_dropout=0.5)
    assert other["letter_labels"].tolist() != one["letter_labels"].tolist()


def test_support_frames_are_left_out_for_a_share(rows):
    seeded = [{**rows[0], AUGMENTATION_SEED: seed} for seed in range(1000)]
    share = sum(draw_mode(row, 0.3)[0] == "segments" for row in seeded) / 1000
    assert share == pytest.approx(0.3, abs=0.05)
    assert {draw_mode(row, 0.0)[0] for row in seeded} == {"support"}


def test_leaving_them_out_changes_the_frames(collate, rows):
    row = {**rows[0], "support_frames": [1.0], AUGMENTATION_SEED: 0}
    with_support, without = (collate([row], support_dropout=share) for share in (0.0, 1.0))
    assert not torch.equal(with_support["pixel_values"][:2], without["pixel_values"][:2])
    spread = collate([{**rows[0], "support_frames": []}])
    torch.testing.assert_close(without["pixel_values"], spread["pixel_values"])


def test_labels_only_for_the_term_that_needs_them(collate, rows):
    assert "labels" not in collate(rows, "letters")
    assert collate(rows, "letters", "lm")["labels"].shape == collate(rows, "letters", "lm")["input_ids"].shape


def test_processor_and_config_must_agree(model, processor):
    model.config.frames = {**model.config.frames, "most": 5}
    with pytest.raises(CheckpointError, match="processor and config disagree about frames"):
        FAMILY.load("collator")(processor, model.config)


def test_the_learned_tokenizer(rows):
    texts = [text for row in rows for text in (row["question"], *row["choices"])]
    one, two = build_tokenizer(texts, 400), build_tokenizer(texts, 400)
    assert one.get_vocab() == two.get_vocab() and len(one) <= 400
    assert len({one.pad_token_id, one.eos_token_id, one.convert_tokens_to_ids("<IMG_CONTEXT>")}) == 3
    for text in (*texts, "Đáp án nào đúng?"):
        assert one.decode(one(text).input_ids) == text
    assert one.context_image_token == "<IMG_CONTEXT>" and one.start_image_token == "<img>"
    assert one("\u0110e\u0300n").input_ids == one("\u0110\u00e8n").input_ids  # composed and decomposed accents


def test_in_words_the_choices_are_not_shown(processor, collate, rows):
    """The answer is spelt with the same tokens as in the list of choices."""
    known = [{**row, "answer": -1 if index == 3 else row["answer"]} for index, row in enumerate(rows)]
    batch = collate(known, "letters", "words")
    assert batch["words_mask"].tolist() == [False] * 8 + [True] * 7
    assert (batch["labels"][:8] == -100).all() and (batch["letter_labels"][8:] == -1).all()
    lettered, told = (collate(asked, term) for asked, term in ((known, "letters"), (known[:3] + known[4:], "words")))
    assert len(batch["tile_index"]) == len(lettered["tile_index"]) + len(told["tile_index"])
    assert len(batch["pixel_values"]) == len(lettered["pixel_values"]) and not batch["letter_mask"][8:].any()
    row, tokenizer = rows[0], processor.tokenizer
    text = tokenizer.decode(batch["input_ids"][8][batch["attention_mask"][8].bool()])
    answer = row["choices"][row["answer"]]
    assert text.endswith(f"\n{row['question']}\nAnswer: {answer}<|endoftext|>")
    written = batch["labels"][8][batch["labels"][8] >= 0].tolist()[:-1]
    shown = batch["input_ids"][0].tolist()
    assert any(shown[i : i + len(written)] == written for i in range(len(shown)))
    alone = collate(known, "words")
    assert len(alone["input_ids"]) == 7 and alone["words_mask"].all()


def test_rows_without_an_answer_are_a_batch_without_a_term(collate, rows, shared_model):
    batch = collate([{**row, "answer": -1} for row in rows.select([0, 1])], "words")
    assert len(batch["input_ids"]) == 2 and "pixel_values" not in batch
    assert shared_model(**batch).loss_terms is None


def test_binding_names_a_choice_and_asks_for_its_letter(processor, collate, rows):
    """A sequence a row without a clip; which choice is named says nothing about the right one."""
    batch = collate([{**row, AUGMENTATION_SEED: 5} for row in rows], "letters", "binding")
    plain = collate([{**row, AUGMENTATION_SEED: 5} for row in rows], "letters")
    assert batch["letter_labels"].tolist() == [*plain["letter_labels"].tolist(), *[-1] * 8]
    assert batch["binding_labels"][:8].tolist() == [-1] * 8 and "labels" not in batch
    assert torch.equal(batch["tile_index"], plain["tile_index"])
    tokenizer = processor.tokenizer
    found = (batch[name][8:] for name in ("input_ids", "attention_mask", "binding_labels"))
    for ids, mask, label in zip(*found, strict=True):
        lines = tokenizer.decode(ids[mask.bool()]).split("\n")
        named = lines[0].removeprefix("Answer: ")
        assert lines[1 + label] == f"{'ABCD'[label]}. {named}" and lines[-1] == "Answer:"
    row = {**rows[0], "choices": ["red", "green", "blue"], "answer": 2}
    drawn = [collate([{**row, AUGMENTATION_SEED: seed}], "binding") for seed in range(300)]
    named = Counter(tokenizer.decode(one["input_ids"][0]).split("\n")[0] for one in drawn)
    assert len(named) == 3 and min(named.values()) > 70  # 100 each are expected
    letters = Counter(int(one["binding_labels"][0]) for one in drawn)
    assert min(letters[place] for place in range(3)) > 70
    assert same(collate([row], "binding"), collate([row], "binding"))  # no seed: always the same


def test_spelt_is_the_choice_and_then_its_letter(processor, collate, rows):
    """In the letters' own sequences; beside the written letter, in sequences of its own."""
    batch, tokenizer = collate(rows, "letters", "spelt"), processor.tokenizer
    assert len(batch["input_ids"]) == 8 and batch["spelt_mask"].all() and "words_mask" not in batch
    assert batch["letter_labels"].tolist() == rows["answer"]
    found = (batch[name] for name in ("input_ids", "attention_mask", "labels"))
    for ids, mask, labels, row in zip(*found, rows, strict=True):
        letter, answer = "ABCD"[row["answer"]], row["choices"][row["answer"]]
        assert tokenizer.decode(ids[mask.bool()]).endswith(f"\nAnswer: {answer}{letter}<|endoftext|>")
        assert tokenizer.decode(labels[labels >= 0]) == f" {answer}{letter}<|endoftext|>"
    both = collate(rows, "lm", "spelt")
    assert both["spelt_mask"].tolist() == [False] * 8 + [True] * 8
    assert both["letter_labels"].tolist() == [*rows["answer"], *[-1] * 8]  # each question counts once
    assert ((both["labels"][:8] >= 0).sum(1) == 2).all() and ((both["labels"][8:] >= 0).sum(1) > 2).all()
    alone = collate(rows, "spelt")
    assert same(alone, batch)


def test_what_is_bound_is_no_written_answer(collate, rows):
    """The terms of text leave it out, whichever stand beside it."""
    cases = [
        (("lm",), 8),
        (("words",), 8),
        (("letters", "words"), 16),
        (("lm", "words"), 16),
        (("spelt", "words"), 16),
    ]
    for losses, sequences in cases:
        bound, plain = collate(rows, *losses, "binding"), collate(rows, *losses)
        labelled = [(batch["labels"][:sequences] >= 0).sum(1).tolist() for batch in (bound, plain)]
        assert labelled[0] == labelled[1] and (bound["labels"][sequences:] == -100).all()
        if "words" in losses:
            assert bound["words_mask"].tolist() == [*plain["words_mask"].tolist(), *[False] * 8]
    alone = collate([{**row, "answer": -1} for row in rows], "binding")
    assert len(alone["input_ids"]) == 8 and "pixel_values" not in alone
