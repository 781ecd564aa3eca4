"""Plan scores by hand."""

import pytest
from scipy.stats import spearmanr

from hfvla.metrics.plan import match_subtasks, plan_scores


def _plan(*steps):
    return [{"subtask": text, "robot": robot, "order": order} for text, robot, order in steps]


GOLD = _plan(
    ("Map the area from above", "Drone", 1),
    ("Carry the crate", "Wheels", 2),
    ("Open the valve", "Humanoid", 3),
)


def test_perfect_plan_in_another_listing_order():
    scores = plan_scores([GOLD], [GOLD[::-1]])
    assert scores["subtask_accuracy"] == 1.0
    assert scores["order_spearman"] == pytest.approx(1.0)
    assert scores["extra_subtasks"] == 0.0


def test_wrong_robot_missing_and_extra_steps():
    guess = _plan(("carry crate", "Legs", 1), ("map area", "Drone", 2), ("recharge batteries", "Drone", 3))
    scores = plan_scores([GOLD], [guess])
    # map -> map (Drone, right), carry -> carry (Legs, wrong), valve -> recharge has no common word: unmatched
    assert scores["subtask_accuracy"] == pytest.approx(1 / 3)
    assert scores["subtask_match"] == pytest.approx(2 / 3)
    assert scores["extra_subtasks"] == 1.0
    assert scores["order_spearman"] == pytest.approx(-1.0)  # gold (1, 2), predicted (2, 1)


def test_spearman_takes_mean_ranks_in_ties():
    gold = _plan(("a1", "x", 1), ("b1", "x", 1), ("c1", "x", 2))
    guess = _plan(("a1", "x", 1), ("b1", "x", 2), ("c1", "x", 3))
    # ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5, variances 1.5 and 2 -> 1.5 / sqrt(3)
    assert plan_scores([gold], [guess])["order_spearman"] == pytest.approx(1.5 / 3**0.5)
    assert spearmanr([1, 1, 2], [1, 2, 3]).statistic == pytest.approx(1.5 / 3**0.5)


def test_order_is_zero_if_only_the_guess_is_parallel_and_undefined_if_gold_is():
    ordered, parallel = _plan(("a1", "x", 1), ("b1", "x", 2)), _plan(("a1", "x", 1), ("b1", "x", 1))
    assert plan_scores([ordered], [parallel])["order_spearman"] == 0.0
    undefined = plan_scores([parallel], [ordered])
    assert "order_spearman" not in undefined
    assert undefined["order_plans"] == 0.0


def test_equal_texts_match_the_same_robot():
    gold = _plan(("Carry", "A", 1), ("Carry", "B", 2))
    pairs = match_subtasks(gold, _plan(("Carry", "B", 1), ("Carry", "A", 2)))
    assert all(one["robot"] == two["robot"] for one, two in pairs)


def test_an_empty_guess_scores_nothing_and_empty_gold_is_refused():
    assert plan_scores([GOLD], [[]])["subtask_accuracy"] == 0.0
    with pytest.raises(ValueError, match="got 1, 1"):
        plan_scores([[]], [GOLD])
