"""The rows of a stage in the order that saves padding: packed into sequences, or grouped by length."""

from __future__ import annotations

import logging
from typing import Any

from hfvla.cache.rows import CachedRows
from hfvla.data.packing import PackedRows
from hfvla.data.rows.epoch import EpochRows
from hfvla.data.rows.mixing import is_stream
from hfvla.errors import RecipeError
from hfvla.recipe import Stage
from hfvla.training.checkpoint.length_order import LENGTHS

__all__ = ["ordered_rows"]

logger = logging.getLogger(__name__)


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
