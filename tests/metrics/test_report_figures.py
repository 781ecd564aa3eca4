"""ROC, precision-recall and the gallery of mistakes, by hand."""

import numpy as np

from hfvla.metrics.report_figures import mistakes_figure, roc_pr_figure


def test_areas_and_curves_by_hand():
    gold = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.1], [0.4, 0.1], [0.5, 0.1], [0.1, 0.1]])
    figure = roc_pr_figure(gold, scores, ["a", "b"])
    # of the 4 pairs of a positive and a negative, 3 are in order; precision 1 at the first, 2/3 at the third
    assert "a 0.75 / 0.83 (2 of 4)" in figure.caption and "b" not in figure.data["panels"][0]["series"]
    roc = figure.data["panels"][0]["series"]["a"]
    assert list(zip(roc["x"], roc["y"], strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    assert roc_pr_figure(gold[:, 1:], scores[:, 1:], ["b"]) is None  # no positive row


def test_of_many_classes_the_worst_are_drawn():
    rng = np.random.default_rng(0)
    gold = rng.random((40, 12)) > 0.5
    scores = np.where(gold, 1.0, 0.0) * np.linspace(0, 1, 12) + rng.random((40, 12))
    figure = roc_pr_figure(gold, scores, [f"c{n}" for n in range(12)])
    drawn = set(figure.data["panels"][1]["series"])
    assert len(drawn) == 8 and "c11" not in drawn and "4 better classes are not drawn" in figure.caption


def test_the_worst_mistakes_come_first():
    asked = []

    def describe(number):
        asked.append(number)
        return {"title": f"row {number}"}

    figure = mistakes_figure([0.0, 0.5, 0.9, float("nan"), 0.7], describe, "confidence", most=2)
    assert asked == [2, 4] and [one["title"] for one in figure.data["examples"]] == ["row 2", "row 4"]
    assert "The 2 worst of 3 wrong rows out of 5, by confidence." in figure.caption
    assert mistakes_figure([0.0, -1.0], describe, "x") is None
