"""Which loss terms learn from a row."""

import pytest
from datasets import Dataset, IterableDataset

from hfvla.data.rows.learned_terms import LEARNED_TERMS, learned_terms, with_learned_terms
from hfvla.data.rows.mixing import mix


def numbered(count):
    return Dataset.from_dict({"number": list(range(count))})


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, ("itc", "caption", "reasoning")),
        ("", ("itc", "caption", "reasoning")),
        ("caption itc", ("itc", "caption")),
        ("caption_b", ()),
        ("instruct reasoning", ("reasoning",)),
    ],
)
def test_a_row_is_for_the_terms_that_it_names_else_for_all(named, expected):
    assert learned_terms({LEARNED_TERMS: named}, ("itc", "caption", "reasoning")) == expected
    assert learned_terms({}, ("itc",)) == ("itc",)


@pytest.mark.parametrize("count", [0, 3, 9_999, 10_000, 25_001])
def test_every_row_gets_the_name(count):
    rows = with_learned_terms(numbered(count), ["itc", "caption"])
    assert rows["number"][:] == list(range(count))
    assert set(rows[LEARNED_TERMS]) == ({"itc caption"} if count else set())


def test_chosen_rows_stay_chosen_and_are_not_copied():
    chosen = numbered(1000).select([7, 3, 3, 900])
    rows = with_learned_terms(chosen, ["itc"])
    assert rows["number"][:] == [7, 3, 3, 900] and len(rows.data) == 1000
    assert rows[3] == {"number": 900, LEARNED_TERMS: "itc"}
    assert LEARNED_TERMS not in chosen.column_names
    assert with_learned_terms(chosen, None) is chosen


def test_in_a_mixture_other_rows_name_nothing_and_shares_are_as_asked():
    again = with_learned_terms(numbered(50), ["caption"])
    rows = mix([numbered(100), again], [3.0, 1.0], seed=0, kind="fixed", rows=200)
    assert rows[LEARNED_TERMS][:] == [None] * 150 + ["caption"] * 50


def test_rows_of_a_stream_are_named_as_they_pass():
    stream = IterableDataset.from_generator(lambda: iter([{"number": 1}, {"number": 2}]))
    assert list(with_learned_terms(stream, ["itc"])) == [{"number": n, LEARNED_TERMS: "itc"} for n in (1, 2)]
