"""Mix several datasets into one epoch: how many rows of each, and which.

sources: n_i rows, weight w_i          epoch: N rows, c_i of source i

repeats        c_i = n_i w_i                       each row w_i times
fixed          c_i = N w_i / sum w                 w_i are shares of the mixture
proportional   c_i = N n_i w_i / sum (n w)         as large as the sources are
temperature    c_i = N n_i^(1/T) w_i / sum (...)   T = 1 is proportional, T -> infinity is fixed
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hfvla.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = ["MixtureKind", "is_stream", "mix", "mixture_counts", "mixture_shares"]

MixtureKind = Literal["repeats", "fixed", "proportional", "temperature"]


def is_stream(rows: Any) -> bool:
    """Tell whether rows are read one after another and have no length (`hfvla.data.rows.streaming`)."""
    return hasattr(rows, "state_dict") and not hasattr(rows, "__len__")


def mixture_shares(
    sizes: Sequence[int], weights: Sequence[float], kind: MixtureKind = "proportional", temperature: float = 1.0
) -> list[float]:
    """Return the share of each source in a mixture; they sum to 1.

    Args:
        sizes: rows of each source.
        weights: one finite positive number a source.
        kind: how shares follow from sizes and weights; "repeats" and "proportional" are the same shares.
        temperature: of kind "temperature": above 1 small sources are seen more, below 1 less.

    Raises:
        DataError: no source, another number of weights, a source without rows, a weight or temperature that is not
            positive.
    """
    _check(sizes, weights)
    if not (math.isfinite(temperature) and temperature > 0):
        raise DataError("temperature of a mixture is not usable", got=temperature, expected="a positive number")
    power = {"fixed": 0.0, "temperature": 1.0 / temperature}.get(kind, 1.0)
    mass = [weight * size**power for size, weight in zip(sizes, weights, strict=True)]
    return [part / sum(mass) for part in mass]


def mixture_counts(
    sizes: Sequence[int],
    weights: Sequence[float],
    kind: MixtureKind = "repeats",
    temperature: float = 1.0,
    rows: int | None = None,
) -> list[int]:
    """Return how many rows of each source an epoch has.

    Args:
        sizes: rows of each source.
        weights: one finite positive number a source.
        kind: see the top of this file.
        temperature: of kind "temperature".
        rows: N, rows of an epoch; default: as many as the sources have, or for "repeats" as the weights say.

    Returns:
        `list` of `int`: they sum to N exactly (largest remainders are rounded up), for "repeats" without N to what
        rounding gives.

    Raises:
        DataError: as `mixture_shares`, or a source that gives no row.
    """
    _check(sizes, weights)
    if kind == "repeats" and rows is None:
        counts = [_repeated(size, weight) for size, weight in zip(sizes, weights, strict=True)]
    else:
        total = sum(sizes) if rows is None else rows
        exact = [total * share for share in mixture_shares(sizes, weights, kind, temperature)]
        counts = [math.floor(part) for part in exact]
        rest = sorted(range(len(exact)), key=lambda number: (counts[number] - exact[number], number))
        for number in rest[: total - sum(counts)]:
            counts[number] += 1
    for position, (count, size, weight) in enumerate(zip(counts, sizes, weights, strict=True)):
        if not count:
            raise DataError(
                f"dataset {position} gives no row",
                got=f"{size} rows x weight {weight}",
                fix="Raise its weight or leave it out.",
            )
    return counts


def _repeated(size: int, weight: float) -> int:
    repeats = math.floor(weight)
    return repeats * size + round(size * (weight - repeats))


def _check(sizes: Sequence[int], weights: Sequence[float]) -> None:
    if not sizes or len(sizes) != len(weights):
        raise DataError(
            "mix needs one weight a dataset",
            got=f"{len(sizes)} datasets and {len(weights)} weights",
            expected="the same number, at least 1",
        )
    for position, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        if not (math.isfinite(weight) and weight > 0):
            raise DataError(f"weight of dataset {position} is not usable", got=weight, expected="a positive number")
        if size < 1:
            raise DataError(f"dataset {position} gives no row", got="0 rows", fix="Leave it out.")


def _indices(size: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Whole repeats of all rows, then a random share without replacement for what is left; [count]."""
    repeats, share = divmod(count, size)
    extra = np.sort(generator.permutation(size)[:share])
    return np.concatenate([np.tile(np.arange(size), repeats), extra])


def mix(
    datasets: Sequence[Dataset],
    weights: Sequence[float],
    seed: int,
    kind: MixtureKind = "repeats",
    temperature: float = 1.0,
    rows: int | None = None,
) -> Dataset:
    """Concatenate datasets, each with its part of an epoch; rows are not shuffled.

    By default each is seen `weight` times: 1.0 is every row once, 3.0 every row three times, 0.25 a seeded quarter,
    2.5 twice plus a seeded half.

    Args:
        datasets: map-style datasets. A column that only some have is empty (None) in the rows of the others; one that
            several have must be of one type, up to the width of numbers.
        weights: one finite positive number a dataset.
        seed: decides which rows a fraction takes; each dataset draws from (seed, its position).
        kind: how sizes and weights become an epoch, see `mixture_counts`.
        temperature: of kind "temperature".
        rows: rows of an epoch.

    Raises:
        DataError: as `mixture_counts`, or a column of two types.
    """
    from datasets import concatenate_datasets

    counts = mixture_counts([len(dataset) for dataset in datasets], weights, kind, temperature, rows)
    features = _union(datasets)
    parts = []
    for position, (dataset, count) in enumerate(zip(datasets, counts, strict=True)):
        aligned = _aligned(dataset, features, position)
        whole = count == len(aligned)
        chosen = _indices(len(aligned), count, np.random.default_rng([seed, position]))
        parts.append(aligned if whole else aligned.select(chosen))
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


def _union(datasets: Sequence[Dataset]) -> Features:
    """Return the columns of all datasets, each with the type of the first that has it."""
    from datasets import Features

    found: dict[str, Any] = {}
    for dataset in datasets:
        for name, feature in dataset.features.items():
            found.setdefault(name, feature)
    return Features(found)


def _aligned(dataset: Dataset, features: Features, position: int) -> Dataset:
    """Return a dataset whose columns have the mixture's types, in the mixture's order; those it lacks stay away.

    Raises:
        DataError: a column of another type.
    """
    from datasets import Features

    names = [name for name in features if name in dataset.features]
    own = Features({name: features[name] for name in names})
    for name in names:
        if not _same_kind(dataset.features[name], own[name]):
            raise DataError(
                f"column '{name}' of dataset {position} has another type than in a dataset before it",
                got=_shown(dataset.features[name]),
                expected=_shown(own[name]),
                fix="Mix sources whose rows agree, or give the column another name where it is read.",
            )
    ordered = dataset if dataset.column_names == names else dataset.select_columns(names)
    return ordered if ordered.features == own else ordered.cast(own)


def _same_kind(one: Any, other: Any) -> bool:
    """Tell whether two features are the same up to the width of their numbers."""
    if isinstance(one, dict) or isinstance(other, dict):
        alike = isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys()
        return alike and all(_same_kind(one[key], other[key]) for key in one)
    if type(one) is not type(other):
        return False
    if hasattr(one, "feature"):
        return _same_kind(one.feature, other.feature)
    kinds = [str(getattr(feature, "dtype", "")).rstrip("0123456789") for feature in (one, other)]
    if kinds[0] == "null" or kinds[1] == "null":
        return True
    if any(set(kinds) <= alike for alike in ({"int", "uint"}, {"float"}, {"string", "large_string"})):
        return True
    return bool(one == other)


def _shown(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or feature)
