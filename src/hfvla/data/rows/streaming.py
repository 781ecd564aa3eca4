r"""A mixture of streams: sets that are too large for a table, interleaved by shares, resumable to the row.

    stream 0 --\                          block of rows          row, row, row ...
    stream 1 ----> drawn by share (seed) --> shuffled (seed) -->
    stream 2 --/

Which stream gives row k, and how a block is shuffled, are functions of (seed, epoch, part, k): a state is a handful of
numbers, and a block is read again when a run goes on in the middle of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from hfvla.data.rows.epoch import AUGMENTATION_SEED, row_seed
from hfvla.errors import DataError

__all__ = ["StreamedMixture"]

_DRAWS = 1024  # uniform numbers made at a time
_PICK, _SHUFFLE, _AUGMENT = 0, 1, 2


class StreamedMixture(IterableDataset):
    """Rows of several streams, for a `DataLoader` with any number of workers.

    Each worker reads a part of its own: whole files (shards) of a stream where it has enough of them, else every n-th
    row. With `process`, processes have parts of their own too; without it, something else must share the batches out
    among them, as accelerate's `IterableDatasetShard` does (`dispatch_batches: false`). Together the parts are every
    row once.

    Args:
        streams: `datasets.IterableDataset` (or `Dataset`) by name of the source.
        weights: share of each while all are there, in any unit.
        seed: decides order and shuffling.
        shuffle_rows: rows of a block that is shuffled; 0 or 1 leaves the order.
        at_end: of a stream: "leave" the mixture, so that an epoch is every row once; or "repeat", which never ends.
        process: number of this process, and how many there are.

    Raises:
        DataError: no stream, or a weight that is not positive.
    """

    def __init__(
        self,
        streams: Mapping[str, Any],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        shuffle_rows: int = 1000,
        at_end: Literal["leave", "repeat"] = "leave",
        process: tuple[int, int] = (0, 1),
    ) -> None:
        self.streams, self.seed, self.epoch = dict(streams), seed, 0
        shares = [1.0] * len(self.streams) if weights is None else list(weights)
        if not self.streams or len(shares) != len(self.streams):
            raise DataError("a mixture needs a weight a stream", got=f"{len(self.streams)} and {len(shares)}")
        for name, weight in zip(self.streams, shares, strict=True):
            if not 0 < weight < float("inf"):
                raise DataError(f"weight of stream '{name}' is not usable", got=weight, expected="a positive number")
        self.weights, self.shuffle_rows = np.array(shares) / sum(shares), max(1, shuffle_rows)
        self.at_end, self.process = at_end, process
        self._resume: dict[str, Any] | None = None
        self._at: dict[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return where the last iteration in this process is, as JSON; with workers each has its own."""
        if self._at is None:
            return copy.deepcopy(self._resume) or {"epoch": self.epoch, "block": 0, "offset": 0, "start": None}
        return copy.deepcopy(self._at)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where `state_dict` was taken."""
        self._resume, self._at = copy.deepcopy(dict(state)), None
        self.epoch = state["epoch"]

    def _part(self) -> tuple[int, int]:
        """Return the number of this part, and how many there are: of processes, and of workers in each."""
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        index, processes = self.process
        return index * count + number, processes * count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Go through this part of the epoch, from the state that was loaded or from the beginning."""
        part, parts = self._part()
        found, self._resume = self._resume, None
        if found is not None and found.get("part", [part, parts]) != [part, parts]:
            raise DataError(
                "the state of a stream is of another part", got=f"part {part} of {parts}", expected=found["part"]
            )
        reading = _Interleaved(self, part, parts, found["start"] if found else None)
        block, skipped = (found["block"], found["offset"]) if found else (0, 0)
        while True:
            start = reading.state()
            rows = reading.take(self.shuffle_rows)
            if not rows:
                return
            order = self._random(part, _SHUFFLE, block).permutation(len(rows))
            for offset in range(skipped, len(rows)):
                self._at = {"epoch": self.epoch, "part": [part, parts], "block": block, "offset": offset + 1}
                self._at["start"] = start
                seed = row_seed(row_seed(self.seed, self.epoch, part), _AUGMENT, block * self.shuffle_rows + offset)
                yield {**rows[order[offset]], AUGMENTATION_SEED: seed}
            block, skipped = block + 1, 0

    def _random(self, part: int, kind: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, part, kind, number])


