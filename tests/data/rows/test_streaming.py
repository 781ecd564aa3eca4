"""Streamed mixtures: every row once over processes and workers, shares kept, resumed to the row."""

import json
from collections import Counter

import pytest
from accelerate.data_loader import IterableDatasetShard
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from hfvla.data.rows.epoch import AUGMENTATION_SEED
from hfvla.data.rows.mixing import is_stream
from hfvla.data.rows.streaming import StreamedMixture
from hfvla.errors import DataError


def numbers(files: list[list[int]]):
    for file in files:
        for value in file:
            yield {"x": value}


def stream(first: int, files: int, rows: int) -> IterableDataset:
    """Return a stream of `files` shards of `rows` rows each, counted from `first`."""
    content = [list(range(first + file * rows, first + (file + 1) * rows)) for file in range(files)]
    return IterableDataset.from_generator(numbers, gen_kwargs={"files": content})


def streams():
    """One with many files, one with two, one with a single file: 72 rows."""
    return {"many": stream(0, 8, 5), "two": stream(100, 2, 10), "one": stream(200, 1, 12)}


ALL = sorted([*range(40), *range(100, 120), *range(200, 212)])


def keep(rows):
    return rows


def values(rows) -> list[int]:
    return [row["x"] for row in rows]


@pytest.mark.parametrize("shuffle_rows", [1, 16])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_parts_of_processes_are_every_row_once(processes, shuffle_rows):
    seen = []
    for index in range(processes):
        mixture = StreamedMixture(streams(), seed=1, shuffle_rows=shuffle_rows, process=(index, processes))
        seen.append(values(mixture))
    assert sorted(value for part in seen for value in part) == ALL
    assert all(len(part) >= len(ALL) // processes - 12 for part in seen)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_parts_of_workers_are_every_row_once(processes):
    seen = []
    for index in range(processes):
        mixture = StreamedMixture(streams(), shuffle_rows=8, process=(index, processes))
        loader = DataLoader(mixture, batch_size=4, num_workers=2, collate_fn=keep)
        seen += [row["x"] for batch in loader for row in batch]
    assert sorted(seen) == ALL


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [2, 3])
def test_batches_shared_out_by_accelerate_are_every_row_once(processes, workers):
    # 72 rows are whole batches of 3 x 4 and 2 x 4 rows in each of one or two workers' 36.
    seen = []
    for index in range(processes):
        shared = IterableDatasetShard(
            StreamedMixture(streams(), shuffle_rows=8), batch_size=2, num_processes=processes, process_index=index
        )
        loader = DataLoader(shared, batch_size=2, num_workers=workers, collate_fn=keep)
        seen += [row["x"] for batch in loader for row in batch]
    counts = Counter(seen)
    assert set(counts) == set(ALL)
    # Only a last batch that is not full is filled up, from the beginning: at most one a worker.
    assert sum(counts.values()) - len(ALL) < 2 * processes * max(workers, 1)


@pytest.mark.parametrize("shuffle_rows", [1, 16])
@pytest.mark.parametrize("part", [(0, 1), (1, 2), (2, 5)])
def test_a_state_goes_on_at_the_next_row(part, shuffle_rows):
    def mixture() -> StreamedMixture:
        return StreamedMixture(streams(), [3.0, 1.0, 1.0], seed=5, shuffle_rows=shuffle_rows, process=part)

    whole = list(mixture())
    for stop in (0, 1, 7, len(whole) - 1, len(whole)):
        before = mixture()
        reading = iter(before)
        head = [next(reading) for _ in range(stop)]
        state = json.loads(json.dumps(before.state_dict()))
        after = mixture()
        after.load_state_dict(state)
        assert head + list(after) == whole, stop


def test_an_epoch_is_a_function_of_seed_and_number():
    mixture = StreamedMixture(streams(), seed=2)
    first = list(mixture)
    assert list(StreamedMixture(streams(), seed=2)) == first
    mixture.set_epoch(1)
    second = list(mixture)
    assert values(second) != values(first) and sorted(values(second)) == ALL
    assert len({row[AUGMENTATION_SEED] for row in [*first, *second]}) == 2 * len(ALL)
    assert values(StreamedMixture(streams(), seed=3)) != values(first)


def test_weights_are_shares_while_all_streams_are_there():
    endless = StreamedMixture(streams(), [6.0, 3.0, 1.0], seed=0, at_end="repeat")
    counts = Counter(row["source"] for row, _ in zip(endless, range(5000), strict=False))
    # 5,000 draws: a share of 0.6 lies within 0.6 +- 4 * sqrt(0.24 / 5000) = 0.028.
    assert [counts[name] / 5000 for name in ("many", "two", "one")] == pytest.approx([0.6, 0.3, 0.1], abs=0.028)


def test_a_repeating_stream_resumes_in_a_later_pass():
    def mixture() -> StreamedMixture:
        return StreamedMixture(streams(), seed=0, at_end="repeat", shuffle_rows=10)

    before = mixture()
    reading = iter(before)
    for _ in range(233):
        next(reading)
    after = mixture()
    after.load_state_dict(before.state_dict())
    assert [next(reading) for _ in range(50)] == [row for row, _ in zip(after, range(50), strict=False)]


def test_tables_mix_with_streams():
    table = Dataset.from_dict({"x": list(range(300, 310))})
    for processes in (1, 3):
        seen = [
            value
            for index in range(processes)
            for value in values(StreamedMixture({**streams(), "table": table}, process=(index, processes)))
        ]
        assert sorted(seen) == [*ALL, *range(300, 310)]


def test_a_stream_is_told_from_a_table():
    assert is_stream(stream(0, 1, 1)) and is_stream(StreamedMixture(streams()))
    assert not is_stream(Dataset.from_dict({"x": [1]})) and not is_stream([1])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0, 1.0], [1.0, float("inf"), 1.0]])
def test_unusable_weights_are_refused(weights):
    with pytest.raises(DataError, match="weight"):
        StreamedMixture(streams(), weights)


def test_a_state_of_another_part_is_refused():
    before = StreamedMixture(streams(), process=(0, 2))
    next(iter(before))
    after = StreamedMixture(streams(), process=(1, 2))
    after.load_state_dict(before.state_dict())
    with pytest.raises(DataError, match=r"part 1 of 2.*\[0, 2\]"):
        next(iter(after))
