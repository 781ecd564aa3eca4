"""Answers to one question, several on one video, and all rows of a set; nothing is invented."""

import numpy as np
import pytest
import torch

from hfvla.data.choices import LETTERS
from hfvla.errors import DataError
from hfvla.family import EvaluationContext
from hfvla.models.internvl_video_qa.answering import predict
from hfvla.models.internvl_video_qa.evaluation.evaluate import evaluate
from hfvla.models.internvl_video_qa.evaluation.predicting import predict_letters, predict_orders
from hfvla.models.internvl_video_qa.evaluation.scores import cyclic_orders
from hfvla.models.internvl_video_qa.wording import PromptItem


@pytest.fixture
def context():
    return EvaluationContext(batch_size=3)


def test_one_answer(shared_model, processor, rows, collate):
    row = rows[0]
    answer = shared_model.answer(processor, row["video"], row["question"], row["choices"], row["support_frames"])
    with torch.inference_mode():
        scores = shared_model(**collate([row])).letter_logits[0, : len(row["choices"])]
    expected = scores.softmax(0)
    np.testing.assert_allclose(answer.probabilities, expected.numpy(), atol=1e-6)
    assert answer.index == int(expected.argmax()) and answer.letter == LETTERS[answer.index] and not answer.failed


def test_the_vision_tower_runs_once_a_video(model, processor, rows):
    seen = []
    model.backbone.model.vision_tower.register_forward_hook(lambda *_: seen.append(1))
    video = rows[0]["video"]
    features = model.encode_video(processor, video)
    questions = [(row["question"], row["choices"]) for row in rows if row["video"] == video]
    together = model.answer_features(processor, features, questions)
    assert len(seen) == 1 and len(together) == len(questions) > 1
    for answer, (question, choices) in zip(together, questions, strict=True):
        alone = model.answer(processor, video, question, choices)
        np.testing.assert_allclose(alone.probabilities, answer.probabilities, atol=1e-5)


def test_rows_are_scored_in_their_order(shared_model, processor, rows, context, collate):
    scores = predict_letters(shared_model, processor, rows, context)
    with torch.inference_mode():
        expected = shared_model(**collate(rows)).letter_logits.numpy()
    np.testing.assert_allclose(scores.log_likelihoods, expected, atol=1e-5)
    assert scores.answers.tolist() == rows["answer"] and not scores.failures
    assert scores.predictions.tolist() == expected.argmax(1).tolist()
    np.testing.assert_allclose(scores.probabilities.sum(1), 1, atol=1e-6)
    assert (scores.seconds > 0).all()


def test_shown_in_another_order(shared_model, processor, rows, context):
    orders = [list(range(len(row["choices"])))[::-1] for row in rows]
    scores = predict_letters(shared_model, processor, rows, context, orders=orders)
    turned = [
        {**row, "choices": row["choices"][::-1], "answer": len(row["choices"]) - 1 - row["answer"]} for row in rows
    ]
    expected = predict_letters(shared_model, processor, turned, context)
    np.testing.assert_allclose(scores.probabilities, expected.probabilities, atol=1e-6)
    assert scores.answers.tolist() == [row["answer"] for row in turned]
    for row, back, shown in zip(rows, scores.by_choice(), scores.probabilities, strict=True):
        count = len(row["choices"])
        np.testing.assert_allclose(back[:count], shown[:count][::-1])


def test_a_clip_is_encoded_once_for_all_orders(model, processor, rows, context):
    tiles = []
    model.backbone.model.vision_tower.register_forward_hook(
        lambda *found: tiles.append(len(found[2].last_hidden_state))
    )
    orders = [cyclic_orders(row) for row in rows]
    passes = predict_orders(model, processor, rows, context, mode="segments", orders=orders)
    together = sum(tiles)
    assert len(passes) == max(len(row["choices"]) for row in rows)
    for place, scores in enumerate(passes):
        asked = [number for number, each in enumerate(orders) if place < len(each)]
        alone = predict_letters(model, processor, [rows[number] for number in asked], context, mode="segments",
                                orders=[orders[number][place] for number in asked])  # fmt: skip
        np.testing.assert_allclose(scores.probabilities[asked], alone.probabilities, atol=1e-6)
        others = [number for number in range(len(rows)) if number not in asked]
        assert (scores.predictions[others] == -1).all() and not scores.failures
    assert sum(tiles) > 3 * together  # one pass an order, and the last for few questions


def test_an_evaluation_encodes_the_same_frames_once(model, processor, rows):
    """Own order and three others on spread frames, one more pass each for support, middle frame and latency."""
    tiles = []
    model.backbone.model.vision_tower.register_forward_hook(
        lambda *found: tiles.append(len(found[2].last_hidden_state))
    )
    context = EvaluationContext(batch_size=len(rows), bootstrap_samples=0, max_generate=1)
    evaluate(model, processor, rows, context)
    clips = len({row["video"] for row in rows})
    spread, supported = clips * 3, len({(row["video"], time) for row in rows for time in row["support_frames"]}) * 3
    timed = 2 * 3  # a question to warm up, and the one that is timed
    assert sum(tiles) <= spread + supported + clips + timed


