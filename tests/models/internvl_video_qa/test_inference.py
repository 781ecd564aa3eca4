"""Answers to one question, several on one video, and all rows of a set; nothing is invented."""

import numpy as np
import pytest
import torch

from hfvla.data.choices import LETTERS
from hfvla.errors import DataError
from hfvla.family import EvaluationContext
from hfvla.models.internvl_video_qa.inference_internvl_video_qa import predict_letters


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


def test_a_question_without_frames(shared_model, processor, rows, context):
    row = rows[0]
    features = shared_model.encode_video(processor, row["video"], mode="none")
    answer = shared_model.answer_features(processor, features, [(row["question"], row["choices"])])[0]
    expected = predict_letters(shared_model, processor, [row], context, mode="none").probabilities[0]
    np.testing.assert_allclose(answer.probabilities, expected[: len(row["choices"])], atol=1e-6)
