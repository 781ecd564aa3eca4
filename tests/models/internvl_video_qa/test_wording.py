"""Written answers: what is a choice, and what is a failure with its reason."""

import pytest

from hfvla.models.internvl_video_qa.wording import parse_answer

CHOICES = ["Đèn đỏ", "Đèn xanh", "A red car"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("B", 1),
        (" C.", 2),
        ("(A)", 0),
        ("B)", 1),
        ("A. Đèn đỏ", 0),
        ("C: a red car.", 2),
        ("Answer: B", 1),
        ("The correct answer is C", 2),
        ("Đáp án: A", 0),
        ("Đáp án đúng là B. Đèn xanh", 1),
        ("Đèn xanh", 1),
        ("a  red car", 2),
        ("A red car.", 2),  # a text, not the letter A
        ("Đèn đỏ", 0),  # decomposed
    ],
)
def test_a_choice_is_recognised(text, index):
    parsed = parse_answer(text, CHOICES)
    assert (parsed.index, parsed.failed, parsed.reason) == (index, False, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "nothing was written"),
        (" \n", "nothing was written"),
        ("D", "'D' is not among the 3 choices"),
        ("E. Đèn đỏ", "'E' is not among the 3 choices"),
        ("A. Đèn xanh", "'A' is followed by another text than choice A: 'Đèn xanh'"),
        ("A or B", "no letter and no choice: 'A or B'"),
        ("A, B", "'A' is followed by another text than choice A: 'B'"),
        ("I think it is A", "no letter and no choice"),
        ("A red truck", "no letter and no choice"),
        ("b", "no letter and no choice: 'b'"),
        ("Đèn", "no letter and no choice"),
    ],
)
def test_anything_else_fails_with_its_reason(text, reason):
    parsed = parse_answer(text, CHOICES)
    assert parsed.failed and parsed.index == -1 and reason in parsed.reason


def test_two_choices_with_one_text_are_not_guessed():
    assert parse_answer("yes", ["Yes", "yes."]).failed
    assert parse_answer("B. yes", ["Yes", "yes."]).index == 1


def test_a_letter_that_is_another_choices_text_is_not_guessed():
    for text in ("B", "B.", "(B)", "Answer: B"):
        assert "letter of one choice and the text of another" in parse_answer(text, ["B", "C", "D"]).reason
    assert parse_answer("A. B", ["B", "C", "D"]).index == 0 and parse_answer("B. C", ["B", "C", "D"]).index == 1
    assert parse_answer("B", ["A", "B"]).index == 1 and parse_answer("D", ["C", "D"]).index == 1
