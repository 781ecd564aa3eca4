"""Letters scored in one forward pass: equal to sequence likelihoods, hand-checked losses, shared tiles."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hfvla.data.choices import LETTERS


@pytest.fixture
def batch(collate, rows):
    return collate(rows, "letters", "lm")


def without_answer(batch):
    return {name: value for name, value in batch.items() if name not in ("labels", "letter_labels")}


def test_letter_scores_are_the_models_own_sequence_likelihoods(model, processor, rows, collate):
    """Each letter is written after the prompt, and the backbone's own cross-entropy of that sequence is taken."""
    for row in rows.select(range(3)):
        batch = collate([row])
        with torch.inference_mode():
            scores = model(**without_answer(batch)).letter_logits[0]
            for place, letter in enumerate(LETTERS[: len(row["choices"])]):
                token = processor.tokenizer(letter, add_special_tokens=False).input_ids
                ids = torch.cat([batch["input_ids"], torch.tensor([token])], 1)
                labels = torch.full_like(ids, -100)
                labels[0, -1] = token[0]
                tiles = batch["pixel_values"][batch["tile_index"]]
                loss = model.backbone(input_ids=ids, pixel_values=tiles, labels=labels).loss
                assert -loss.item() == pytest.approx(scores[place].item(), abs=1e-5)
        assert torch.isinf(scores[len(row["choices"]) :]).all()


def test_the_losses_by_hand(model, batch):
    output = model(**batch)
    scores, right = output.letter_logits, batch["letter_labels"]
    # Over the question's own letters: -log(p[right] / sum of p of its letters).
    expected = -(scores[range(8), right] - scores.exp().sum(1).log()).mean()
    torch.testing.assert_close(output.loss_terms["letters"], expected)
    tiles = batch["pixel_values"][batch["tile_index"]]
    logits = model.backbone(batch["input_ids"], pixel_values=tiles, attention_mask=batch["attention_mask"]).logits
    answers = []
    for row in range(8):  # the letter, then the end token
        place = batch["answer_positions"][row]
        targets = batch["labels"][row, place + 1 : place + 3]
        assert (targets >= 0).all() and (batch["labels"][row] >= 0).sum() == 2
        answers.append(F.cross_entropy(logits[row, place : place + 2], targets))
    torch.testing.assert_close(output.loss_terms["lm"], torch.stack(answers).mean(), atol=1e-5, rtol=1e-5)


def test_binding_by_hand(model, collate, rows):
    """Its rows count in no other term, and it needs no clip."""
    batch, plain = collate(rows, "letters", "binding"), collate(rows, "letters")
    output, right = model(**batch), batch["binding_labels"][8:]
    scores = output.letter_logits[8:]
    expected = -(scores[range(8), right] - scores.exp().sum(1).log()).mean()
    torch.testing.assert_close(output.loss_terms["binding"], expected)
    torch.testing.assert_close(output.loss_terms["letters"], model(**plain).loss_terms["letters"], atol=1e-5, rtol=0)
    alone = model(**collate(rows, "binding"))
    assert set(alone.loss_terms) == {"binding"}
    torch.testing.assert_close(alone.loss_terms["binding"], expected, atol=1e-5, rtol=0)


def test_spelt_by_hand(model, collate, rows):
    """The mean over questions of the mean over the tokens of text, letter and end."""
    batch = collate(rows, "letters", "spelt")
    output = model(**batch)
    tiles = batch["pixel_values"][batch["tile_index"]]
    logits = model.backbone(batch["input_ids"], pixel_values=tiles, attention_mask=batch["attention_mask"]).logits
    answers = []
    for row, labels in enumerate(batch["labels"]):
        places = (labels >= 0).nonzero().flatten()
        answers.append(F.cross_entropy(logits[row, places - 1], labels[places]))
    assert set(output.loss_terms) == {"letters", "spelt"}
    torch.testing.assert_close(output.loss_terms["spelt"], torch.stack(answers).mean(), atol=1e-5, rtol=1e-5)
    plain = model(**collate(rows, "letters"))  # what is written behind the prompt does not change what stands before
    torch.testing.assert_close(output.letter_logits, plain.letter_logits, atol=1e-5, rtol=1e-5)
    beside = model(**collate(rows, "lm", "spelt")).loss_terms
    assert set(beside) == {"letters", "lm", "spelt"}
    for name in ("letters", "spelt"):
        torch.testing.assert_close(beside[name], output.loss_terms[name], atol=1e-5, rtol=1e-5)


