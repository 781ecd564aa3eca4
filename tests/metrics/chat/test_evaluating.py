"""The shared chat evaluation: every task by its score, baselines, the blank picture, failures, and the report."""

import json
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from hfvla.data.samples.chat import ChatSample, chat_features, text_turn
from hfvla.errors import DataError
from hfvla.evaluation.output import write_evaluation
from hfvla.family import ChatSystem, EvaluationContext
from hfvla.metrics.chat import evaluate_chat

from .fakes import Seer, caption, mixed, sample, vqa

ROWS = 12


def rows_of(samples):
    return Dataset.from_list([one.to_row() for one in samples], features=chat_features())


@pytest.fixture(scope="module")
def result():
    context = EvaluationContext(
        train_rows=rows_of(mixed(40, start=100)), max_generate=1000, bootstrap_samples=50, batch_size=5
    )
    return evaluate_chat(Seer().system(), rows_of(mixed(ROWS)), context)


def test_each_task_has_its_score(result):
    metrics = result.metrics
    # 8 of 10 said so: (8 x 1 + 2 x 1) / 10.
    assert metrics["vqa_accuracy"] == 1.0 and metrics["choice_accuracy"] == 1.0
    # Boxes start at 0..8 of 16 pixels and are 8 wide; IoU with one at 0 is (8 - s) / (8 + s) >= 0.5 for s <= 2.
    assert metrics["box_accuracy_50"] == pytest.approx(6 / 12)
    assert metrics["box_read"] == 1.0
    assert metrics["cider"] > 3 and metrics["bleu"] == pytest.approx(100) and metrics["rouge_l"] == 1.0
    assert metrics["n"] == 4 * ROWS and metrics["failures"] == 0
    assert metrics["n_by_source/vqa"] == ROWS and metrics["vqa_accuracy_by_kind/what colour"] == 1.0
    assert metrics["perplexity"] == pytest.approx(np.exp(0.2))


def test_baselines_do_not_look(result):
    baselines = result.baselines
    assert set(baselines) == {"most_frequent", "question_only", "nearest_picture", "unigram", "bigram"}
    assert baselines["most_frequent"]["vqa_accuracy"] < 0.4  # four colours in turn
    assert baselines["question_only"]["choice_accuracy"] < 0.6
    assert baselines["nearest_picture"]["cider"] == pytest.approx(result.metrics["cider"])  # it does look at colours
    assert 0 < baselines["most_frequent"]["box_iou"] < 1
    assert baselines["bigram"]["loss"] < baselines["unigram"]["loss"]


def test_blank_pictures_take_the_answers_away(result):
    assert result.ablations["blank_image"]["vqa_accuracy"] <= 0.25
    assert result.ablations["blank_image"]["n"] == 4 * ROWS


def test_intervals_hold_the_scores(result):
    for name in ("vqa_accuracy", "box_iou", "cider", "bleu", "baselines/most_frequent/vqa_accuracy"):
        low, high = result.intervals[name]
        found = result.metrics if "/" not in name else result.baselines["most_frequent"]
        assert low - 1e-9 <= found[name.split("/")[-1]] <= high + 1e-9, name
    assert result.intervals["difference/most_frequent/vqa_accuracy"][0] > 0


def test_rows_carry_their_scores(result):
    first = next(row for row in result.rows if row["source"] == "vqa")
    assert first["scores"]["vqa_accuracy"] == 1.0 and first["task"] == "vqa" and len(first["gold"]) == 10
    mean = np.mean([row["scores"]["box_iou"] for row in result.rows if row["source"] == "boxes"])
    assert mean == pytest.approx(result.metrics["box_iou"])


def test_the_report_shows_them(result, tmp_path):
    assert write_evaluation({"mixed": result}, tmp_path, {"title": "Chat"}) is None
    page = (tmp_path / "report.html").read_text("utf-8")
    for text in ("VQA accuracy", "CIDEr", "Blank picture", "Caption of the nearest picture", "Perplexity by position"):
        assert text in page
    assert (tmp_path / "plots/answer_scores.svg").is_file() and (tmp_path / "plots/answer_lengths.svg").is_file()
    assert json.loads((tmp_path / "metrics.json").read_text())["baselines"]["unigram"]["perplexity"] > 1


def test_no_more_answers_than_asked_for_and_no_training_rows():
    seer = Seer()
    result = evaluate_chat(
        seer.system(), rows_of(mixed(5)), EvaluationContext(max_generate=7, bootstrap_samples=0, ablations=False)
    )
    assert len(seer.asked) == 7 and result.metrics["n"] == 7 and not result.intervals
    assert any("7 of 20 rows" in note for note in result.notes)
    assert any("No training rows" in note for note in result.notes)


def test_training_rows_of_pictures_that_are_evaluated_are_left_out():
    rows = mixed(6)
    context = EvaluationContext(train_rows=rows_of(rows + mixed(8, 50)), bootstrap_samples=0, ablations=False)
    result = evaluate_chat(ChatSystem(Seer().write), rows_of(rows), context)
    assert any("24 training rows are about pictures" in note for note in result.notes)


def test_a_row_that_cannot_be_answered_is_named_and_the_others_are():
    def write(samples, max_new_tokens):
        if any(one.id == "vqa3" for one in samples):
            raise DataError("picture cannot be read", where="vqa3")
        return ["red"] * len(samples)

    rows = rows_of([vqa(number, "red") for number in range(8)])
    context = EvaluationContext(bootstrap_samples=0, max_bad_fraction=0.2, ablations=False, batch_size=4)
    result = evaluate_chat(ChatSystem(write), rows, context)
    assert result.metrics["failures"] == 1 and result.metrics["vqa_accuracy"] == 1.0
    assert result.rows[-1]["id"] == "vqa3" and "picture cannot be read" in result.rows[-1]["failure"]
    strict = EvaluationContext(bootstrap_samples=0, max_bad_fraction=0.01, ablations=False)
    with pytest.raises(DataError, match="1 of 8 rows have no answer; first: vqa3"):
        evaluate_chat(ChatSystem(write), rows, strict)


def test_five_captions_of_a_picture_are_one_question():
    told = caption(0, "red")
    rows = [replace(told, id=str(n), turns=(told.turns[0], text_turn("assistant", text)))
            for n, text in enumerate(told.references)]  # fmt: skip
    seer, context = Seer(), EvaluationContext(bootstrap_samples=0, ablations=False)
    result = evaluate_chat(seer.system(), rows_of([*rows, caption(1, "blue")]), context)
    assert len(seer.asked) == 2 and result.metrics["n"] == 2
    assert any("3 rows ask what another row asks" in note for note in result.notes)


def test_nothing_to_evaluate():
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate_chat(Seer().system(), [], EvaluationContext())


def test_a_long_answer_is_compared_as_text():
    one = sample("t", "Why?", "because the wall was painted red by two men", source="texts")
    rows = [ChatSample.to_row(one)]
    context = EvaluationContext(bootstrap_samples=0, ablations=False)
    scores = evaluate_chat(ChatSystem(lambda s, n: ["the wall was painted red"]), rows, context).metrics
    # 5 of 5 words, 5 of 9: F1 10 / 14.
    assert scores["text_rouge_l"] == pytest.approx(10 / 14) and scores["text_exact"] == 0.0
