"""Rows of packed sequences: read with their samples, the same length in every epoch, resumable by the epoch alone."""

import pytest
from datasets import Dataset

from hfvla.data.packing import PACK, PackedRows, unpacked
from hfvla.data.rows.epoch import AUGMENTATION_SEED, EpochRows
from hfvla.errors import DataError

LENGTHS = [5, 5, 5, 3, 3, 3, 8, 2, 2, 2] * 3
ROWS = Dataset.from_dict({"id": [f"row{i}" for i in range(len(LENGTHS))]})


def ids(packed: PackedRows) -> list[list[str]]:
    return [[row["id"] for row in packed[index][PACK]] for index in range(len(packed))]


def test_each_row_is_in_one_sequence():
    packed = PackedRows(ROWS, LENGTHS, 8)
    assert sorted(name for pack in ids(packed) for name in pack) == sorted(ROWS["id"])
    assert packed.report.rows == 30 and packed.report.sequences == len(packed)


def test_batches_read_at_once_are_those_read_one_by_one():
    packed = PackedRows(EpochRows(ROWS, seed=1), LENGTHS, 8)
    packed.set_epoch(2)
    assert packed.__getitems__([3, 0, 5]) == [packed[3], packed[0], packed[5]]
    assert all(AUGMENTATION_SEED in row for row in packed[0][PACK])


def test_an_epoch_is_a_function_of_its_number():
    one, other = PackedRows(ROWS, LENGTHS, 8, seed=4), PackedRows(ROWS, LENGTHS, 8, seed=4)
    one.set_epoch(1)
    one.set_epoch(3)
    other.set_epoch(3)
    assert ids(one) == ids(other)
    first = ids(one)
    one.set_epoch(4)
    assert ids(one) != first and len(one) == len(other)


def test_augmentation_seeds_stay_with_their_rows():
    packed = PackedRows(EpochRows(ROWS, seed=1), LENGTHS, 8)
    packed.set_epoch(1)
    seeds = {row["id"]: row[AUGMENTATION_SEED] for index in range(len(packed)) for row in packed[index][PACK]}
    plain = EpochRows(ROWS, seed=1)
    plain.set_epoch(1)
    assert seeds == {plain[i]["id"]: plain[i][AUGMENTATION_SEED] for i in range(len(ROWS))}


def test_rows_that_are_too_long_are_refused_by_name_or_left_out_and_counted():
    with pytest.raises(DataError, match="3 of 30 rows.*8 tokens.*max_length 5"):
        PackedRows(ROWS, LENGTHS, 5)
    packed = PackedRows(ROWS, LENGTHS, 5, too_long="leave_out")
    assert packed.report.left_out == 3
    assert "row6" not in [name for pack in ids(packed) for name in pack]
    with pytest.raises(DataError, match="no row fits"):
        PackedRows(ROWS, LENGTHS, 1, too_long="leave_out")
    with pytest.raises(DataError, match="29"):
        PackedRows(ROWS, LENGTHS[:-1], 8)


def test_a_collator_tells_packed_rows_from_plain_ones():
    packed = PackedRows(ROWS, LENGTHS, 8)
    assert [row["id"] for row in unpacked([packed[0]])[0]] == ids(packed)[0]
    assert unpacked([ROWS[0]]) is None and unpacked([]) is None
