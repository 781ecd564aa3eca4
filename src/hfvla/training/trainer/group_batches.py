"""Batches of rows that belong to different groups, for losses that tell the rows of a batch apart."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Sampler

from hfvla.data.rows.columns import column
from hfvla.errors import DataError

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["GroupSampler", "build_group_sampler", "most_batches"]

logger = logging.getLogger(__name__)


class GroupSampler(Sampler[int]):
    """An order of rows in which each whole batch has as many groups as possible, and few rows of any.

    A batch is that of all processes: each takes its share of consecutive rows, so that two processes see what one with
    the whole batch sees. The order is a function of (seed, epoch). In an epoch no row comes twice; rows that fit into
    no whole batch are left out, others in each epoch.

    The rows are shuffled, sorted by group in random order, and dealt to the batches in turn: a group of m rows then
    gives each of T batches m / T of them, rounded up or down, which is the least that is possible.

    Args:
        groups (`Sequence[str]`): group of each row; rows with an empty name are groups of their own.
        batch_rows (`int`): rows of a batch, over all processes.
        rows_per_group (`int`): rows of a group in a batch, at most; a batch has two groups in any case.
        seed (`int`): of the order.
        where (`str`): what to name in errors.

    Attributes:
        batches (`int`): whole batches in an epoch; the same in each.
        left_out (`int`): rows left out of each epoch.

    Raises:
        DataError: a batch of one row, rows of one group only, or too few groups to fill one batch.
    """

    def __init__(
        self, groups: Sequence[str], batch_rows: int, rows_per_group: int, seed: int, where: str = "batches"
    ) -> None:
        self.seed, self.epoch, self.batch_rows = seed, 0, batch_rows
        names = [name or ("", row) for row, name in enumerate(groups)]
        codes: dict[Any, int] = {}
        self._codes = np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int64)
        self.group_count = len(codes)
        if batch_rows < 2 or len(codes) < 2:
            raise DataError(
                "a batch needs rows of two groups, or there is nothing to tell apart",
                where=where,
                got=f"{batch_rows} row a batch"
                if batch_rows < 2
                else f"the only group is {next(iter(codes), None)!r}",
                fix="Raise per_device_train_batch_size." if batch_rows < 2 else "Add rows of other groups.",
            )
        self.rows_per_group = min(rows_per_group, batch_rows - 1)
        sizes = np.bincount(self._codes)
        self.batches = most_batches(sizes, batch_rows, self.rows_per_group)
        if not self.batches:
            raise DataError(
                "too few groups to fill a batch",
                where=where,
                got=f"{np.minimum(sizes, self.rows_per_group).sum()} rows of {len(sizes)} groups, at most "
                f"{self.rows_per_group} of each",
                expected=f"{batch_rows} rows, the batch of all processes",
                fix="Raise batches.rows_per_group, or lower per_device_train_batch_size.",
            )

    @property
    def left_out(self) -> int:
        """Rows left out of each epoch."""
        return len(self._codes) - len(self)

    def __len__(self) -> int:
        """Return the number of rows in an epoch."""
        return self.batches * self.batch_rows

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Go through the rows of the epoch, batch after batch."""
        draw = np.random.default_rng([self.seed, self.epoch])
        rows = draw.permutation(len(self._codes))
        rank = draw.permutation(self.group_count)[self._codes[rows]]
        rows = rows[np.argsort(rank, kind="stable")]  # the groups one after another
        rows = rows[_occurrence(self._codes[rows]) < self.rows_per_group * self.batches]
        rows = rows[np.sort(draw.permutation(len(rows))[: len(self)])]
        batches = rows.reshape(self.batch_rows, self.batches).T[draw.permutation(self.batches)]
        # First one row of each group, then the second ones: a process's share is spread over groups too.
        turn = np.stack([_occurrence(batch) for batch in self._codes[batches]]) + draw.random(batches.shape)
        yield from np.take_along_axis(batches, turn.argsort(axis=1), axis=1).ravel().tolist()


def most_batches(sizes: np.ndarray, batch_rows: int, rows_per_group: int) -> int:
    """Return how many whole batches groups of these sizes fill, with at most `rows_per_group` of each in a batch."""

    def fit(batches: int) -> bool:
        return bool(np.minimum(sizes, rows_per_group * batches).sum() >= batch_rows * batches)

    low, high = 0, int(sizes.sum()) // batch_rows  # what fits is [0, the answer]: the difference is concave
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fit(middle) else (low, middle - 1)
    return low


def _occurrence(codes: np.ndarray) -> np.ndarray:
    """Return how many equal codes stand directly before each one."""
    places = np.arange(len(codes))
    starts = np.r_[True, codes[1:] != codes[:-1]]
    return places - np.maximum.accumulate(np.where(starts, places, 0))


def build_group_sampler(trainer: Trainer) -> GroupSampler:
    """Return the order that a stage's `batches` asks for.

    Args:
        trainer: its trainer, with `args`, `accelerator`, `stage` and `train_dataset`.

    Raises:
        DataError: the training rows have no column `group`, or see `GroupSampler`.
    """
    args, where = trainer.args, f"stage '{trainer.stage.name}', batches"
    shared = trainer.accelerator.dataloader_config.split_batches  # then the batch size is that of all processes
    rows = args.train_batch_size * (1 if shared else args.world_size)
    groups = _groups(trainer.train_dataset, where)
    sampler = GroupSampler(groups, rows, trainer.stage.batches.rows_per_group, args.data_seed or args.seed, where)
    logger.info(
        "stage '%s': %d batches of %d rows an epoch, at most %d of a group, %d groups; %d of %d rows left out, others "
        "in each epoch",
        trainer.stage.name,
        sampler.batches,
        rows,
        sampler.rows_per_group,
        sampler.group_count,
        sampler.left_out,
        len(groups),
    )
    return sampler


def _groups(dataset: Any, where: str) -> list[str]:
    """Return the column `group` of a dataset, which may be wrapped (augmentation, cached features)."""
    while not hasattr(dataset, "column_names") and hasattr(dataset, "rows"):
        dataset = dataset.rows
    columns = getattr(dataset, "column_names", None) or ()
    if "group" not in columns:
        raise DataError(
            "the training rows have no column 'group'",
            where=where,
            got=", ".join(columns) or type(dataset).__name__,
            fix="Leave `batches` out, or use sources whose rows name their group.",
        )
    return [str(name or "") for name in column(dataset, "group")]
