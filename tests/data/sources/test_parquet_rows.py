"""Row groups are remembered up to a number of bytes, and read anew beyond it."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfvla.data.sources.parquet_rows import ParquetRows


@pytest.fixture
def table(tmp_path):
    """Eight row groups of 1,000 float64 each, 8,000 bytes."""
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"number": np.arange(8_000, dtype=np.float64)}), path, row_group_size=1_000)
    return path


def held(rows):
    return sum(group.nbytes for group in rows._groups.values())


def test_what_is_held_stays_below_the_bound(table):
    rows = ParquetRows(cache_bytes=3 * 8_500)
    for _ in range(2):
        for first in (0, 5_000, 1_500, 7_000, 3_000, 2_500, 6_999):
            found = rows.read(table, "number", first, 500).to_numpy()
            assert np.array_equal(found, np.arange(first, first + 500))
            assert rows._held_bytes == held(rows) <= 3 * 8_500 and len(rows._groups) <= 3
    small = ParquetRows(cache_bytes=10)  # one row group is remembered even when larger
    assert len(small.read(table, "number")) == 8_000
    assert len(small._groups) == 1 and small._held_bytes == held(small)


def test_the_oldest_used_goes_first(table, monkeypatch):
    rows, read = ParquetRows(cache_bytes=2 * 8_500), []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, group, **o: read.append(group) or original(self, group, **o)
    )
    for group in (0, 1, 0, 2, 0, 1):  # 0 is used again before 2 comes, so 1 goes
        rows.read(table, "number", group * 1_000, 10)
    assert read == [0, 1, 2, 1]


def test_a_copy_for_a_worker_starts_empty(table):
    rows = ParquetRows(cache_bytes=3 * 8_500, open_files=7)
    rows.read(table, "number")
    copy = pickle.loads(pickle.dumps(rows))
    assert (copy._held_bytes, len(copy._groups), copy._cache_bytes, copy._open_files) == (0, 0, 3 * 8_500, 7)
    assert copy.read(table, "number", 7_999).to_numpy().tolist() == [7_999.0]
