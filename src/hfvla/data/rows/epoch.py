"""Random augmentation that can be repeated: every draw is a function of (seed, epoch, row)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["AUGMENTATION_SEED", "EpochRows", "draw_seed", "row_seed"]

AUGMENTATION_SEED = "augmentation_seed"
"""Key under which a training row carries the seed of its random draws in this epoch."""

_MODEL = 1  # what a model draws is unrelated to what a collator draws from the same seed


def row_seed(seed: int, epoch: int, index: int) -> int:
    """Return a seed in [0, 2^63) that is the same for the same (seed, epoch, index), and unrelated for any other."""
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, epoch, index), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def draw_seed(row: Mapping[str, Any], number: int = 0) -> int:
    """Return a seed in [0, 2^63) for what a model draws for a row: the same in every batch and on every process.

    Args:
        row: of `EpochRows`, with its seed in this epoch.
        number: of several samples that are made of one row.
    """
    return row_seed(int(row[AUGMENTATION_SEED]), _MODEL, number)


class EpochRows:
    """Training rows that say how they are to be augmented in this epoch.

    A row that a worker augments from its own random stream looks different after a resume: the stream starts anew in
    the middle of an epoch. Here each row carries `augmentation_seed`, from which a collator or a transform draws:

        generator = numpy.random.default_rng(row["augmentation_seed"])

    Rows without that key (validation, tests, inference) are not to be augmented.

    Args:
        rows: a map-style dataset of dicts, e.g. `datasets.Dataset`.
        seed: seed of the run.
    """

    def __init__(self, rows: Any, seed: int) -> None:
        self.rows, self.seed, self.epoch = rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next; the trainer does it before the workers of an epoch start."""
        self.epoch = epoch
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row with its `augmentation_seed`."""
        return self._seeded(self.rows[index], index)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return several rows at once; torch's loader asks for a whole batch where a dataset can answer it."""
        if hasattr(self.rows, "__getitems__"):
            found = self.rows.__getitems__(list(indices))
        else:
            found = [self.rows[index] for index in indices]
        return [self._seeded(row, index) for row, index in zip(found, indices, strict=True)]

    def _seeded(self, row: Any, index: int) -> dict[str, Any]:
        position = int(index) % len(self.rows)
        return {**row, AUGMENTATION_SEED: row_seed(self.seed, self.epoch, position)}