class _Interleaved:
    """Rows of a part, drawn from its streams by their shares."""

    def __init__(self, mixture: StreamedMixture, part: int, parts: int, state: Mapping[str, Any] | None) -> None:
        self.mixture, self.part = mixture, part
        self.sources = [_Source(name, stream, part, parts) for name, stream in mixture.streams.items()]
        self.draws, self.live = 0, [True] * len(self.sources)
        self._numbers: tuple[int, np.ndarray] = (-1, np.zeros(0))
        if state is not None:
            self.draws, self.live = state["draws"], list(state["live"])
            for source, saved in zip(self.sources, state["sources"], strict=True):
                source.load(saved)

    def state(self) -> dict[str, Any]:
        """Return where every stream is."""
        return {"draws": self.draws, "live": list(self.live), "sources": [source.state() for source in self.sources]}

    def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next rows; less than `count` where all streams have ended."""
        rows: list[dict[str, Any]] = []
        while len(rows) < count and any(self.live):
            chosen = self._draw()
            row = self.sources[chosen].next_row()
            if row is None and self.mixture.at_end == "repeat":
                self.sources[chosen].restart()
                row = self.sources[chosen].next_row()
            if row is None:
                self.live[chosen] = False
            else:
                rows.append(row)
        return rows

    def _draw(self) -> int:
        block, place = divmod(self.draws, _DRAWS)
        if self._numbers[0] != block:
            self._numbers = (block, self.mixture._random(self.part, _PICK, block).random(_DRAWS))
        self.draws += 1
        shares = np.where(self.live, self.mixture.weights, 0.0).cumsum()
        return min(int(np.searchsorted(shares, self._numbers[1][place] * shares[-1], side="right")), len(shares) - 1)


class _Source:
    """One stream in one part."""

    def __init__(self, name: str, stream: Any, part: int, parts: int) -> None:
        if hasattr(stream, "to_iterable_dataset"):
            stream = stream.to_iterable_dataset(num_shards=min(parts, max(len(stream), 1)))
        whole_files = stream.num_shards >= parts
        self.name = name
        self.every, self.first = (1, 0) if whole_files else (parts, part)
        # A shard of its own also where it is all of it: two mixtures of one stream must not share its place.
        self.rows = stream.shard(*((parts, part) if whole_files else (1, 0)), contiguous=False)
        self._fresh = copy.deepcopy(self.rows.state_dict()) if hasattr(self.rows, "state_dict") else None
        self.seen = 0
        self._iterator: Iterator[dict[str, Any]] | None = None

    def next_row(self) -> dict[str, Any] | None:
        """Return the next row of this part, or None at the end."""
        if self._iterator is None:
            # In batches of one: a plain iteration would be shared out among workers once more.
            self._iterator = iter(self.rows.iter(batch_size=1))
        for batch in self._iterator:
            self.seen += 1
            if (self.seen - 1) % self.every == self.first:
                row = {name: values[0] for name, values in batch.items()}
                return {**row, "source": row.get("source") or self.name}
        return None

    def restart(self) -> None:
        """Begin anew."""
        self.rows.load_state_dict(copy.deepcopy(self._fresh))
        self.seen, self._iterator = 0, None

    def state(self) -> dict[str, Any]:
        """Return how far this stream is read."""
        return {"seen": self.seen, "rows": copy.deepcopy(self.rows.state_dict())}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.rows.load_state_dict(copy.deepcopy(state["rows"]))
        self.seen, self._iterator = state["seen"], None
