"""Splits and folds: no group crosses, sizes are met, order of rows and runs does not matter."""

import numpy as np
import pytest

from hfvla.data.rows.splits import grouped_folds, grouped_split
from hfvla.errors import DataError

GROUPS = [f"g{index % 37}" for index in range(200)]


def test_no_group_crosses_and_every_row_is_used_once():
    train, holdout = grouped_split(GROUPS, 0.2, seed=3)
    assert {GROUPS[i] for i in train}.isdisjoint(GROUPS[i] for i in holdout)
    assert sorted([*train, *holdout]) == list(range(200))


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_fraction_is_met_within_one_group(fraction):
    _, holdout = grouped_split(GROUPS, fraction, seed=1)
    assert abs(len(holdout) - fraction * len(GROUPS)) <= max(np.unique(GROUPS, return_counts=True)[1])


def test_same_seed_same_split_and_other_seed_other_split():
    first, again, other = (grouped_split(GROUPS, 0.2, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again and first != other


def test_row_order_does_not_move_a_group():
    _, holdout = grouped_split(GROUPS, 0.2, seed=0)
    backwards = GROUPS[::-1]
    _, holdout_backwards = grouped_split(backwards, 0.2, seed=0)
    assert {GROUPS[i] for i in holdout} == {backwards[i] for i in holdout_backwards}


def test_a_giant_group_never_empties_the_training_side():
    train, holdout = grouped_split(["big"] * 98 + ["a", "b"], 0.9, seed=0)
    assert len(train) and len(holdout)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(DataError, match=str(fraction)):
        grouped_split(GROUPS, fraction, 0)


def test_one_group_cannot_be_split():
    with pytest.raises(DataError, match="too few groups"):
        grouped_split(["a", "a"], 0.5, 0)


def test_folds_partition_the_rows_without_cutting_groups():
    folds = grouped_folds(GROUPS, 5, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(200))
    owners = [{GROUPS[i] for i in fold} for fold in folds]
    assert sum(len(owner) for owner in owners) == len(set(GROUPS))
    assert max(map(len, folds)) - min(map(len, folds)) <= 6  # the largest group has 6 rows


@pytest.mark.parametrize("k", [1, 38])
def test_impossible_number_of_folds_is_refused(k):
    with pytest.raises(DataError, match=f"got {k}"):
        grouped_folds(GROUPS, k, 0)
