"""Robot-set scores by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_recall_fscore_support

from hfvla.metrics.selection import per_robot_scores, predicted_sets, selection_scores, set_matrix, top_one

ROBOTS = ["Drone", "Humanoid", "Robot with Legs"]


def _random_case(seed, rows=60, robots=4):
    generator = np.random.default_rng(seed)
    gold = generator.random((rows, robots)) < 0.4
    gold[np.arange(rows), generator.integers(robots, size=rows)] = True
    probabilities = generator.random((rows, robots))
    return gold, predicted_sets(probabilities, 0.6), probabilities


def test_scores_by_hand():
    gold = set_matrix([["Drone"], ["Drone", "Humanoid"], ["Humanoid"], ["Robot with Legs"]], ROBOTS)
    probabilities = np.array([[0.9, 0.1, 0.1], [0.3, 0.8, 0.2], [0.6, 0.7, 0.1], [0.2, 0.1, 0.1]])
    predicted = predicted_sets(probabilities, 0.5)
    # sets: {D}, {H}, {D,H}, {D} (below the threshold, so the top one only)
    assert predicted.astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]]
    scores = selection_scores(gold, predicted, probabilities)
    assert scores["top1_in_set"] == pytest.approx(3 / 4)  # D, H, H right; D for Legs wrong
    assert scores["exact_match"] == pytest.approx(1 / 4)  # the first row only
    assert scores["jaccard"] == pytest.approx((1 + 1 / 2 + 1 / 2 + 0) / 4)
    assert scores["single_accuracy"] == pytest.approx(1 / 3)  # rows 1, 3, 4 have one gold robot; row 1 is exact
    # F1 = 2tp/(gold+named): Drone 2*1/(2+3) = 0.4, Humanoid 2*2/(2+2) = 1, Legs 0
    assert scores["macro_f1"] == pytest.approx((0.4 + 1.0 + 0.0) / 3)
    assert scores["weighted_f1"] == pytest.approx((2 * 0.4 + 2 * 1.0 + 1 * 0.0) / 5)


def test_threshold_is_inclusive_and_the_set_never_empty():
    assert predicted_sets(np.array([[0.5, 0.49], [0.1, 0.2]]), 0.5).tolist() == [[True, False], [False, True]]


def test_single_accuracy_is_absent_without_single_rows():
    gold = np.array([[True, True]])
    assert "single_accuracy" not in selection_scores(gold, gold, np.array([[0.9, 0.8]]))


@pytest.mark.parametrize("seed", range(4))
def test_parity_with_scikit_learn(seed):
    gold, predicted, probabilities = _random_case(seed)
    predicted[:, 3] = False  # a robot that is never named: precision undefined, 0 in both
    scores = selection_scores(gold, predicted, probabilities)
    assert scores["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    assert scores["weighted_f1"] == pytest.approx(f1_score(gold, predicted, average="weighted", zero_division=0))
    assert scores["exact_match"] == pytest.approx(accuracy_score(gold, predicted))
    assert scores["jaccard"] == pytest.approx(jaccard_score(gold, predicted, average="samples", zero_division=1))
    names = ["a", "b", "c", "d"]
    ours = per_robot_scores(gold, predicted, names)
    theirs = precision_recall_fscore_support(gold, predicted, zero_division=0)
    for kind, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [ours[f"{kind}/{name}"] for name in names] == pytest.approx(list(values))


def test_top_one_confidence_and_correctness():
    confidence, correct = top_one(np.array([[False, True], [True, False]]), np.array([[0.2, 0.7], [0.1, 0.4]]))
    assert confidence.tolist() == [0.7, 0.4]
    assert correct.tolist() == [True, False]


def test_unknown_robot_is_named():
    with pytest.raises(ValueError, match="Submarine"):
        set_matrix([["Submarine"]], ROBOTS)


def test_shape_mismatch_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        selection_scores(np.ones((2, 3), bool), np.ones((1, 3), bool), np.ones((2, 3)))
