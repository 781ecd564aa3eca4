"""Scores of spatial relations by hand."""

import numpy as np
import pytest

from hfvla.metrics.spatial import confusion_matrices, per_class_scores, spatial_scores

WANTED = np.array([[0, 0], [0, 1], [1, 1], [2, 1]])
PREDICTED = np.array([[0, 0], [1, 1], [1, 2], [2, 1]])


def test_by_hand():
    # Horizontal 3 of 4 right, vertical 3 of 4, both 2 of 4. Most frequent classes: 2 of 4 and 3 of 4.
    scores = spatial_scores(PREDICTED, WANTED)
    assert scores["horizontal_accuracy"] == scores["vertical_accuracy"] == scores["accuracy"] == 0.75
    assert scores["pair_accuracy"] == 0.5 and scores["majority_accuracy"] == 0.625 and scores["pairs"] == 4
    # F1: left 2/3, centre 2/3, right 1; upper 1, middle 4/5, lower 0
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1 + 1 + 0.8 + 0) / 6)


def test_classes_by_hand():
    scores = per_class_scores(PREDICTED, WANTED)
    assert (scores["precision/left"], scores["recall/left"], scores["support/left"]) == (1.0, 0.5, 2.0)
    assert (scores["precision/centre"], scores["recall/centre"]) == (0.5, 1.0)
    assert (scores["precision/lower"], scores["recall/lower"], scores["f1/lower"]) == (0.0, 0.0, 0.0)
    assert len(scores) == 24


def test_confusion_by_hand():
    found = confusion_matrices(PREDICTED, WANTED)
    assert found["horizontal"].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert found["vertical"].tolist() == [[1, 0, 0], [0, 2, 1], [0, 0, 0]]


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        spatial_scores(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="with pairs"):
        spatial_scores(np.zeros((0, 2)), np.zeros((0, 2)))
