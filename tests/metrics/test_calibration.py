"""Calibration errors and fits by hand and by construction."""

import numpy as np
import pytest
import torch

from hfvla.metrics.calibration import (
    binary_nll,
    calibration_scores,
    choose_threshold,
    fit_temperature,
    label_wise_ece,
    reliability_bins,
    sigmoid,
)


def test_ece_and_mce_by_hand():
    confidence, correct = np.array([0.95, 0.97, 0.55, 0.57]), np.array([True, False, True, True])
    # bins of 1/15: 0.95 and 0.97 share (14/15, 1], 0.55 and 0.57 share (8/15, 9/15]
    # gaps: |0.5 - 0.96| = 0.46 and |1.0 - 0.56| = 0.44, half of the rows each
    scores = calibration_scores(confidence, correct)
    assert scores["ece"] == pytest.approx(0.5 * 0.46 + 0.5 * 0.44)
    assert scores["mce"] == pytest.approx(0.46)


def test_bins_are_closed_above():
    found = reliability_bins(np.array([0.5, 0.51]), np.array([1, 1]), bins=2)
    assert found["count"].tolist() == [1, 1]
    assert found["low"].tolist() == [0.0, 0.5]


def test_equal_mass_bins_hold_equal_counts_and_keep_ties_together():
    confidence = np.arange(1, 31) / 31
    assert reliability_bins(confidence, confidence > 0.5, 15, equal_mass=True)["count"].tolist() == [2] * 15
    constant = calibration_scores(np.full(40, 0.6), np.arange(40) < 20)
    assert constant["ece_equal_mass"] == pytest.approx(0.1)  # one bin: |0.5 - 0.6|


def test_label_wise_ece_by_hand():
    probabilities, gold = np.array([[0.8, 0.1], [0.8, 0.1]]), np.array([[True, False], [False, False]])
    # first label |0.5 - 0.8| = 0.3, second |0 - 0.1| = 0.1
    assert label_wise_ece(probabilities, gold) == pytest.approx((0.3 + 0.1) / 2)


def test_nll_equals_torch():
    logits, gold = np.array([[2.0, -40.0], [800.0, 0.3]]), np.array([[1, 0], [1, 1]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits) / 2.0, torch.tensor(gold, dtype=torch.float64)
    )
    assert binary_nll(logits, gold, 2.0) == pytest.approx(expected.item())


def test_temperature_recovers_the_scale_of_overconfident_logits():
    generator = np.random.default_rng(0)
    honest = generator.normal(scale=2.0, size=(4000, 5))
    gold = generator.random(honest.shape) < sigmoid(honest)
    assert fit_temperature(honest * 3.0, gold) == pytest.approx(3.0, rel=0.05)
    assert fit_temperature(honest / 2.0, gold) == pytest.approx(0.5, rel=0.05)


def test_threshold_maximises_exact_match_and_prefers_one_half_in_ties():
    gold = np.array([[True, True], [True, False]])
    assert choose_threshold(np.array([[0.9, 0.9], [0.9, 0.1]]), gold) == 0.5
    # {a, b} needs a threshold <= 0.32 and {a} needs one > 0.28: only 0.30 and 0.32 do both, 0.32 is nearer to 0.5
    assert choose_threshold(np.array([[0.9, 0.32], [0.9, 0.28]]), gold) == pytest.approx(0.32)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="0 rows"):
        calibration_scores(np.array([]), np.array([]))
