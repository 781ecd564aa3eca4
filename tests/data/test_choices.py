"""Letters, shuffles and rotations of choices: the answer goes along, and the way back is known."""

import unicodedata
from collections import Counter

import numpy as np
import pytest

from hfvla.data.choices import (
    format_choice,
    index_of_letter,
    letter_of,
    reorder_choices,
    rotate_choices,
    shuffle_choices,
    split_choice,
)
from hfvla.errors import DataError


@pytest.mark.parametrize(
    ("choice", "parts"),
    [
        ("A. Có", ("A", "Có")),
        (" b)  Không ", ("B", "Không")),
        ("(C) 50 km/h", ("C", "50 km/h")),
        ("D: a. b", ("D", "a. b")),
        ("A.", ("A", "")),
        ("Có", None),
        ("AB. both", None),
        ("A car", None),
    ],
)
def test_letters_are_split_off(choice, parts):
    assert split_choice(choice) == parts


def test_letters_and_indices_are_inverse():
    assert [index_of_letter(letter_of(index), 4) for index in range(4)] == [0, 1, 2, 3]
    assert format_choice(1, "Không") == "B. Không" and index_of_letter(" b ", 2) == 1


@pytest.mark.parametrize(("letter", "count"), [("C", 2), ("E", 4), ("", 4), ("AB", 4)])
def test_a_letter_that_no_choice_has_is_refused(letter, count):
    with pytest.raises(DataError, match=f"'{letter}'"):
        index_of_letter(letter, count)


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_without_a_letter_is_refused(index):
    with pytest.raises(DataError, match=str(index)):
        letter_of(index)


def test_the_answer_goes_along_and_the_way_back_is_known():
    choices = ("red", "yellow", "green", "off")
    for seed in range(20):
        shown = shuffle_choices(choices, 2, np.random.default_rng(seed))
        assert shown.choices[shown.answer] == "green" and sorted(shown.choices) == sorted(choices)
        assert [choices[shown.original(index)] for index in range(4)] == list(shown.choices)
    assert shown.original(-1) == -1
    assert shuffle_choices(choices, -1, np.random.default_rng(0)).answer == -1


def test_the_same_generator_gives_the_same_order_and_every_order_is_as_likely():
    first, again = (shuffle_choices("abc", 0, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    generator = np.random.default_rng(0)
    counts = Counter(shuffle_choices("abc", 0, generator).order for _ in range(3000))
    assert len(counts) == 6 and all(400 < count < 600 for count in counts.values())


def test_a_shuffle_draws_as_much_whatever_the_choices():
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    shuffle_choices(("x", "y"), 0, one)
    shuffle_choices(("A and B", "y", "z", "w"), 0, other)
    assert one.random() == other.random()


def test_rotations_put_each_choice_at_each_place_once():
    rotated = [rotate_choices("abc", 1, steps) for steps in range(3)]
    assert [r.choices for r in rotated] == [("a", "b", "c"), ("c", "a", "b"), ("b", "c", "a")]
    assert [r.answer for r in rotated] == [1, 2, 0]
    assert rotate_choices("abc", 1, 3) == rotated[0]


@pytest.mark.parametrize("last", ["All of the above", "None of these", "Tất cả các đáp án trên", "Cả hai phương án"])
def test_a_choice_about_the_others_keeps_its_place(last):
    for shown in (last, unicodedata.normalize("NFD", last)):
        orders = {shuffle_choices(("a", "b", shown), 2, np.random.default_rng(seed)).order for seed in range(30)}
        assert orders == {(0, 1, 2), (1, 0, 2)}
        assert rotate_choices(("a", "b", shown), 0, 1).choices == ("b", "a", shown)


@pytest.mark.parametrize("naming", ["Both A and B", "A hoặc C", "Cả A và B đều đúng"])
def test_a_choice_that_names_letters_keeps_all_in_place(naming):
    for seed in range(10):
        assert shuffle_choices(("a", "b", "c", naming), 3, np.random.default_rng(seed)).order == (0, 1, 2, 3)


def test_ordinary_choices_are_not_taken_for_those():
    for text in ("All the cars", "A bus and a car", "Không có biển báo", "Xe tải phía trên cầu", "Above the road"):
        orders = {shuffle_choices((text, "other"), 0, np.random.default_rng(seed)).order for seed in range(20)}
        assert len(orders) == 2, text


def test_wrong_orders_and_answers_are_refused():
    with pytest.raises(DataError, match=r"\[0, 0\]"):
        reorder_choices(("a", "b"), 0, (0, 0))
    with pytest.raises(DataError, match="got 2"):
        reorder_choices(("a", "b"), 2, (0, 1))
    with pytest.raises(DataError, match="got 5"):
        shuffle_choices("abcde", 0, np.random.default_rng(0))
