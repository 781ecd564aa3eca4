"""Splits and folds that never cut a group: every row of a task, building or episode lands on one side."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from hfvla.data.rows.columns import column
from hfvla.errors import DataError

__all__ = ["grouped_folds", "grouped_split", "held_out_groups", "rows_of_groups"]


def _ranked_groups(groups: Sequence[str], seed: int) -> list[tuple[str, int]]:
    """(group, number of rows), ordered by a hash of seed and group; row order does not matter."""
    sizes = Counter(groups)
    return sorted(sizes.items(), key=lambda item: hashlib.sha256(f"{seed}/{item[0]}".encode()).digest())


def _rows_of(groups: Sequence[str], chosen: set[str]) -> np.ndarray:
    return np.array([index for index, group in enumerate(groups) if group in chosen], dtype=np.int64)


def grouped_split(groups: Sequence[str], holdout_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into train and holdout so that no group is on both sides.

    Groups are ranked by a hash of (seed, group) and held out until the fraction is met, so the holdout share is exact
    to within one group, and does not depend on the order of the rows.

    Args:
        groups (sequence of `str`): group of each row.
        holdout_fraction (`float`): share of rows to hold out, in (0, 1).
        seed (`int`): another seed, another split.

    Returns:
        `tuple` of two `np.ndarray`: int64 row indices, ascending: train, holdout; both non-empty.

    Raises:
        DataError: fraction outside (0, 1), or fewer than two groups.
    """
    if not 0.0 < holdout_fraction < 1.0:
        raise DataError("holdout fraction out of range", got=holdout_fraction, expected="0 < fraction < 1")
    ranked = _ranked_groups(groups, seed)
    if len(ranked) < 2:
        raise DataError(
            "cannot split: too few groups", got=len(ranked), expected="at least 2 groups", fix="Use more rows."
        )
    wanted = holdout_fraction * len(groups)
    chosen: set[str] = set()
    held = 0
    for group, size in ranked[:-1]:
        if chosen and held + size / 2 > wanted:
            break
        chosen.add(group)
        held += size
    return _rows_of(groups, set(groups) - chosen), _rows_of(groups, chosen)


def grouped_folds(groups: Sequence[str], k: int, seed: int) -> list[np.ndarray]:
    """Partition rows into k folds of nearly equal size without cutting a group.

    Args:
        groups (sequence of `str`): group of each row.
        k (`int`): number of folds, at least 2.
        seed (`int`): another seed, other folds.

    Returns:
        `list` of k `np.ndarray`: int64 row indices of each fold, ascending; together they are every row once.

    Raises:
        DataError: k below 2 or more folds than groups.
    """
    ranked = _ranked_groups(groups, seed)
    if not 2 <= k <= len(ranked):
        raise DataError("number of folds out of range", got=k, expected=f"2 <= k <= {len(ranked)} groups")
    members: list[set[str]] = [set() for _ in range(k)]
    sizes = [0] * k
    for group, size in ranked:
        smallest = sizes.index(min(sizes))
        members[smallest].add(group)
        sizes[smallest] += size
    return [_rows_of(groups, chosen) for chosen in members]


def held_out_groups(
    sets: Sequence[tuple[str, Any]],
    fraction: float,
    wanted: Collection[str] | None,
    seed: int,
    taken: Collection[str] = (),
) -> set[str]:
    """Return the groups that a recipe holds out of its sources.

    Args:
        sets: name and rows (with a column "group") of each source.
        fraction: share of each source's rows; 0 for none.
        wanted: names of the sources that rows are held out of; all when None.
        seed: of the recipe.
        taken: groups that are held out for something else.

    Raises:
        DataError: too few groups.
    """
    held: set[str] = set()
    for name, rows in sets:
        if fraction and (wanted is None or name in wanted):
            groups = [group for group in column(rows, "group") if group not in taken]
            share = fraction * len(rows) / max(len(groups), 1) if taken else fraction  # of all rows
            _, indices = grouped_split(groups, share, seed)
            held.update(groups[int(index)] for index in indices)
    return held


def rows_of_groups(rows: Any, chosen: Collection[str]) -> Any | None:
    """Return the rows (`datasets.Dataset`) of some groups, or None where there is none."""
    if not chosen:
        return None
    indices = [index for index, group in enumerate(column(rows, "group")) if group in chosen]
    return rows.select(indices) if indices else None
