"""Mix several datasets into one epoch by weights that say how often each is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hfvla.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["mix"]


def _indices(size: int, weight: float, generator: np.random.Generator) -> np.ndarray:
    """Whole repeats of all rows, then a random share without replacement for the fraction; [round(size * weight)]."""
    repeats = math.floor(weight)
    share = round(size * (weight - repeats))
    extra = np.sort(generator.permutation(size)[:share])
    return np.concatenate([np.tile(np.arange(size), repeats), extra])


def _aligned(dataset: Dataset, reference: Dataset, position: int) -> Dataset:
    if set(dataset.column_names) != set(reference.column_names):
        raise DataError(
            f"dataset {position} has other columns than dataset 0",
            got=sorted(set(dataset.column_names) ^ set(reference.column_names)),
            expected=f"columns {sorted(reference.column_names)}",
        )
    if dataset.features == reference.features:
        return dataset
    return dataset.select_columns(reference.column_names).cast(reference.features)


def mix(datasets: Sequence[Dataset], weights: Sequence[float], seed: int) -> Dataset:
    """Concatenate datasets, each seen `weight` times an epoch; rows are not shuffled.

    Weight 1.0 is every row once, 3.0 every row three times, 0.25 a seeded quarter, 2.5 twice plus a seeded half.

    Args:
        datasets: map-style datasets with the same columns; the first one's features are used for all.
        weights: one finite positive number a dataset.
        seed: decides which rows a fraction takes; each dataset draws from (seed, its position).

    Raises:
        DataError: no dataset, wrong number of weights, a weight that is not positive, an empty share, or other
            columns.
    """
    from datasets import concatenate_datasets

    if not datasets or len(datasets) != len(weights):
        raise DataError(
            "mix needs one weight a dataset",
            got=f"{len(datasets)} datasets and {len(weights)} weights",
            expected="the same number, at least 1",
        )
    parts = []
    for position, (dataset, weight) in enumerate(zip(datasets, weights, strict=True)):
        if not (math.isfinite(weight) and weight > 0):
            raise DataError(f"weight of dataset {position} is not usable", got=weight, expected="a positive number")
        aligned = _aligned(dataset, datasets[0], position)
        indices = _indices(len(aligned), weight, np.random.default_rng([seed, position]))
        if not len(indices):
            raise DataError(
                f"dataset {position} gives no row",
                got=f"{len(aligned)} rows x weight {weight}",
                fix="Raise its weight or leave it out.",
            )
        parts.append(aligned if weight == 1.0 else aligned.select(indices))
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)