def test_a_missing_choice_gets_no_probability(model, batch):
    mask = batch["letter_mask"]
    probabilities = model.probabilities(model(**batch).letter_logits)
    assert not mask.all() and (probabilities[~mask] == 0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8))


def test_temperature_flattens_and_keeps_the_order(model, batch):
    scores = model(**batch).letter_logits
    sharp = model.probabilities(scores)
    model.config.calibration["temperature"] = 3.0
    flat = model.probabilities(scores)
    assert (flat.max(1).values < sharp.max(1).values).all()
    assert (flat.argmax(1) == sharp.argmax(1)).all()


def test_unlabelled_questions_do_not_count(model, collate, rows):
    known = [{**row, "answer": row["answer"] if index < 2 else -1} for index, row in enumerate(rows)]
    mixed, alone = collate(known, "letters", "lm"), collate(known[:2], "letters", "lm")
    found, expected = model(**mixed).loss_terms, model(**alone).loss_terms
    for name in ("letters", "lm"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
    nothing = model(**collate(known[2:], "letters", "lm"))
    assert nothing.loss is None and nothing.loss_terms is None and nothing.letter_logits.shape == (6, 4)


def test_questions_on_one_clip_share_its_tiles(model, collate, rows):
    support = rows[0]["support_frames"]
    same = [{**rows[0], "question": text, "support_frames": support} for text in ("What?", "Who is there?", "Why?")]
    batch = collate(same)
    assert len(batch["pixel_values"]) == 2 and batch["tile_index"].tolist() == [0, 1] * 3
    seen = []
    model.backbone.model.vision_tower.register_forward_hook(lambda _, __, out: seen.append(len(out[0])))
    together = model(**batch).letter_logits
    assert seen == [2]
    alone = torch.cat([model(**collate([row])).letter_logits for row in same])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_pixels_decide(model, batch):
    other = {**batch, "pixel_values": batch["pixel_values"].flip(0)}
    assert not torch.allclose(model(**batch).letter_logits, model(**other).letter_logits)


def test_left_padding_gives_the_same_scores(model, processor, collate, rows):
    right = collate(rows)
    visual = {name: right[name] for name in ("pixel_values", "tile_index")}
    from hfvla.models.internvl_video_qa.wording import PromptItem

    frames = (right["input_ids"] == model.config.backbone_config.image_token_id).sum(1) // 4
    items = [
        PromptItem(row["question"], row["choices"], (1,) * int(count)) for row, count in zip(rows, frames, strict=True)
    ]
    left = processor.encode(items, padding_side="left")
    assert not torch.equal(left["input_ids"], right["input_ids"])
    assert (left["answer_positions"] == left["input_ids"].shape[1] - 1).all()
    found = model(**without_answer({**left, **visual})).letter_logits
    torch.testing.assert_close(found, model(**right).letter_logits, atol=1e-5, rtol=1e-5)


def test_the_answers_place_may_be_left_out(model, batch, collate, rows):
    plain = without_answer(collate(rows))
    positions = plain.pop("answer_positions")
    torch.testing.assert_close(model(**plain).letter_logits, model(**batch).letter_logits, atol=1e-5, rtol=1e-5)
    assert (plain["attention_mask"].sum(1) - 1).tolist() == positions.tolist()


def test_placeholders_and_features_must_match(model, batch):
    tiles = len(batch["tile_index"])
    message = (
        rf"{4 * tiles} image placeholders in input_ids but {4 * tiles - 4} image features \({tiles - 1} tiles of 4"
    )
    with pytest.raises(ValueError, match=message):
        model(**{**batch, "tile_index": batch["tile_index"][:-1]})
    with pytest.raises(ValueError, match="both given"):
        model(**batch, image_features=torch.zeros(16, 4, 32))


def test_gradient_checkpointing_changes_nothing(model, batch):
    model.train()
    model(**batch).loss.backward()
    expected = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert model.backbone.model.language_model.layers[0].gradient_checkpointing
    model(**batch).loss.backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def test_weights_are_saved_by_the_names_they_have(model, tmp_path):
    """Hand-over and audit read the file by name; an old layout of InternVL's names would be all missing."""
    model.save_pretrained(tmp_path)
    saved = set(load_file(tmp_path / "model.safetensors"))
    names = {name for name, _ in model.named_parameters()}
    assert saved == names and "backbone.model.language_model.layers.0.mlp.up_proj.weight" in saved
