"""VQA accuracy against what the official script says, and by hand."""

import json
from pathlib import Path

import pytest

from hfvla.metrics.vqa import normalise_answer, vqa_accuracies, vqa_accuracy

# Written by running the official script (GT-Vision-Lab/VQA, vqaEval.py, made to run on Python 3): its whole table of
# contractions, strings at its corners, random strings, and 60 questions with ten answers.
OFFICIAL = json.loads((Path(__file__).parents[1] / "fixtures/vqa_official.json").read_text("utf-8"))


def test_official_normalisation():
    assert len(OFFICIAL["normalised"]) >= 400
    differ = {t: (normalise_answer(t), n) for t, n in OFFICIAL["normalised"].items() if normalise_answer(t) != n}
    assert differ == {}


def test_official_accuracy():
    for question in OFFICIAL["votes"]:
        found = vqa_accuracy(question["prediction"], question["answers"])
        assert found == pytest.approx(question["accuracy"], abs=1e-8), question


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The two dogs!", "2 dogs"),
        ("none", "0"),
        ("1,000", "1000"),  # a comma between digits takes every mark away, here and elsewhere
        ("black/white 1,000", "blackwhite 1000"),
        ("black/white", "black white"),
        ("3.5 m.", "3.5 m"),
        ("dont", "don't"),
        ("lets", "lets"),
    ],
)
def test_rules(text, expected):
    assert normalise_answer(text) == expected


def test_leaving_one_out_by_hand():
    # Two of ten agree: each of the two leaves 1 / 3, the other eight 2 / 3: (2 x 1/3 + 8 x 2/3) / 10.
    assert vqa_accuracy("a dog", ["dog", "the dog", *["cat"] * 8]) == pytest.approx(0.6)
    assert vqa_accuracy("cow", ["dog"] * 5 + ["cat"] * 5) == 0.0


def test_unanimous_answers_are_compared_as_they_are():
    assert vqa_accuracy("Yes", ["yes"] * 10) == 0.0
    assert vqa_accuracy(" yes\n", ["yes"] * 10) == 1.0
    assert vqa_accuracy("Yes.", ["yes"] * 10, always_normalise=True) == 1.0


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 people; got 1"):
        vqa_accuracy("yes", ["yes"])
    with pytest.raises(ValueError, match="got 1 and 2"):
        vqa_accuracies(["yes"], [["yes"] * 3, ["no"] * 3])
