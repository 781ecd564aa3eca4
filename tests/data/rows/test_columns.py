"""A column is read in one piece, and alone."""

from __future__ import annotations

import pytest
from datasets import Dataset, Image

from hfvla.data.rows.columns import column


def test_a_column_of_a_selection_in_its_order() -> None:
    rows = Dataset.from_dict({"group": ["a", "b", "c"], "sets": [["x"], [], ["y", "z"]]}).select([2, 0])
    assert column(rows, "group") == ["c", "a"]
    assert column(rows, "sets") == [["y", "z"], ["x"]]


def test_other_columns_are_not_decoded() -> None:
    rows = Dataset.from_dict({"group": ["a"], "image": [b"no picture"]}).cast_column("image", Image())
    with pytest.raises(OSError):
        rows[0]
    assert column(rows, "group") == ["a"]


def test_a_mapping_of_columns_and_no_rows() -> None:
    assert column({"group": ("a", "b")}, "group") == ["a", "b"]
    assert column(Dataset.from_dict({"group": []}), "group") == []


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="robots"):
        column(Dataset.from_dict({"group": ["a"]}), "robots")
