"""Scores that are NaN are no letter, also where there are two choices; they are failures, by name and number."""

import csv

import numpy as np
import pytest
import torch

from hfvla.errors import DataError, PredictionError
from hfvla.family import AnswerFile, EvaluationContext, SourceData
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.models.internvl_video_qa.evaluation.predicting import predict_letters
from hfvla.models.internvl_video_qa.evaluation.scores import answers_from


@pytest.fixture
def broken(model):
    with torch.no_grad():
        model.backbone.lm_head.weight.fill_(float("nan"))
    return model


def question(rows, count=4):
    row = rows[0]
    return {"video": row["video"], "question": row["question"], "choices": list(row["choices"])[:count]}


@pytest.mark.parametrize("answer_by", ["letters", "words"])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("generate", [False, True])
def test_one_question_is_an_error(broken, processor, rows, answer_by, count, generate):
    broken.config.answer_by = answer_by
    asked = question(rows, count)
    if not generate:
        answer = broken.answer(processor, *asked.values())
        assert (answer.index, answer.letter, answer.failed) == (-1, "", True) and "not finite" in answer.reason
    with pytest.raises(PredictionError, match="scores are not finite; got .*nan"):
        FAMILY.ask(broken, processor, {**asked, "generate": generate})


def test_an_evaluation_counts_them_as_failed_and_none_as_choice_a(broken, processor, rows):
    context = EvaluationContext(bootstrap_samples=2, max_generate=0)
    with pytest.raises(DataError, match="8 of 8 questions cannot be answered; first: .* scores are not finite"):
        FAMILY.load("evaluate")(broken, processor, rows, context)
    scores = predict_letters(broken, processor, [dict(row) for row in rows], context)
    assert sorted(scores.failures) == list(range(8)) and set(answers_from(scores).predicted) == {-1}
    result = FAMILY.load("evaluate")(broken, processor, rows, EvaluationContext(bootstrap_samples=2, max_generate=0,
                                                                                max_bad_fraction=1.0))  # fmt: skip
    assert result.metrics["accuracy"] == 0.0 and result.metrics["failures"] == 8
    assert result.metrics["failures/the model's scores are not finite"] == 8
    assert all(row["prediction"] is None and "not finite" in row["failure"] for row in result.rows)
    found = FAMILY.load("calibrate")(broken, processor, rows, context)
    assert found["temperature"] == 1.0 and found["n"] == 0


def test_one_row_alone_is_wrong_and_the_others_are_as_they_were(model, processor, rows):
    rows = [dict(row) for row in rows]
    context = EvaluationContext(batch_size=8)
    whole = predict_letters(model, processor, rows, context)
    original = model.choice_logits

    def choice_logits(processor, items, features):
        logits = original(processor, items, features)
        logits[[item.where for item in items].index(str(rows[5]["id"])), 0] = float("nan")
        return logits

    model.choice_logits = choice_logits
    found = predict_letters(model, processor, rows, context)
    assert list(found.failures) == [5] and found.predictions[5] == answers_from(found).predicted[5] == -1
    others = [number for number in range(8) if number != 5]
    assert np.array_equal(found.probabilities[others], whole.probabilities[others])


def test_a_submission_leaves_the_cell_empty_and_says_why(broken, processor, rows, tmp_path):
    asked = AnswerFile(path=str(tmp_path / "sub.csv"))
    summary = FAMILY.load("answer_file")(broken, processor, SourceData(rows, {}), asked)
    assert (summary["answered"], summary["failed"]) == (0, 8)
    with (tmp_path / "sub.csv").open(newline="") as file:
        assert {line["answer"] for line in csv.DictReader(file)} == {""}
    assert summary["reasons"] == {"the model's scores are not finite": 8}
