"""Bootstrap intervals: resampling by group, against theory, undefined values."""

import numpy as np
import pytest

from hfvla.metrics.bootstrap import bootstrap_intervals


def _mean(values):
    return {"mean": float(values.mean())}


def test_interval_of_a_mean_agrees_with_the_normal_theory():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_intervals(_mean, {"values": values}, range(400), samples=2000, seed=1)["mean"]
    error = values.std() / 20  # standard error, n = 400
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)


def test_rows_of_a_group_move_together():
    # 10 groups of 40 equal rows: the interval is that of 10 values, about sqrt(40) wider than that of 400
    values = np.repeat(np.random.default_rng(0).normal(size=10), 40)
    by_group = bootstrap_intervals(_mean, {"values": values}, np.repeat(np.arange(10), 40), samples=500)["mean"]
    by_row = bootstrap_intervals(_mean, {"values": values}, np.arange(400), samples=500)["mean"]
    assert (by_group[1] - by_group[0]) / (by_row[1] - by_row[0]) == pytest.approx(40**0.5, rel=0.25)


def test_one_group_has_no_interval_and_seeds_repeat():
    values = np.arange(6.0)
    assert bootstrap_intervals(_mean, {"values": values}, ["a"] * 6, samples=20) == {}
    again = [bootstrap_intervals(_mean, {"values": values}, range(6), samples=50, seed=3) for _ in range(2)]
    assert again[0] == again[1]


def test_undefined_values_do_not_count():
    def sometimes(values):
        return {"first": 1.0 if values[0] > 2 else float("nan"), "never": float("nan")}

    assert bootstrap_intervals(sometimes, {"values": np.arange(6.0)}, range(6), samples=50) == {"first": (1.0, 1.0)}


def test_length_mismatch_is_refused():
    with pytest.raises(ValueError, match="'values': 3"):
        bootstrap_intervals(_mean, {"values": np.arange(3.0)}, ["a", "b"])
