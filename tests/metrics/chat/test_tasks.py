"""What a row asks for, for rows as the sources make them."""

import json

import pytest

from hfvla.data.samples.chat import Box
from hfvla.errors import DataError
from hfvla.metrics.chat.reading import box_scale
from hfvla.metrics.chat.scores import score_answers
from hfvla.metrics.chat.tasks import asked, final_answer, gold_choice, task_of, tasks_of

from .fakes import sample

CHOICES = json.dumps(["skiing", "surfing"])
PEOPLE = ("skiing",) * 6 + ("snow",) * 4


def test_choices_count_where_the_question_shows_them():
    shown = sample(
        "a", "What is done? A. skiing; B. surfing", "surfing", references=PEOPLE, details={"choices": CHOICES}
    )
    hidden = sample("b", "What is done?", "skiing", references=PEOPLE, details={"choices": CHOICES})
    assert task_of(shown) == "choice" and gold_choice(shown) == 1
    assert task_of(hidden) == "vqa"


def test_boxes_are_told_by_the_answer_not_by_the_names():
    place = Box(0, "left dog", (0, 0, 8, 8), (16, 8))
    found = sample("a", "Where is the left dog?", "[0, 0, 500, 999]", boxes=(place,), references=("left dog", "dog"))
    assert task_of(found) == "box" and box_scale([found]) == "thousandths"
    region = sample("b", "What is at [0, 0, 500, 999]?", "a dog", boxes=(place,), kind="region")
    assert task_of(region) == "caption"


def test_several_boxes_in_another_order_than_they_are_kept():
    boxes = tuple(Box(0, "dog", (left, 0, left + 4, 8), (16, 8)) for left in (8, 0))
    two = sample("a", "Where are dogs?", "[0, 0, 250, 1000]; [500, 0, 750, 1000]", boxes=boxes)
    assert box_scale([two]) == "thousandths"
    scores = score_answers([two], ["box"], ["[500, 0, 750, 1000]"])
    assert scores.values["box_accuracy_50"][0] == 0.5  # one of two found


def test_reasons_before_the_answer():
    one = sample("a", "What is done?", "They wear helmets. The answer is skiing.", references=PEOPLE)
    assert final_answer("Snow. The answer is: ice hockey.", one) == "ice hockey"
    scores = score_answers([one, one], ["vqa", "vqa"], ["So much snow. The answer is skiing.", "skiing"])
    assert scores.values["vqa_accuracy"].tolist() == [1.0, 1.0]
    plain = sample("b", "What is done?", "skiing", references=PEOPLE)
    assert final_answer("The answer is skiing.", plain) == "The answer is skiing."  # nobody asked for reasons


def test_a_source_with_votes_is_scored_as_votes():
    rows = [
        sample("a", "What?", "red", references=("red",) * 10),
        sample("b", "What?", "red", references=("red", "red")),
    ]
    assert [task_of(row) for row in rows] == ["vqa", "exact"] and tasks_of(rows) == ["vqa", "vqa"]


def test_only_the_question_is_shown():
    one = sample("a", "What?", "red")
    assert [turn.role for turn in asked(one).turns] == ["user"]
    with pytest.raises(DataError, match="without a question"):
        asked(sample("x", "What?", "red").__class__(id="x", turns=one.turns[1:]))
    with pytest.raises(DataError, match="not JSON"):
        task_of(sample("b", "What?", "red", details={"choices": "red, blue"}))