def test_ways_to_choose_frames(shared_model, processor, rows, context):
    found = {mode: predict_letters(shared_model, processor, rows, context, mode=mode).log_likelihoods
             for mode in ("support", "segments", "middle", "none")}  # fmt: skip
    for one, two in (("support", "segments"), ("segments", "middle"), ("middle", "none")):
        shown = np.isfinite(found[one])
        assert np.abs(found[one][shown] - found[two][shown]).max() > 1e-6


def test_what_cannot_be_answered_is_named_and_never_guessed(shared_model, processor, rows, context, tmp_path):
    cut = tmp_path / "cut.mp4"
    with open(rows[0]["video"], "rb") as whole:
        cut.write_bytes(whole.read()[:2000])
    bad = [dict(row) for row in rows]
    bad[1]["video"] = str(cut)
    bad[2]["question"] = " "
    bad[4]["choices"] = [*"abcde"]
    bad[5] |= {"support_frames": [99.0], "answer": 0}
    bad[7]["video"] = str(tmp_path / "absent.mp4")
    scores = predict_letters(shared_model, processor, bad, context)
    assert sorted(scores.failures) == [1, 2, 4, 5, 7]
    for row, reason in ((1, "truncated"), (2, "question is empty"), (4, "number of choices"), (7, "absent.mp4")):
        assert reason in scores.failures[row]
    assert "lies outside the clip" in scores.failures[5] and bad[5]["id"] in scores.failures[5]
    assert (
        np.isnan(scores.probabilities[[1, 2, 4, 5, 7]]).all() and not np.isnan(scores.probabilities[[0, 3, 6]]).any()
    )
    assert scores.predictions[[1, 2, 4, 5, 7]].tolist() == [-1] * 5 and (scores.predictions[[0, 3, 6]] >= 0).all()
    assert np.isnan(scores.by_choice()[1]).all()
    good = predict_letters(shared_model, processor, rows, context)
    np.testing.assert_allclose(scores.probabilities[[0, 3, 6]], good.probabilities[[0, 3, 6]], atol=1e-5)


def test_a_broken_video_is_an_error_for_a_single_question(shared_model, processor, tmp_path):
    with pytest.raises(DataError, match=r"gone\.mp4"):
        shared_model.answer(processor, str(tmp_path / "gone.mp4"), "Who?", ["a", "b"])


def test_written_answers_are_read_strictly(model, processor, rows, monkeypatch):
    row = next(row for row in rows if len(row["choices"]) == 3)
    arguments = (processor, row["video"], row["question"], row["choices"])
    written = {}

    def write(**kwargs):
        assert kwargs["inputs_embeds"].shape[2] == 32 and not kwargs["do_sample"]
        return torch.tensor([processor.tokenizer(written["text"]).input_ids])

    monkeypatch.setattr(model.backbone, "generate", write)
    written["text"] = "B"
    answer = model.generate_answer(*arguments)
    assert (answer.index, answer.letter, answer.failed, answer.text) == (1, "B", False, "B")
    written["text"] = "D"  # of three choices
    answer = model.generate_answer(*arguments)
    assert (answer.index, answer.letter, answer.failed) == (-1, "", True) and "'D' is not among the 3" in answer.reason
    assert sum(answer.probabilities) == pytest.approx(1)


def test_generation_writes_what_was_taught(model, processor, rows, collate):
    """Letter, then the end: the written answer is the scored one."""
    taught = [{**row, "answer": 1} for row in rows]
    batch = collate(taught, "lm")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(20):
        optimizer.zero_grad()
        model(**batch).loss_terms["lm"].backward()
        optimizer.step()
    row = rows[0]
    arguments = (processor, row["video"], row["question"], row["choices"], row["support_frames"])
    written, scored = model.generate_answer(*arguments), model.answer(*arguments)
    assert (written.text, written.letter, written.failed) == ("B", "B", False)
    assert scored.letter == "B" and written.probabilities == pytest.approx(scored.probabilities)


def test_open_questions_are_written_out(model, processor, rows, monkeypatch):
    """By `chat` and by a request without choices; length and temperature reach `generate`."""
    seen, row = [], rows[0]

    def write(**kwargs):
        seen.append(kwargs)
        return torch.tensor([processor.tokenizer(" a red car ").input_ids])

    monkeypatch.setattr(model.backbone, "generate", write)
    assert model.chat(processor, row["video"], "What happens?") == "a red car"
    assert (seen[0]["max_new_tokens"], seen[0]["do_sample"]) == (128, False) and "temperature" not in seen[0]
    asked = {"video": row["video"], "question": "What happens?", "max_new_tokens": 9, "temperature": 0.5}
    reply = predict(model, processor, asked)
    assert reply == {"question": "What happens?", "answer": "a red car", "text": "a red car", "failed": False}
    assert (seen[1]["max_new_tokens"], seen[1]["do_sample"], seen[1]["temperature"]) == (9, True, 0.5)
    predict(model, processor, {**asked, "choices": row["choices"], "generate": True})
    assert (seen[2]["max_new_tokens"], seen[2]["temperature"]) == (9, 0.5)
    with pytest.raises(DataError, match="exceed the language model's positions"):
        model.chat(processor, row["video"], "What happens?", max_new_tokens=100_000)


