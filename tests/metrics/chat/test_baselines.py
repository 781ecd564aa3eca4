"""Baselines that do not look, by hand."""

import json

import numpy as np
import pytest

from hfvla.data.samples.chat import Box
from hfvla.metrics.chat.baselines import CHAT_BASELINES, most_frequent, nearest_picture, question_only, usual_answer
from hfvla.metrics.chat.tasks import tasks_of

from .fakes import caption, sample


def question(name, text, answer, **more):
    return sample(name, text, answer, references=(answer,) * 10, source="vqa", **more)


def test_the_usual_answer_is_the_most_given_one():
    assert usual_answer(sample("a", "What?", "x", references=("b", "a", "a", "b"))) == "b"


def test_most_frequent_answers_by_kind_and_falls_back_to_all():
    training = [question(str(n), "How many?", "2" if n % 3 else "3", kind="how many") for n in range(9)]
    training += [question(f"c{n}", "What colour?", "red", kind="what colour") for n in range(12)]
    asked = [question("x", "How many?", "?", kind="how many"), question("y", "Where?", "?", kind="where")]
    assert most_frequent(asked, tasks_of(asked), training) == ["2", "red"]


def test_most_frequent_letter_goes_with_the_number_of_choices():
    def chosen(name, count, letter):
        choices = list("wxyz"[:count])
        details = {"choices": json.dumps(choices), "answer": letter}
        return sample(name, "Which? " + " ".join(choices), letter, details=details, source="c")

    training = [chosen(f"a{n}", 4, "C") for n in range(3)] + [chosen(f"b{n}", 2, "B") for n in range(2)]
    asked = [chosen("x", 4, "A"), chosen("y", 2, "A"), chosen("z", 3, "A")]
    assert most_frequent(asked, tasks_of(asked), training) == ["C", "B", None]  # none of three choices was seen


def test_the_mean_box():
    def placed(name, left):
        box = Box(0, "dog", (left, 0, left + 4, 8), (16, 8))
        return sample(name, "Where?", f"[{left / 16}, 0, {(left + 4) / 16}, 1]", boxes=(box,), source="b")

    asked = [placed("x", 0)]
    (found,) = most_frequent(asked, tasks_of(asked), [placed("a", 0), placed("b", 8)])
    assert found == pytest.approx(np.array([[0.25, 0.0, 0.5, 1.0]]))


def test_question_only_answers_as_similar_questions_were():
    training = []
    for n in range(30):
        training.append(question(f"s{n}", f"what sport is played in picture {n}", "tennis"))
        training.append(question(f"a{n}", f"what animal stands in picture {n}", "cow"))
    asked = [question("x", "what sport is this", "?"), question("y", "which animal is that", "?")]
    assert question_only(asked, tasks_of(asked), training) == ["tennis", "cow"]
    assert question_only(asked, tasks_of(asked), training[:1]) == [None, None]  # nothing can be held out


def test_the_nearest_picture_lends_its_caption():
    training = [caption(n, colour) for n, colour in enumerate(["red", "green", "blue", "yellow"])]
    asked = [caption(9, "blue")]
    assert nearest_picture(asked, tasks_of(asked), training) == ["a wall of blue paint"]
    broken = [sample("b", "Describe it.", "a b c d e f g", kind="caption")]
    broken = [one.__class__(**{**one.__dict__, "images": (one.images[0].__class__(data=b"no"),)}) for one in broken]
    assert nearest_picture(broken, tasks_of(broken), training) == [None]  # who cannot look has no answer


@pytest.mark.parametrize("name", sorted(CHAT_BASELINES))
def test_without_training_rows_nobody_answers(name):
    asked = [question("x", "What?", "?"), caption(0, "red")]
    assert CHAT_BASELINES[name](asked, tasks_of(asked), [], 0) == [None, None]
