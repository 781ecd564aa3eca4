"""Shares and counts of mixtures, by hand-computed numbers."""

import pytest
from datasets import Dataset, Features, List, Value

from hfvla.data.rows.mixing import mix, mixture_counts, mixture_shares
from hfvla.data.samples.chat import ChatSample, chat_features, text_turn
from hfvla.errors import DataError

SIZES = [400, 100]


@pytest.mark.parametrize(
    ("kind", "weights", "temperature", "shares"),
    [
        ("fixed", [1.0, 3.0], 1.0, [0.25, 0.75]),
        ("proportional", [1.0, 1.0], 1.0, [0.8, 0.2]),
        ("proportional", [1.0, 4.0], 1.0, [0.5, 0.5]),
        ("temperature", [1.0, 1.0], 2.0, [20 / 30, 10 / 30]),  # square roots of 400 and 100
        ("temperature", [1.0, 1.0], 1.0, [0.8, 0.2]),
        ("temperature", [1.0, 1.0], 1e9, [0.5, 0.5]),
    ],
)
def test_shares(kind, weights, temperature, shares):
    assert mixture_shares(SIZES, weights, kind, temperature) == pytest.approx(shares)


def test_counts_sum_to_the_rows_asked_for():
    assert mixture_counts(SIZES, [1.0, 1.0], "temperature", 2.0) == [333, 167]  # 333.3 and 166.7 of 500
    assert mixture_counts([7, 7, 7], [1.0, 1.0, 1.0], "fixed", rows=10) == [4, 3, 3]
    assert mixture_counts(SIZES, [1.0, 3.0], "fixed", rows=1000) == [250, 750]
    assert mixture_counts(SIZES, [0.5, 2.5]) == [200, 250]
    assert mixture_counts(SIZES, [1.0, 1.0], "repeats", rows=50) == [40, 10]


def test_a_small_source_is_repeated_whole_and_a_large_one_is_sampled():
    large, small = Dataset.from_dict({"x": list(range(400))}), Dataset.from_dict({"x": list(range(1000, 1100))})
    values = mix([large, small], [1.0, 3.0], 0, "fixed", rows=1000)["x"][:]
    assert len({x for x in values if x < 1000}) == 250
    counts = [values.count(x) for x in range(1000, 1100)]
    assert sum(counts) == 750 and set(counts) == {7, 8}


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_an_unusable_temperature_is_refused(temperature):
    with pytest.raises(DataError, match="temperature"):
        mixture_shares(SIZES, [1.0, 1.0], "temperature", temperature)


def test_a_source_that_gives_no_row_is_named():
    with pytest.raises(DataError, match="dataset 1 gives no row"):
        mixture_counts([10_000, 1], [1.0, 1e-4], "fixed", rows=100)
    with pytest.raises(DataError, match="dataset 1 gives no row"):
        mixture_counts([10, 0], [1.0, 1.0])


def test_columns_that_only_one_source_has_are_empty_in_the_other():
    one = Dataset.from_dict({"text": ["a"], "n": [1]}, Features({"text": Value("string"), "n": Value("int64")}))
    two = Dataset.from_dict({"n": [2], "box": [[0.5]]}, Features({"n": Value("int32"), "box": List(Value("float32"))}))
    both = mix([one, two], [1.0, 1.0], 0)
    assert both[:] == {"text": ["a", None], "n": [1, 2], "box": [None, [0.5]]}


def test_a_column_of_two_types_is_named():
    one, two = Dataset.from_dict({"answer": ["a"]}), Dataset.from_dict({"answer": [1]})
    with pytest.raises(DataError, match=r"column 'answer' of dataset 1.*'int64'.*expected string"):
        mix([one, two], [1.0, 1.0], 0)
    nested = Dataset.from_dict({"answer": [["a"]]})
    with pytest.raises(DataError, match="column 'answer' of dataset 1"):
        mix([one, nested], [1.0, 1.0], 0)


def test_conversations_mix_with_conversations():
    def rows(source: str) -> Dataset:
        sample = ChatSample(source, (text_turn("user", "?"), text_turn("assistant", "!")), source=source)
        row = sample.to_row()
        return Dataset.from_dict({key: [row[key]] for key in row}, features=chat_features())

    both = mix([rows("a"), rows("b")], [1.0, 2.0], 0, "fixed", rows=3)
    assert both["source"][:] == ["a", "b", "b"] and both.features == chat_features()