def test_an_untrained_model_writes_something_and_ends(shared_model, processor, rows):
    assert isinstance(shared_model.chat(processor, rows[0]["video"], "What?", max_new_tokens=4, temperature=0.7), str)


def test_a_question_without_frames(shared_model, processor, rows, context):
    row = rows[0]
    features = shared_model.encode_video(processor, row["video"], mode="none")
    answer = shared_model.answer_features(processor, features, [(row["question"], row["choices"])])[0]
    expected = predict_letters(shared_model, processor, [row], context, mode="none").probabilities[0]
    np.testing.assert_allclose(answer.probabilities, expected[: len(row["choices"])], atol=1e-6)


@pytest.fixture
def by_words(model):
    model.config.answer_by = "words"
    return model


def test_choices_are_scored_by_their_own_text(by_words, processor, rows):
    """Each choice alone: mean log-likelihood of its tokens and the end, by the whole vocabulary."""
    row = rows[0]
    features = by_words.encode_video(processor, row["video"], row["support_frames"])
    start = processor.prompt(PromptItem(row["question"], row["choices"], features.frame_tiles, in_words=True))
    assert not any(f"{letter}. " in start for letter in LETTERS)
    expected = []
    for choice in row["choices"]:
        tokenizer = processor.tokenizer
        told = [*tokenizer(f" {choice}").input_ids, tokenizer.eos_token_id]
        ids = torch.tensor([[*tokenizer(start).input_ids, *told]])
        with torch.inference_mode():
            embedded = by_words.embed(ids, features.features)
            scores = by_words.backbone(inputs_embeds=embedded).logits[0].log_softmax(-1)
        places = range(ids.shape[1] - len(told) - 1, ids.shape[1] - 1)
        expected.append(
            float(np.mean([float(scores[place, token]) for place, token in zip(places, told, strict=True)]))
        )
    by_words.config.calibration = {"temperature": 0.5}
    answer = by_words.answer(processor, row["video"], row["question"], row["choices"], row["support_frames"])
    weights = np.exp(np.array(expected) / 0.5)
    np.testing.assert_allclose(answer.probabilities, weights / weights.sum(), atol=1e-5)
    assert answer.index == int(np.argmax(expected)) and answer.letter == LETTERS[answer.index]


def test_answers_by_words_do_not_depend_on_the_order(by_words, processor, rows, context):
    seen = []
    by_words.backbone.model.language_model.register_forward_hook(lambda *_: seen.append(1))
    orders = [cyclic_orders(row) for row in rows]
    passes = predict_orders(by_words, processor, rows, context, mode="segments", orders=orders)
    assert len(seen) == 3  # a batch each, whatever the number of orders
    turned = [[*row["choices"][1:], row["choices"][0]] for row in rows]
    asked = [{**row, "choices": new, "answer": new.index(row["choices"][row["answer"]])}
             for row, new in zip(rows, turned, strict=True)]  # fmt: skip
    other = predict_letters(by_words, processor, asked, context, mode="segments")
    for number, row in enumerate(rows):
        count = len(row["choices"])
        found = dict(zip(row["choices"], passes[0].probabilities[number], strict=False))
        again = dict(zip(turned[number], other.probabilities[number], strict=False))
        assert again == pytest.approx(found, abs=1e-5)
        for scores in passes[:count]:
            shown = [row["choices"][choice] for choice in scores.orders[number]]
            assert scores.probabilities[number, :count] == pytest.approx([found[text] for text in shown])
            assert shown[scores.answers[number]] == row["choices"][row["answer"]]
        assert all(np.isnan(scores.probabilities[number]).all() for scores in passes[count:])


def test_an_evaluation_by_words_has_no_position_bias(by_words, processor, rows):
    context = EvaluationContext(batch_size=len(rows), bootstrap_samples=0, max_generate=1)
    found = evaluate(by_words, processor, rows, context)
    assert found.metrics["position_bias"] == 0 and found.metrics["same_choice"] == 1
    assert any("0 by construction" in note for note in found.notes)
    probabilities = [list(row["probabilities"].values()) for row in found.rows]
    assert all(sum(each) == pytest.approx(1) for each in probabilities)


def test_a_word_answer_is_written_without_seeing_the_choices(by_words, processor, rows, monkeypatch):
    row = next(row for row in rows if len(row["choices"]) == 3)
    shown = []

    def write(**kwargs):
        shown.append(kwargs["inputs_embeds"].shape[1])
        return torch.tensor([processor.tokenizer(f" {row['choices'][2]}").input_ids])

    monkeypatch.setattr(by_words.backbone, "generate", write)
    answer = by_words.generate_answer(processor, row["video"], row["question"], row["choices"])
    by_words.config.answer_by = "letters"
    by_words.generate_answer(processor, row["video"], row["question"], row["choices"])
    assert (answer.letter, answer.failed) == ("C", False) and shown[0] < shown[1]
