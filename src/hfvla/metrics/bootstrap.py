"""Confidence intervals by resampling groups (tasks), since rows of one group are not independent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

__all__ = ["bootstrap_intervals"]


def bootstrap_intervals(
    fn: Callable[..., Mapping[str, float]],
    arrays: Mapping[str, np.ndarray],
    groups: Sequence[str],
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of every number that `fn` returns.

    Groups are drawn with replacement, as many as there are, each with all its rows.

    Args:
        fn: called with the resampled arrays as keyword arguments. A name it leaves out, or NaN, is undefined in
            that resample and does not count.
        arrays: by argument name; first dimension N.
        groups: N keys.
        samples: resamples.
        seed: seed of the draws.
        confidence: e.g. 0.95.

    Returns:
        `dict`: (low, high) by name; empty without samples, and with one group, of which every draw is the same.

    Raises:
        ValueError: lengths differ, or there are no rows.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if set(lengths.values()) != {len(groups)} or not len(groups):
        raise ValueError(f"arrays and groups need one row count above 0; got {lengths}, {len(groups)} groups")
    _, group_of_row, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return {}
    rows_of = np.split(np.argsort(group_of_row, kind="stable"), np.cumsum(sizes)[:-1])
    draws = np.random.default_rng(seed).integers(len(rows_of), size=(samples, len(rows_of)))
    values: dict[str, list[float]] = {}
    for draw in draws:
        index = np.concatenate([rows_of[group] for group in draw])
        for name, value in fn(**{key: array[index] for key, array in arrays.items()}).items():
            values.setdefault(name, []).append(value)
    tail = 100 * (1 - confidence) / 2
    intervals = {}
    for name, found in values.items():
        defined = np.asarray(found)[~np.isnan(found)]
        if len(defined):
            low, high = np.percentile(defined, [tail, 100 - tail])
            intervals[name] = (float(low), float(high))
    return intervals
