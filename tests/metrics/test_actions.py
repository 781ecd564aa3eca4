"""Scores of action chunks by hand, and their baselines."""

import numpy as np
import pytest

from hfvla.metrics.actions import action_scores, hold_last, mean_action, per_step_errors, skill

# Two chunks of three steps, x in mm and a in degrees; the last step of the second chunk is past its episode's end.
TARGET = np.array([[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], [[4.0, 10.0], [5.0, 10.0], [np.nan, np.nan]]])
PREDICTED = np.array([[[1.0, 1.0], [3.0, 0.0], [3.0, 2.0]], [[2.0, 10.0], [5.0, 13.0], [77.0, 77.0]]])
MASK = np.array([[True, True, True], [True, True, False]])
# Differences: x 0 1 0 -2 0; a 1 0 2 0 3


def test_scores_by_hand():
    scores = action_scores(PREDICTED, TARGET, MASK, ["x_mm", "a_deg"])
    assert scores["mse/x_mm"] == pytest.approx(5 / 5) and scores["mae/x_mm"] == pytest.approx(3 / 5)
    assert scores["mse/a_deg"] == pytest.approx(14 / 5) and scores["mae/a_deg"] == pytest.approx(6 / 5)
    assert scores["mse"] == pytest.approx((1 + 2.8) / 2) and scores["mae"] == pytest.approx((0.6 + 1.2) / 2)
    # First steps: x 0 -2, a 1 0
    assert scores["first_mse/x_mm"] == 2.0 and scores["first_mae/x_mm"] == 1.0
    assert scores["first_mse/a_deg"] == 0.5 and scores["first_mae"] == 0.75 and scores["first_mse"] == 1.25
    assert (scores["steps"], scores["chunks"]) == (5.0, 2.0)


def test_correlation_by_hand():
    # x: predicted 1 3 3 2 5 (mean 2.8), done 1 2 3 4 5 (mean 3): covariance sum 3.6 - 0.2 + 0 - 0.8 + 4.4 = 7,
    # squares 8.8 and 10: 7 / sqrt(88)
    scores = action_scores(PREDICTED, TARGET, MASK, ["x_mm", "a_deg"])
    assert scores["correlation/x_mm"] == pytest.approx(7 / 88**0.5)
    assert scores["correlation"] == pytest.approx((scores["correlation/x_mm"] + scores["correlation/a_deg"]) / 2)
    still = np.where(np.arange(2) == 1, 5.0, PREDICTED)
    found = action_scores(still, TARGET, MASK)
    assert "correlation/1" not in found and found["correlation"] == found["correlation/0"]
    assert "correlation" not in action_scores(np.full_like(TARGET, 0.1), TARGET, MASK)
    assert action_scores(-np.nan_to_num(TARGET), TARGET, MASK)["correlation"] == pytest.approx(-1)


def test_per_step_by_hand():
    found = per_step_errors(PREDICTED, TARGET, MASK)
    np.testing.assert_allclose(found["mse_by_channel"], [[2.0, 0.5], [0.5, 4.5], [0.0, 4.0]])
    np.testing.assert_allclose(found["mae_by_channel"], [[1.0, 0.5], [0.5, 1.5], [0.0, 2.0]])
    np.testing.assert_allclose(found["mse"], [1.25, 2.5, 2.0])
    np.testing.assert_allclose(found["mae"], [0.75, 1.0, 1.0])
    assert found["count"].tolist() == [2, 2, 1]
    short = per_step_errors(PREDICTED, TARGET, MASK & [True, True, False])
    assert np.isnan(short["mse"][2]) and short["count"].tolist() == [2, 2, 0]


def test_steps_and_scores_agree():
    scores, steps = action_scores(PREDICTED, TARGET, MASK), per_step_errors(PREDICTED, TARGET, MASK)
    assert (steps["mse"] * steps["count"]).sum() / steps["count"].sum() == pytest.approx(scores["mse"])
    assert steps["mse"][0] == pytest.approx(scores["first_mse"])


