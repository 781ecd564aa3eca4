"""Baselines of multiple-choice questions learn what text says, and only that."""

import numpy as np
import pytest

from hfvla.metrics.qa_baselines import Question, fit_longest_choice, fit_majority_letter, fit_question_only

COLOURS = ("red", "green", "yellow", "blue")


def _questions(n, seed, biased):
    """Questions on four places; `biased` makes the right colour follow from the place's name."""
    generator = np.random.default_rng(seed)
    questions, gold = [], []
    for _ in range(n):
        place = int(generator.integers(4))
        order = generator.permutation(4)
        right = COLOURS[place] if biased else COLOURS[generator.integers(4)]
        choices = tuple(COLOURS[index] for index in order)
        questions.append(Question(f"What colour is the light at place number {place}?", choices))
        gold.append(choices.index(right))
    return questions, np.array(gold)


def test_majority_letter_by_number_of_choices():
    two, four = Question("q", ("x", "y")), Question("q", ("x", "y", "z", "w"))
    answer = fit_majority_letter([two, two, two, four, four, four], [1, 1, 0, 2, 2, 3])
    assert answer([two, four]).tolist() == [1, 2]
    assert answer([Question("q", ("x", "y", "z"))]).tolist() == [1]  # none with three seen: A 1, B 2, C 2, D 1


def test_longest_choice_ignores_blanks_and_takes_the_first_of_equals():
    answer = fit_longest_choice()
    assert answer([Question("q", ("ab   ", "abc")), Question("q", ("aa", "b", "cc"))]).tolist() == [1, 0]


def test_question_only_finds_what_the_wording_gives_away():
    questions, gold = _questions(160, 0, biased=True)
    answer = fit_question_only(questions[:120], gold[:120], [f"v{i // 3}" for i in range(120)])
    assert (answer(questions[120:]) == gold[120:]).mean() > 0.95


def test_question_only_is_at_chance_where_the_wording_says_nothing():
    questions, gold = _questions(400, 1, biased=False)
    answer = fit_question_only(questions[:200], gold[:200])
    assert abs((answer(questions[200:]) == gold[200:]).mean() - 0.25) < 0.12  # 4 standard errors


def test_question_only_answers_within_the_choices():
    questions, gold = _questions(40, 2, biased=True)
    asked = [Question("Something else entirely?", ("yes", "no")), Question("And?", ("1", "2", "3"))]
    answers = fit_question_only(questions, gold)(asked)
    assert answers[0] in (0, 1) and answers[1] in (0, 1, 2)


def test_question_only_needs_two_videos():
    questions, gold = _questions(4, 3, biased=True)
    with pytest.raises(ValueError, match="2 different training videos; got 1"):
        fit_question_only(questions, gold, ["v"] * 4)
