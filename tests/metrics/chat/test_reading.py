"""Letters and boxes read from what models write."""

import numpy as np
import pytest

from hfvla.metrics.chat.reading import box_scale, read_boxes, read_choice

from .fakes import box

CHOICES = ("a red car", "a blue car", "a car", "none of these")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1),
        ("(B)", 1),
        ("B. a blue car", 1),
        ("b", 1),
        ("C: a car", 2),
        ("The answer is D.", 3),
        ("Answer: (A)", 0),
        ("answer: b", 1),
        ("a blue car", 1),
        ("A blue car.", 1),  # the article is no letter
        ("I see a red car there", 0),  # "a car" does not stand there
        ("It is a car, I think", 2),
        ("a red car or a blue car", -1),
        ("A or B", -1),
        ("E", -1),
        ("I think it is C", 2),
        ("", -1),
    ],
)
def test_choices(text, expected):
    assert read_choice(text, CHOICES) == expected


def test_a_choice_within_another_is_the_longer_one():
    assert read_choice("surely not a car but none of these", ("car", "none of these")) == -1
    assert read_choice("they play ice hockey now", ("hockey", "ice hockey")) == 1


def test_boxes_by_scale():
    found = read_boxes("<box>[[100, 200, 300, 400]]</box> and 5", "thousandths", (640, 480))
    assert found == pytest.approx(np.array([[0.1, 0.2, 0.3, 0.4]]))
    assert read_boxes("64 48 128 96", "pixels", (640, 480)) == pytest.approx(np.array([[0.1, 0.1, 0.2, 0.2]]))
    assert len(read_boxes("[0.5, 0.5, 0.5, 0.9]", "shares", (10, 10))) == 0  # no area
    assert len(read_boxes("no idea", "shares", (10, 10))) == 0
    with pytest.raises(ValueError, match="'feet'"):
        read_boxes("1 2 3 4", "feet", (10, 10))


def test_the_scale_is_told_by_the_right_answers():
    assert box_scale([box(number, number) for number in range(4)]) == "shares"
    assert box_scale([]) == "shares"