def test_masked_first_steps():
    mask = np.array([[False, True, True], [True, True, False]])
    assert action_scores(PREDICTED, TARGET, mask)["first_mse/0"] == 4.0
    mask[:, 0] = False
    assert not any(name.startswith("first") for name in action_scores(PREDICTED, TARGET, mask))


def test_baselines_by_hand():
    held = hold_last(np.array([[1.0, 0.0], [3.0, 10.0]]), 3)
    assert held.shape == (2, 3, 2) and (held[0] == [1.0, 0.0]).all() and (held[1] == [3.0, 10.0]).all()
    # x: 0 -1 -2 -1 -2; a: nothing
    scores = action_scores(held, TARGET, MASK)
    assert scores["mse/0"] == pytest.approx(10 / 5) and scores["mse/1"] == 0.0
    mean = mean_action(np.array([3.0, 4.0]), 2, 3)
    assert mean.shape == (2, 3, 2)
    # x: 2 1 0 -1 -2, squares 10; a: 4 4 4 -6 -6, squares 120
    scores = action_scores(mean, TARGET, MASK)
    assert scores["mse/0"] == pytest.approx(2.0) and scores["mse/1"] == pytest.approx(24.0)
    assert skill(1.0, 4.0) == 0.75 and skill(8.0, 4.0) == -1.0


def test_refusals():
    with pytest.raises(ValueError, match=r"\(2, 3, 2\) and \(2, 3, 1\)"):
        action_scores(PREDICTED, TARGET[..., :1], MASK)
    with pytest.raises(ValueError, match="no valid step in 2 chunks"):
        per_step_errors(PREDICTED, TARGET, np.zeros((2, 3), dtype=bool))
    with pytest.raises(ValueError, match="target action of chunk 1, step 2, channel 0 is not finite"):
        action_scores(PREDICTED, TARGET, np.ones((2, 3), dtype=bool))
    with pytest.raises(ValueError, match=r"1 names \['x'\] for 2"):
        action_scores(PREDICTED, TARGET, MASK, ["x"])
    with pytest.raises(ValueError, match=r"hold_last: last actions \(2,\)"):
        hold_last(np.zeros(2), 3)
    with pytest.raises(ValueError, match=r"mean_action: mean \(2, 1\)"):
        mean_action(np.zeros((2, 1)), 2, 3)
    with pytest.raises(ValueError, match="baseline with error 0"):
        skill(1.0, 0.0)


def test_the_module_adds_steps_and_baselines():
    from hfvla.metrics import load_metric

    chunks, mask = TARGET.copy(), MASK.tolist()
    chunks[~MASK] = 0.0
    predicted = PREDICTED.tolist()
    names, last, mean = ["x_mm", "a_deg"], [[0.0, 0.0], [3.0, 9.0]], [2.0, 5.0]
    metric = load_metric("actions")
    found = metric.compute(
        predictions=predicted, references=chunks.tolist(), masks=mask, names=names, last_actions=last, train_mean=mean
    )
    expected = action_scores(PREDICTED, TARGET, MASK, names)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    steps = per_step_errors(PREDICTED, TARGET, MASK)
    assert [found[f"step_mse/{step}"] for step in range(3)] == pytest.approx(steps["mse"].tolist())
    # Holding: x -1 -2 -3 -1 -2 (19), a 0 0 0 -1 -1 (2): 21 / 10. Mean: x 1 0 -1 -2 -3 (15), a 5 times 25: 140 / 10.
    assert found["hold_last/mse"] == pytest.approx(2.1) and found["mean_action/mse"] == pytest.approx(14.0)
    assert found["skill/mean_action"] == pytest.approx(1 - 1.9 / 14)
    plain = metric.compute(predictions=predicted, references=chunks.tolist())
    assert plain["steps"] == 6 and "hold_last/mse" not in plain and "step_mae/2" in plain
