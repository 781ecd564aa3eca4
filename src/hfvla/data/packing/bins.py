"""Which samples share a sequence: best fit, longest first, and how much padding that saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hfvla.errors import DataError

__all__ = ["PackingReport", "pack", "packing_report"]


def pack(lengths: Sequence[int] | np.ndarray, max_length: int, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    """Put samples into as few sequences as best fit finds, none of them cut.

    The lengths that share a sequence are the same in every epoch, and so is the number of sequences; which of the
    samples of one length goes where is drawn from (seed, epoch). A resumed run needs no more than these two numbers.

    Args:
        lengths: tokens of each sample.
        max_length: tokens of a sequence, at most.
        seed: of the run.
        epoch: another epoch, other company among samples of one length.

    Returns:
        `list` of `list[int]`: samples of each sequence; every sample is in one of them.

    Raises:
        DataError: a sample has no token, or more than `max_length`.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    for number in np.flatnonzero((sizes < 1) | (sizes > max_length))[:1]:
        raise DataError(
            f"sample {number} cannot be packed: a sample is never cut",
            got=f"{sizes[number]} tokens",
            expected=f"1 to {max_length}",
            fix="Raise packing.max_length, or leave such samples out with packing.too_long: leave_out.",
        )
    bins = _best_fit(np.sort(sizes)[::-1].tolist(), max_length)
    # Position in the sorted list -> sample: equal lengths lie side by side, in an order of their own in each epoch.
    shuffled = np.random.default_rng([seed, epoch]).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    return [order[members].tolist() for members in bins]


def _best_fit(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Return positions by bin; each length goes where the least room is left, the earliest bin among equals.

    The bins with room r wait in `waiting[r]`, and bit r of `open_rooms` says that there are some: the fullest bin that
    a length fits into is the lowest bit at or above it, so that a million samples take seconds.
    """
    bins: list[list[int]] = []
    waiting: list[list[int]] = [[] for _ in range(max_length + 1)]
    open_rooms = 0
    for position, length in enumerate(lengths):
        fitting = open_rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = waiting[room].pop()
            if not waiting[room]:
                open_rooms &= ~(1 << room)
        else:
            room, chosen = max_length, len(bins)
            bins.append([])
        bins[chosen].append(position)
        left = room - length
        if left:
            waiting[left].append(chosen)
            open_rooms |= 1 << left
    return bins


@dataclass(frozen=True)
class PackingReport:
    """What packing did to the rows of a stage.

    Attributes:
        rows: packed samples.
        left_out: samples that were longer than a sequence.
        sequences: packed sequences of an epoch.
        max_length: tokens of a sequence, at most.
        tokens: of all packed samples.
        batch_rows: rows of a batch that the padding before is computed for.
        padding_before: share of padding when rows are padded to the longest of their batch.
        padding_after: share of padding when sequences are padded to `max_length`; batches are padded to their
            longest sequence, so it is at most this.
    """

    rows: int
    left_out: int
    sequences: int
    max_length: int
    tokens: int
    batch_rows: int
    padding_before: float
    padding_after: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return one line for the log."""
        left_out = f"; {self.left_out:,} longer rows left out" if self.left_out else ""
        return (
            f"packing: {self.rows:,} rows in {self.sequences:,} sequences of at most {self.max_length:,} tokens "
            f"({self.rows / self.sequences:.1f} rows each); padding {self.padding_before:.1%} of the tokens "
            f"in batches of {self.batch_rows} rows before, {self.padding_after:.1%} after{left_out}"
        )


def packing_report(
    lengths: Sequence[int] | np.ndarray,
    bins: Sequence[Sequence[int]],
    max_length: int,
    batch_rows: int,
    left_out: int = 0,
) -> PackingReport:
    """Return what packing did.

    Args:
        lengths: tokens of each packed sample.
        bins: as `pack` returned them.
        max_length: as given to `pack`.
        batch_rows: rows of a batch without packing.
        left_out: samples that were too long.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    tokens = int(sizes.sum())
    shuffled = np.random.default_rng(0).permutation(sizes)
    padded = sum(
        int(batch.max()) * len(batch) for batch in np.split(shuffled, range(batch_rows, len(shuffled), batch_rows))
    )
    return PackingReport(
        rows=len(sizes),
        left_out=left_out,
        sequences=len(bins),
        max_length=max_length,
        tokens=tokens,
        batch_rows=batch_rows,
        padding_before=1 - tokens / padded,
        padding_after=1 - tokens / (len(bins) * max_length),
    )
