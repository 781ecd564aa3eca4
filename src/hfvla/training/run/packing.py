"""The rows of a stage in the order that saves padding: packed into sequences, or grouped by length."""

from __future__ import annotations

import logging
from typing import Any

from hfvla.cache.rows import CachedRows
from hfvla.data.packing import PackedRows
from hfvla.data.rows.epoch import EpochRows
from hfvla.data.rows.mixing import is_stream
from hfvla.errors import DataError, RecipeError
from hfvla.recipe import Stage
from hfvla.training.checkpoint.length_order import LENGTHS
from hfvla.training.stage.data import StageRows

__all__ = ["ordered_rows", "rows_that_fit"]

logger = logging.getLogger(__name__)


def rows_that_fit(stage: Stage, rows: StageRows, collator: Any) -> tuple[StageRows, dict[str, Any] | None]:
    """Leave out what has more tokens than the model takes, where a stage says so; return rows and what was left out.

    Args:
        stage: with `too_long: leave_out`; otherwise nothing is looked at.
        rows: training and validation rows, before features are cached.
        collator: the family's, with `token_lengths(rows)` and `max_length`.

    Returns:
        `tuple`: (rows, {"train": n, "validation": n, "first": ..., "tokens": most that the model takes} or None).

    Raises:
        RecipeError: the family cannot tell lengths, or the rows are streamed.
        DataError: no training row is short enough.
    """
    if stage.too_long == "refuse":
        return rows, None
    where = f"stage '{stage.name}'"
    if not hasattr(collator, "token_lengths") or not hasattr(collator, "max_length"):
        raise RecipeError(
            "too_long: the family's collator cannot say how long a row is", where=where, fix="Leave `too_long` out."
        )
    if rows.streamed:
        raise RecipeError(
            "too_long: how long the rows of a stream are is not known ahead",
            where=where,
            fix="Read the source without streaming, or leave `too_long` out.",
        )
    left: dict[str, Any] = {"tokens": collator.max_length}
    found: dict[str, Any] = {"train": rows.train, "validation": rows.validation}
    for name, table in found.items():
        lengths = [] if table is None else collator.token_lengths(table)
        long = [number for number, length in enumerate(lengths) if length > collator.max_length]
        left[name] = len(long)
        if long and "first" not in left:
            left["first"] = f"{table[long[0]].get('id', long[0])}, {lengths[long[0]]} tokens"
        short = [number for number, length in enumerate(lengths) if length <= collator.max_length]
        if long:
            found[name] = table.select(short)
    if not len(found["train"]):
        raise DataError(
            "no row fits into the model's context", where=where, got=left["first"], expected=left["tokens"]
        )
    if "first" in left:
        logger.warning(
            "%s: %d training and %d validation rows have more than %d tokens and are left out, first: %s",
            where, left["train"], left["validation"], left["tokens"], left["first"],
        )  # fmt: skip
    return StageRows(found["train"], found["validation"]), left


def ordered_rows(stage: Stage, rows: Any, collator: Any, arguments: Any) -> Any:
    """Return the training rows as a stage asks for them, each with the seed of its augmentation.

    Args:
        stage: with `packing` or without.
        rows: a map-style dataset, or a `StreamedMixture`.
        collator: the family's; one that can pack has `token_lengths(rows) -> list[int]`.
        arguments: the stage's `TrainingArguments`.

    Returns:
        `PackedRows` for a stage with `packing`; `EpochRows`, with their lengths where the order needs them; or the
        stream, which each process reads while it decodes only rows of its own batches.

    Raises:
        RecipeError: the family cannot pack.
        DataError: a row does not fit into a sequence.
    """
    if is_stream(rows):
        arguments.accelerator_config.dispatch_batches = False
        return rows
    rows = EpochRows(rows, arguments.data_seed or arguments.seed)
    collator = getattr(collator, "collator", collator)  # of rows with cached features: lengths are told without them
    plain = rows.rows.rows if isinstance(rows.rows, CachedRows) else rows.rows
    tells = hasattr(collator, "token_lengths")
    if stage.packing is None:
        if arguments.train_sampling_strategy == "group_by_length" and tells:
            setattr(rows, LENGTHS, list(collator.token_lengths(plain)))
        return rows
    if not tells:
        raise RecipeError(
            "packing: the family's collator cannot say how long a row is",
            where=f"stage '{stage.name}'",
            got=type(collator).__name__,
            expected="a collator with token_lengths(rows)",
            fix="Leave `packing` out.",
        )
    packed = PackedRows(
        rows,
        collator.token_lengths(plain),
        stage.packing.max_length,
        seed=arguments.data_seed or arguments.seed,
        too_long=stage.packing.too_long,
        batch_rows=arguments.per_device_train_batch_size,
    )
    logger.info("stage '%s': %s", stage.name, packed.report)
    return packed
