"""Mixing by weight: repeats, seeded fractions, aligned features."""

from collections import Counter

import pytest
from datasets import Dataset, Features, Value

from hfvla.data.rows.mixing import mix
from hfvla.data.samples.robots import RobotTask
from hfvla.data.sources import build_dataset
from hfvla.errors import DataError

A = Dataset.from_dict({"x": list(range(10))})
B = Dataset.from_dict({"x": list(range(100, 140))})


def test_weights_say_how_often_a_row_is_seen():
    counts = Counter(mix([A, B], [3.0, 0.25], seed=0)["x"])
    assert all(counts[x] == 3 for x in range(10))
    taken = [x for x in counts if x >= 100]
    assert len(taken) == 10 and all(counts[x] == 1 for x in taken)


def test_a_mixed_weight_repeats_and_adds_a_share():
    counts = Counter(mix([A], [2.5], seed=0)["x"])
    assert sorted(counts.values()) == [2] * 5 + [3] * 5


def test_the_fraction_follows_the_seed():
    first, again, other = (mix([B], [0.25], seed)["x"][:] for seed in (0, 0, 1))
    assert first == again and first != other


def test_features_of_rows_without_plan_or_image_stay_aligned():
    bare = build_dataset([RobotTask(id="a", task="t", robots=("Drone",))])
    full = build_dataset([RobotTask(id="b", task="u", robots=("Drone",), image=b"png")])
    both = mix([bare, full], [1.0, 2.0], seed=0)
    assert both.features == bare.features
    assert both["image"][:] == [None, b"png", b"png"]


def test_other_number_types_are_cast_to_the_first_dataset():
    small = Dataset.from_dict({"x": [1]}, features=Features({"x": Value("int32")}))
    assert mix([A, small], [1.0, 1.0], seed=0).features == A.features


def test_other_columns_are_joined():
    assert mix([A, Dataset.from_dict({"y": [1]})], [0.1, 1.0], seed=0)["y"][:] == [None, 1]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_unusable_weight_is_refused(weight):
    with pytest.raises(DataError, match=f"weight of dataset 0.*{weight}"):
        mix([A], [weight], seed=0)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(DataError, match=r"10 rows x weight 0\.01"):
        mix([A], [0.01], seed=0)


def test_every_dataset_needs_a_weight():
    with pytest.raises(DataError, match="2 datasets and 1 weights"):
        mix([A, B], [1.0], seed=0)
